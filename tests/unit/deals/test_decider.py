"""The rules of a deal, one sentence each: how it is opened and deleted."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import (
    DealDeleted,
    DealOpened,
    DealUndeleted,
    DealWon,
)
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    DealDetails,
    DeleteDealRequest,
    OpenDealRequest,
    ReopenDealRequest,
    UndeleteDealRequest,
    UpdateDealRequest,
)
from rapport.deals.v1.values_pb2 import FORECAST_CATEGORY_COMMIT, DealContact
from services.deals.deal import AMOUNT_MINOR_MAX, Participant, State
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.deals_world import (
    FIRST,
    NOW,
    PROPOSAL,
    QUALIFICATION,
    WON_STAGE,
    ago,
    at,
    rules,
)
from tests.looms_world import ADA, AMOUNT, LOOMS, LOSE, OPENED, WIN, WON, deal, fields_of, move


def test_a_deal_is_opened_with_all_that_was_said_of_it():
    said = {
        "display_name": "Looms",
        "amount": AMOUNT,
        "stage": PROPOSAL,
        "expected_close_time": Timestamp(seconds=86_400, nanos=1_000),
        "custom_fields": {"source": "fair"},
        "contacts": [ADA, DealContact(contact="contacts/bob", role="buyer")],
        "company": "companies/mill",
        "owner": "members/kim",
        "team": "teams/north",
        "next_step": "call",
        "occur_time": ago(3),
    }
    asked = OpenDealRequest(
        **said,
        forecast_category_override=FORECAST_CATEGORY_COMMIT,
        probability_bp_override=0,
    )
    opened = DealOpened(
        **said,
        contact="contacts/ada",
        forecast_category=FORECAST_CATEGORY_COMMIT,
        probability_bp=0,
    )

    state = deal().when(asked).then(opened)

    three_days_ago = datetime(2026, 2, 26, 12, tzinfo=UTC)
    assert state == State(
        state=DEAL_STATE_OPEN,
        display_name="Looms",
        contacts=(Participant("contacts/ada"), Participant("contacts/bob", "buyer")),
        company="companies/mill",
        owner="members/kim",
        team="teams/north",
        amount_minor=120_000,
        currency="EUR",
        stage=PROPOSAL,
        expected_close_time=datetime(1970, 1, 2, microsecond=1, tzinfo=UTC),
        next_step="call",
        custom_fields={"source": "fair"},
        forecast_category=FORECAST_CATEGORY_COMMIT,
        probability_bp=0,
        open_time=three_days_ago,
        stage_time=three_days_ago,
        change_time=three_days_ago,
    )


def test_a_deal_starts_now_in_the_first_stage_of_the_pipeline_it_all_begins_with():
    deal().when(OpenDealRequest(display_name="Looms")).then(
        DealOpened(display_name="Looms", stage=QUALIFICATION, occur_time=at(NOW))
    )


def test_a_single_contact_is_the_primary_one():
    asked = OpenDealRequest(display_name="Looms", contact="contacts/ada")

    state = (
        deal()
        .when(asked)
        .then(
            DealOpened(
                display_name="Looms",
                contact="contacts/ada",
                contacts=[ADA],
                stage=QUALIFICATION,
                occur_time=at(NOW),
            )
        )
    )

    assert "contacts/ada" == state.contact


def test_an_amount_that_nobody_gave_is_not_zero():
    unknown = deal().when(OpenDealRequest(display_name="Looms"))
    nothing = OpenDealRequest(display_name="Looms", amount=Money(currency="EUR"))
    opened = DealOpened(display_name="Looms", stage=QUALIFICATION, occur_time=at(NOW))
    for_nothing = DealOpened(amount=Money(currency="EUR"))
    for_nothing.MergeFrom(opened)

    state = deal().when(nothing).then(for_nothing)

    assert Money(currency="EUR") == state.amount
    assert unknown.then(opened).amount is None


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("amount.amount_minor", {"amount": Money(amount_minor=-1, currency="EUR")}),
        (
            "amount.amount_minor",
            {"amount": Money(amount_minor=AMOUNT_MINOR_MAX + 1, currency="EUR")},
        ),
        ("display_name", {"display_name": " "}),
        ("amount.currency", {"amount": Money(amount_minor=1)}),
        ("amount.currency", {"amount": Money(amount_minor=1, currency="ABC")}),
        ("stage", {"stage": WON_STAGE}),
        ("stage", {"stage": "pipelines/sales/stages/none"}),
        ("stage", {"stage": "pipelines/none/stages/proposal"}),
        ("stage", {"stage": "proposal"}),
        ("expected_close_time", {"expected_close_time": Timestamp(seconds=2**60)}),
        ("occur_time", {"occur_time": Timestamp(seconds=2**60)}),
        ("occur_time", {"occur_time": FIRST}),
        ("occur_time", {"occur_time": ago(-1)}),
        ("contacts", {"contacts": [ADA], "contact": "contacts/bob"}),
        ("contacts[1].contact", {"contacts": [ADA, ADA]}),
    ],
)
def test_a_deal_is_not_opened_with_what_makes_no_sense(field, said):
    request = OpenDealRequest(**({"display_name": "Looms"} | said))
    error = deal().when(request).then_refused(InvalidArgument)

    assert [field] == fields_of(error)


def test_the_largest_amount_is_taken():
    amount = Money(amount_minor=AMOUNT_MINOR_MAX, currency="EUR")

    deal().when(OpenDealRequest(display_name="Looms", amount=amount)).then(
        DealOpened(display_name="Looms", amount=amount, stage=QUALIFICATION, occur_time=at(NOW))
    )


def test_a_taken_id_names_who_has_it():
    open_again = OpenDealRequest(deal_id="looms", display_name="Another")

    error = deal().given(OPENED).when(open_again).then_refused(AlreadyExists)

    assert {"existing_name": "deals/looms", "field": "deal_id"} == error.metadata


@pytest.mark.parametrize("ending", [WON, DealDeleted(occur_time=ago(1))])
def test_the_id_of_a_closed_or_deleted_deal_stays_taken(ending):
    open_again = OpenDealRequest(deal_id="looms", display_name="Another")

    deal().given(OPENED, ending).when(open_again).then_refused(AlreadyExists)


def test_deleting_and_undeleting_twice_is_doing_it_once():
    deleted = DealDeleted(occur_time=at(NOW))
    undeleted = DealUndeleted(occur_time=at(NOW))
    delete, undelete = DeleteDealRequest(name=LOOMS), UndeleteDealRequest(name=LOOMS)

    deal().given(OPENED).when(delete).then(deleted)
    deal().given(OPENED, deleted).when(delete).then()
    state = deal().given(OPENED, WON, deleted).when(undelete).then(undeleted)

    assert DEAL_STATE_WON == state.state
    deal().given(OPENED).when(undelete).then()


@pytest.mark.parametrize(
    "command",
    [
        move(PROPOSAL),
        WIN,
        LOSE,
        ReopenDealRequest(name=LOOMS),
        UpdateDealRequest(name=LOOMS, deal=DealDetails(display_name="x")),
    ],
)
def test_nothing_is_asked_of_a_deleted_deal(command):
    spec = deal().given(OPENED, DealDeleted(occur_time=ago(1))).when(command)

    assert "DELETED" == spec.then_refused(FailedPrecondition).metadata["state"]


@pytest.mark.parametrize(
    "command",
    [
        move(PROPOSAL),
        WIN,
        LOSE,
        ReopenDealRequest(name=LOOMS),
        DeleteDealRequest(name=LOOMS),
        UndeleteDealRequest(name=LOOMS),
        UpdateDealRequest(name=LOOMS, deal=DealDetails(display_name="x")),
    ],
)
def test_nothing_is_asked_of_a_deal_that_nobody_opened(command):
    error = deal().when(command).then_refused(NotFound)

    assert {"resource": "deals/looms"} == error.metadata


def test_facts_from_before_deals_were_told_late_lead_to_what_they_led_to():
    old = [
        DealOpened(display_name="Looms", contact="contacts/ada", amount=AMOUNT, stage=PROPOSAL),
        DealWon(stage=PROPOSAL, amount=AMOUNT, contact="contacts/ada"),
    ]

    state = rules().fold(old)

    assert (DEAL_STATE_WON, PROPOSAL, PROPOSAL, "contacts/ada") == (
        state.state,
        state.stage,
        state.closed_from,
        state.contact,
    )
