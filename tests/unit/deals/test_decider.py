"""The rules of a deal, one sentence each: how it is opened, moved, ended, reopened, deleted."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import (
    DealDeleted,
    DealLost,
    DealMovedToPipeline,
    DealOpened,
    DealReopened,
    DealStageChanged,
    DealUndeleted,
    DealWon,
)
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    DealDetails,
    DeleteDealRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    MoveDealToPipelineRequest,
    OpenDealRequest,
    ReopenDealRequest,
    UndeleteDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import FORECAST_CATEGORY_COMMIT, DealContact
from services.deals.deal import AMOUNT_MINOR_MAX, Participant, State
from services.deals.pipeline import STARTING
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from services.kernel.testing import Spec
from tests.deals_world import (
    LOST_STAGE,
    NEGOTIATION,
    NOW,
    PROPOSAL,
    QUALIFICATION,
    WON_STAGE,
    ago,
    at,
    rules,
)

LOOMS = "deals/looms"
AMOUNT = Money(amount_minor=120_000, currency="EUR")
ADA = DealContact(contact="contacts/ada")
OPENED = DealOpened(
    display_name="Looms",
    contact="contacts/ada",
    contacts=[ADA],
    amount=AMOUNT,
    stage=QUALIFICATION,
    occur_time=ago(10),
)
WON = DealWon(
    stage=QUALIFICATION,
    amount=AMOUNT,
    contact="contacts/ada",
    closing_stage=WON_STAGE,
    occur_time=ago(1),
)
LOST = DealLost(
    stage=QUALIFICATION,
    reason="price",
    amount=AMOUNT,
    contact="contacts/ada",
    closing_stage=LOST_STAGE,
    occur_time=ago(1),
)
WIN = WinDealRequest(name=LOOMS, occur_time=ago(1))
LOSE = LoseDealRequest(name=LOOMS, reason="price", occur_time=ago(1))
OTHER = replace(STARTING, display_name="Renewals")


def deal(**pipelines):
    return Spec(rules(**pipelines))


def move(stage, **said):
    return MoveDealStageRequest(name=LOOMS, stage=stage, **said)


def moved(stage, previous_stage, occur_time):
    return DealStageChanged(stage=stage, previous_stage=previous_stage, occur_time=occur_time)


def requiring(*fields):
    """The starting pipeline, with fields that its second stage and its ends require."""
    stages = [
        stage if place == 0 else replace(stage, required_fields=fields)
        for place, stage in enumerate(STARTING.stages)
    ]
    return replace(STARTING, stages=tuple(stages))


def fields_of(error):
    return [violation.field for violation in error.violations]


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
        ("amount.currency", {"amount": Money(amount_minor=1)}),
        ("stage", {"stage": WON_STAGE}),
        ("stage", {"stage": "pipelines/sales/stages/none"}),
        ("stage", {"stage": "pipelines/none/stages/proposal"}),
        ("stage", {"stage": "proposal"}),
        ("expected_close_time", {"expected_close_time": Timestamp(seconds=2**60)}),
        ("occur_time", {"occur_time": Timestamp(seconds=2**60)}),
        ("occur_time", {"occur_time": ago(-1)}),
        ("contacts", {"contacts": [ADA], "contact": "contacts/bob"}),
        ("contacts[1].contact", {"contacts": [ADA, ADA]}),
    ],
)
def test_a_deal_is_not_opened_with_what_makes_no_sense(field, said):
    error = deal().when(OpenDealRequest(display_name="Looms", **said)).then_refused(InvalidArgument)

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


def test_a_deal_moves_back_and_forth():
    there = moved(NEGOTIATION, QUALIFICATION, ago(5))
    back = moved(PROPOSAL, NEGOTIATION, at(NOW))

    deal().given(OPENED).when(move(NEGOTIATION, occur_time=ago(5))).then(there)
    state = deal().given(OPENED, there).when(move(PROPOSAL)).then(back)

    assert (PROPOSAL, DEAL_STATE_OPEN, NOW) == (state.stage, state.state, state.stage_time)


def test_the_stage_a_deal_is_in_is_no_news():
    deal().given(OPENED).when(move(QUALIFICATION)).then()


@pytest.mark.parametrize("stage", ["pipelines/sales", WON_STAGE, "pipelines/renewals/stages/won"])
def test_a_deal_moves_to_open_stages_that_there_are(stage):
    error = deal(renewals=OTHER).given(OPENED).when(move(stage)).then_refused(InvalidArgument)

    assert ["stage"] == fields_of(error)


def test_a_move_may_be_told_late_but_not_before_an_earlier_one():
    there = moved(PROPOSAL, QUALIFICATION, ago(5))
    given = deal().given(OPENED, there)

    at_once = moved(NEGOTIATION, PROPOSAL, ago(5))
    given.when(move(NEGOTIATION, occur_time=ago(5))).then(at_once)
    error = given.when(move(NEGOTIATION, occur_time=ago(6))).then_refused(InvalidArgument)

    assert ["occur_time"] == fields_of(error)


def test_a_move_is_never_told_before_it_happened():
    error = deal().given(OPENED).when(move(PROPOSAL, occur_time=ago(-1)))

    assert ["occur_time"] == fields_of(error.then_refused(InvalidArgument))


def test_a_clock_that_is_behind_does_not_turn_the_order_around():
    there = moved(PROPOSAL, QUALIFICATION, ago(-2))

    deal().given(OPENED, there).when(move(NEGOTIATION)).then(moved(NEGOTIATION, PROPOSAL, ago(-2)))


def test_a_deal_goes_to_another_pipeline_by_its_own_way():
    stage = "pipelines/renewals/stages/proposal"
    by_stage = deal(renewals=OTHER).given(OPENED).when(move(stage))
    by_pipeline = MoveDealToPipelineRequest(name=LOOMS, stage=stage)

    assert ["stage"] == fields_of(by_stage.then_refused(InvalidArgument))
    state = (
        deal(renewals=OTHER)
        .given(OPENED)
        .when(by_pipeline)
        .then(DealMovedToPipeline(stage=stage, previous_stage=QUALIFICATION, occur_time=at(NOW)))
    )
    assert "pipelines/renewals" == state.pipeline
    own = MoveDealToPipelineRequest(name=LOOMS, stage=PROPOSAL)
    assert ["stage"] == fields_of(deal().given(OPENED).when(own).then_refused(InvalidArgument))


@pytest.mark.parametrize(
    ("pipeline", "resource"),
    [
        (replace(STARTING, is_archived=True), "pipelines/sales"),
        (
            replace(
                STARTING,
                stages=tuple(replace(stage, is_archived=True) for stage in STARTING.stages),
            ),
            PROPOSAL,
        ),
    ],
)
def test_no_deal_enters_what_is_archived(pipeline, resource):
    error = deal(sales=pipeline).given(OPENED).when(move(PROPOSAL))

    assert {"resource": resource, "state": "ARCHIVED"} == error.then_refused(
        FailedPrecondition
    ).metadata


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("amount", {"amount": AMOUNT}),
        ("owner", {"owner": "members/kim"}),
        ("contact", {"contacts": [ADA]}),
        ("expected_close_time", {"expected_close_time": ago(-30)}),
        ("custom_fields.source", {"custom_fields": {"source": "fair"}}),
    ],
)
@pytest.mark.parametrize("command", [move(PROPOSAL), WIN, LOSE])
def test_a_stage_is_entered_with_the_fields_it_requires(field, said, command):
    opened = DealOpened(display_name="Looms", stage=QUALIFICATION, occur_time=ago(10))
    without = deal(sales=requiring(field)).given(opened).when(command)

    error = without.then_refused(FailedPrecondition)

    assert [field] == fields_of(error)
    assert "FIELDS_MISSING" == error.metadata["state"]
    with_it = rules(sales=requiring(field))
    state = with_it.fold([DealOpened(stage=QUALIFICATION, occur_time=ago(10), **said)])
    assert with_it.decide(command, state)


@pytest.mark.parametrize(("ending", "state"), [(WON, "WON"), (LOST, "LOST")])
@pytest.mark.parametrize(
    "command",
    [
        move(QUALIFICATION),
        move(PROPOSAL),
        MoveDealToPipelineRequest(name=LOOMS, stage="pipelines/renewals/stages/proposal"),
    ],
)
def test_a_closed_deal_does_not_move(ending, state, command):
    spec = deal(renewals=OTHER).given(OPENED, ending).when(command)

    error = spec.then_refused(FailedPrecondition)

    assert {"resource": "deals/looms", "state": state} == error.metadata


def test_a_won_deal_says_what_it_was_worth_and_to_whom():
    state = deal().given(OPENED).when(WIN).then(WON)

    assert (DEAL_STATE_WON, WON_STAGE, QUALIFICATION) == (
        state.state,
        state.stage,
        state.closed_from,
    )
    assert at(state.close_time) == ago(1)


def test_a_lost_deal_says_why_and_what_it_would_have_been_worth():
    state = deal().given(OPENED).when(LOSE).then(LOST)

    assert (DEAL_STATE_LOST, "price", LOST_STAGE) == (
        state.state,
        state.lost_reason,
        state.stage,
    )


def test_a_deal_without_an_amount_is_won_without_one():
    opened = DealOpened(display_name="Looms", stage=PROPOSAL, occur_time=ago(10))

    deal().given(opened).when(WIN).then(
        DealWon(stage=PROPOSAL, closing_stage=WON_STAGE, occur_time=ago(1))
    )


def test_an_ending_needs_a_stage_of_its_kind():
    win = WinDealRequest(name=LOOMS, stage=LOST_STAGE)

    assert ["stage"] == fields_of(deal().given(OPENED).when(win).then_refused(InvalidArgument))


def test_winning_twice_is_winning_once():
    deal().given(OPENED, WON).when(WIN).then()


def test_losing_twice_is_losing_once_for_the_first_reason():
    again = LoseDealRequest(name=LOOMS, reason="silence")

    assert "price" == deal().given(OPENED, LOST).when(again).then().lost_reason


def test_what_was_lost_is_not_won():
    error = deal().given(OPENED, LOST).when(WIN).then_refused(FailedPrecondition)

    assert "LOST" == error.metadata["state"]


def test_what_was_won_is_not_lost():
    error = deal().given(OPENED, WON).when(LOSE).then_refused(FailedPrecondition)

    assert "WON" == error.metadata["state"]


@pytest.mark.parametrize("ending", [WON, LOST])
def test_a_closed_deal_is_reopened_where_it_was_closed_from(ending):
    reopened = DealReopened(
        stage=QUALIFICATION, previous_stage=ending.closing_stage, occur_time=at(NOW)
    )

    state = deal().given(OPENED, ending).when(ReopenDealRequest(name=LOOMS)).then(reopened)

    assert (DEAL_STATE_OPEN, QUALIFICATION, "", None) == (
        state.state,
        state.stage,
        state.lost_reason,
        state.close_time,
    )


def test_a_closed_deal_is_reopened_in_another_stage_of_its_pipeline():
    asked = ReopenDealRequest(name=LOOMS, stage=NEGOTIATION)
    reopened = DealReopened(stage=NEGOTIATION, previous_stage=WON_STAGE, occur_time=at(NOW))

    deal().given(OPENED, WON).when(asked).then(reopened)
    deal().given(OPENED).when(asked).then()


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
