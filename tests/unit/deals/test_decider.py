"""The rules of a deal, one sentence each."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import DealLost, DealOpened, DealStageChanged, DealWon
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from services.deals.deciders.deal import AMOUNT_MINOR_MAX, DECIDER, STAGES, State
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from services.kernel.testing import Spec

QUALIFICATION, PROPOSAL, NEGOTIATION = STAGES
AMOUNT = Money(amount_minor=120_000, currency="EUR")
OPENED = DealOpened(
    display_name="Looms", contact="contacts/ada", amount=AMOUNT, stage=QUALIFICATION
)
WON = DealWon(stage=QUALIFICATION, amount=AMOUNT, contact="contacts/ada")
LOST = DealLost(stage=QUALIFICATION, reason="price", amount=AMOUNT, contact="contacts/ada")
WIN = WinDealRequest(name="deals/looms")
LOSE = LoseDealRequest(name="deals/looms", reason="price")


def deal():
    return Spec(DECIDER)


def move(stage):
    return MoveDealStageRequest(name="deals/looms", stage=stage)


def test_the_pipeline_has_three_stages():
    assert (
        "pipelines/sales/stages/qualification",
        "pipelines/sales/stages/proposal",
        "pipelines/sales/stages/negotiation",
    ) == STAGES


def test_a_deal_is_opened_with_all_that_was_said_of_it():
    said = {
        "display_name": "Looms",
        "contact": "contacts/ada",
        "amount": AMOUNT,
        "stage": PROPOSAL,
        "expected_close_time": Timestamp(seconds=86_400, nanos=1_000),
        "custom_fields": {"source": "fair"},
    }

    state = deal().when(OpenDealRequest(**said)).then(DealOpened(**said))

    assert state == State(
        state=DEAL_STATE_OPEN,
        display_name="Looms",
        contact="contacts/ada",
        amount_minor=120_000,
        currency="EUR",
        stage=PROPOSAL,
        expected_close_time=datetime(1970, 1, 2, microsecond=1, tzinfo=UTC),
        custom_fields={"source": "fair"},
    )


def test_a_deal_starts_in_the_first_stage():
    deal().when(OpenDealRequest(display_name="Looms")).then(
        DealOpened(display_name="Looms", stage=QUALIFICATION)
    )


def test_an_amount_that_nobody_gave_is_not_zero():
    unknown = deal().when(OpenDealRequest(display_name="Looms"))
    nothing = OpenDealRequest(display_name="Looms", amount=Money(currency="EUR"))
    opened = DealOpened(display_name="Looms", stage=QUALIFICATION, amount=Money(currency="EUR"))

    state = deal().when(nothing).then(opened)

    assert Money(currency="EUR") == state.amount
    assert unknown.then(DealOpened(display_name="Looms", stage=QUALIFICATION)).amount is None


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("amount.amount_minor", {"amount": Money(amount_minor=-1, currency="EUR")}),
        (
            "amount.amount_minor",
            {"amount": Money(amount_minor=AMOUNT_MINOR_MAX + 1, currency="EUR")},
        ),
        ("amount.currency", {"amount": Money(amount_minor=1)}),
        ("stage", {"stage": "pipelines/sales/stages/won"}),
        ("stage", {"stage": "proposal"}),
        ("expected_close_time", {"expected_close_time": Timestamp(seconds=2**60)}),
    ],
)
def test_a_deal_is_not_opened_with_what_makes_no_sense(field, said):
    error = deal().when(OpenDealRequest(display_name="Looms", **said)).then_refused(InvalidArgument)

    assert [field] == [violation.field for violation in error.violations]


def test_a_taken_id_names_who_has_it():
    open_again = OpenDealRequest(deal_id="looms", display_name="Another")

    error = deal().given(OPENED).when(open_again).then_refused(AlreadyExists)

    assert {"existing_name": "deals/looms", "field": "deal_id"} == error.metadata


def test_the_id_of_a_closed_deal_stays_taken():
    open_again = OpenDealRequest(deal_id="looms", display_name="Another")

    deal().given(OPENED, WON).when(open_again).then_refused(AlreadyExists)


def test_a_deal_moves_back_and_forth():
    there = DealStageChanged(stage=NEGOTIATION, previous_stage=QUALIFICATION)
    back = DealStageChanged(stage=PROPOSAL, previous_stage=NEGOTIATION)

    deal().given(OPENED).when(move(NEGOTIATION)).then(there)
    state = deal().given(OPENED, there).when(move(PROPOSAL)).then(back)

    assert (PROPOSAL, DEAL_STATE_OPEN) == (state.stage, state.state)


def test_the_stage_a_deal_is_in_is_no_news():
    deal().given(OPENED).when(move(QUALIFICATION)).then()


def test_a_deal_moves_to_no_stage_that_there_is_not():
    error = deal().given(OPENED).when(move("pipelines/sales")).then_refused(InvalidArgument)

    assert ["stage"] == [violation.field for violation in error.violations]


@pytest.mark.parametrize(("ending", "state"), [(WON, "WON"), (LOST, "LOST")])
@pytest.mark.parametrize("stage", [QUALIFICATION, PROPOSAL])
def test_a_closed_deal_does_not_move(ending, state, stage):
    error = deal().given(OPENED, ending).when(move(stage)).then_refused(FailedPrecondition)

    assert {"resource": "deals/looms", "state": state} == error.metadata


def test_a_won_deal_says_what_it_was_worth_and_to_whom():
    state = deal().given(OPENED).when(WIN).then(WON)

    assert (DEAL_STATE_WON, QUALIFICATION) == (state.state, state.stage)


def test_a_lost_deal_says_why_and_what_it_would_have_been_worth():
    state = deal().given(OPENED).when(LOSE).then(LOST)

    assert (DEAL_STATE_LOST, "price", QUALIFICATION) == (
        state.state,
        state.lost_reason,
        state.stage,
    )


def test_a_deal_without_an_amount_is_won_without_one():
    opened = DealOpened(display_name="Looms", stage=PROPOSAL)

    deal().given(opened).when(WIN).then(DealWon(stage=PROPOSAL))


def test_winning_twice_is_winning_once():
    deal().given(OPENED, WON).when(WIN).then()


def test_losing_twice_is_losing_once_for_the_first_reason():
    again = LoseDealRequest(name="deals/looms", reason="silence")

    assert "price" == deal().given(OPENED, LOST).when(again).then().lost_reason


def test_what_was_lost_is_not_won():
    error = deal().given(OPENED, LOST).when(WIN).then_refused(FailedPrecondition)

    assert "LOST" == error.metadata["state"]


def test_what_was_won_is_not_lost():
    error = deal().given(OPENED, WON).when(LOSE).then_refused(FailedPrecondition)

    assert "WON" == error.metadata["state"]


@pytest.mark.parametrize("command", [move(PROPOSAL), WIN, LOSE])
def test_nothing_is_asked_of_a_deal_that_nobody_opened(command):
    error = deal().when(command).then_refused(NotFound)

    assert {"resource": "deals/looms"} == error.metadata
