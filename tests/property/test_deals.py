"""Laws of deals, whatever is asked of them in whatever order."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import DealLost, DealOpened, DealStageChanged, DealWon
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_WON,
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from services.deals.deciders.deal import AMOUNT_MINOR_MAX, DECIDER, STAGES
from services.kernel.errors import RapportError

texts = st.text(max_size=3)
stages = st.sampled_from([*STAGES, "", "pipelines/other/stages/proposal"])
amounts = st.none() | st.builds(
    Money,
    amount_minor=st.sampled_from([-1, 0, 1, AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX + 1]),
    currency=st.sampled_from(["", "EUR"]),
)

events = st.one_of(
    st.builds(DealOpened, display_name=texts, amount=amounts, stage=stages),
    st.builds(DealStageChanged, stage=stages, previous_stage=stages),
    st.builds(DealWon, stage=stages, amount=amounts),
    st.builds(DealLost, stage=stages, reason=texts, amount=amounts),
)
commands = st.one_of(
    st.builds(OpenDealRequest, display_name=texts, amount=amounts, stage=stages),
    st.builds(MoveDealStageRequest, stage=stages),
    st.builds(WinDealRequest),
    st.builds(LoseDealRequest, reason=texts),
)


@given(st.lists(events))
def test_any_history_leads_to_a_state(history):
    DECIDER.fold(history)


@given(st.lists(events), st.lists(events))
def test_a_fold_may_be_interrupted_anywhere(first, then):
    assert DECIDER.fold(first + then) == DECIDER.fold(then, DECIDER.fold(first))


@given(st.lists(commands))
def test_replaying_what_was_recorded_leads_to_what_was_decided_on(asked):
    states, history = walk(asked)

    assert states[-1] == DECIDER.fold(history)


@given(st.lists(commands), commands)
def test_what_is_asked_twice_changes_nothing_the_second_time(asked, command):
    states, _ = walk([*asked, command])

    assert [] == decided(command, states[-1])


@given(st.lists(commands))
def test_a_deal_can_always_be_counted(asked):
    for state in walk(asked)[0]:
        assert state == DECIDER.initial or state.stage in STAGES
        assert 0 <= state.amount_minor <= AMOUNT_MINOR_MAX
        assert state.currency or not state.amount_minor


@given(st.lists(commands))
def test_what_is_closed_stays_as_it_is(asked):
    for before, after in pairwise(walk(asked)[0]):
        assert before == after or before.state not in {DEAL_STATE_WON, DEAL_STATE_LOST}


def walk(asked):
    """The states that commands lead through, and all that was recorded."""
    states, history = [DECIDER.initial], []
    for command in asked:
        recorded = decided(command, states[-1])
        states.append(DECIDER.fold(recorded, states[-1]))
        history += recorded
    return states, history


def decided(command, state):
    """The events of a command, none if it is refused."""
    try:
        return list(DECIDER.decide(command, state))
    except RapportError:
        return []
