"""How a deal moves: from stage to stage, to another pipeline, to its end and back."""

from dataclasses import replace

import pytest

from rapport.deals.v1.events_pb2 import (
    DealMovedToPipeline,
    DealOpened,
    DealReopened,
    DealWon,
)
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    LoseDealRequest,
    MoveDealToPipelineRequest,
    ReopenDealRequest,
    WinDealRequest,
)
from services.deals.pipeline import STARTING
from services.kernel.errors import FailedPrecondition, InvalidArgument
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
from tests.looms_world import (
    ADA,
    AMOUNT,
    LOOMS,
    LOSE,
    LOST,
    OPENED,
    OTHER,
    WIN,
    WON,
    deal,
    fields_of,
    move,
    moved,
    requiring,
)


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
    ("command", "resource"),
    [
        (move(PROPOSAL), PROPOSAL),
        (
            MoveDealToPipelineRequest(name=LOOMS, stage="pipelines/renewals/stages/proposal"),
            "pipelines/renewals",
        ),
    ],
)
def test_no_deal_enters_what_is_archived(command, resource):
    stages = tuple(replace(stage, is_archived=True) for stage in STARTING.stages)
    pipelines = {
        "sales": replace(STARTING, stages=stages),
        "renewals": replace(OTHER, is_archived=True),
    }

    error = deal(**pipelines).given(OPENED).when(command).then_refused(FailedPrecondition)

    assert {"resource": resource, "state": "ARCHIVED"} == error.metadata


def test_deals_in_an_archived_pipeline_go_on():
    given = deal(sales=replace(STARTING, is_archived=True)).given(OPENED)
    won = WinDealRequest(name=LOOMS, stage=WON_STAGE, occur_time=ago(1))
    reopened = DealReopened(stage=QUALIFICATION, previous_stage=WON_STAGE, occur_time=at(NOW))

    given.when(move(PROPOSAL)).then(moved(PROPOSAL, QUALIFICATION, at(NOW)))
    given.when(won).then(WON)
    deal(sales=replace(STARTING, is_archived=True)).given(OPENED, WON).when(
        ReopenDealRequest(name=LOOMS)
    ).then(reopened)


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


def test_a_deal_goes_back_to_its_stage_without_what_that_requires_by_now():
    """It could not be given that while it is closed."""
    by_now = tuple(replace(stage, required_fields=("owner",)) for stage in STARTING.stages)
    given = deal(sales=replace(STARTING, stages=by_now)).given(OPENED, WON)

    given.when(ReopenDealRequest(name=LOOMS)).then(
        DealReopened(stage=QUALIFICATION, previous_stage=WON_STAGE, occur_time=at(NOW))
    )
    given.when(ReopenDealRequest(name=LOOMS, stage=PROPOSAL)).then_refused(FailedPrecondition)


def test_a_closed_deal_is_reopened_in_another_stage_of_its_pipeline():
    asked = ReopenDealRequest(name=LOOMS, stage=NEGOTIATION)
    reopened = DealReopened(stage=NEGOTIATION, previous_stage=WON_STAGE, occur_time=at(NOW))

    deal().given(OPENED, WON).when(asked).then(reopened)
    deal().given(OPENED).when(asked).then()
