"""Laws of deals, whatever is asked of them in whatever order, and told however late."""

from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import events_pb2
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_OPEN,
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
from services.deals.deal import AMOUNT_MINOR_MAX, State, evolve
from services.deals.deciders.deal import DECIDER, decider_at
from services.deals.periods import told
from services.deals.pipeline import STARTING, STARTING_ID, stage_name
from services.kernel.errors import RapportError
from services.kernel.log.recorded import timestamp_of, utc
from services.kernel.views.aggregate_rows import AggregateRow
from tests.deals_world import STAGES

START = datetime(2026, 1, 1, tzinfo=UTC)
PIPELINES = {STARTING_ID: STARTING, "renewals": STARTING}
EVERYWHERE = [
    *STAGES,
    *(stage_name("renewals", stage.stage_id) for stage in STARTING.stages),
]
FACTS = [
    events_pb2.__dict__[name]
    for name in sorted(events_pb2.DESCRIPTOR.message_types_by_name)
    if name.startswith("Deal")
]

texts = st.text("abc", max_size=2)
stages = st.sampled_from([*EVERYWHERE, "", "pipelines/none/stages/proposal"])
amounts = st.none() | st.builds(
    Money,
    amount_minor=st.sampled_from([-1, 0, 1, AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX + 1]),
    currency=st.sampled_from(["", "EUR"]),
)
# Asked at a minute, about an earlier one or about now.
minutes_late = st.none() | st.integers(-1, 40)

commands = st.one_of(
    st.builds(OpenDealRequest, display_name=texts, amount=amounts, stage=stages),
    st.builds(MoveDealStageRequest, stage=stages),
    st.builds(MoveDealToPipelineRequest, stage=stages),
    st.builds(WinDealRequest),
    st.builds(LoseDealRequest, reason=texts),
    st.builds(ReopenDealRequest),
    st.builds(DeleteDealRequest),
    st.builds(UndeleteDealRequest),
    st.builds(
        UpdateDealRequest,
        deal=st.builds(
            DealDetails,
            display_name=texts,
            owner=st.sampled_from(["", "members/kim", "members/lee"]),
            amount=amounts,
        ),
        update_mask=st.builds(
            FieldMask,
            paths=st.lists(st.sampled_from(["display_name", "owner", "amount"]), max_size=3),
        ),
    ),
)
asked = st.lists(st.tuples(commands, minutes_late), max_size=20)
facts = st.lists(st.sampled_from([fact() for fact in FACTS]))


@given(facts)
def test_any_history_leads_to_a_state(history):
    DECIDER.fold(history)


@given(facts, facts)
def test_a_fold_may_be_interrupted_anywhere(first, then):
    assert DECIDER.fold(first + then) == DECIDER.fold(then, DECIDER.fold(first))


@given(asked)
def test_replaying_what_was_recorded_leads_to_what_was_decided_on(asked):
    states, history = walk(asked)

    assert states[-1] == DECIDER.fold(history)


@given(asked, commands)
def test_what_is_asked_twice_changes_nothing_the_second_time(asked, command):
    states, _ = walk([*asked, (command, None)])
    now = START + timedelta(minutes=len(asked) + 1)

    assert [] == decided(command, states[-1], now)


@given(asked)
def test_a_deal_can_always_be_counted(asked):
    for state in walk(asked)[0]:
        assert state == DECIDER.initial or state.stage in {
            stage_name(pipeline_id, stage.stage_id)
            for pipeline_id, pipeline in PIPELINES.items()
            for stage in pipeline.stages
        }
        assert 0 <= state.amount_minor <= AMOUNT_MINOR_MAX
        assert state.currency or not state.amount_minor
        assert (state.state == DEAL_STATE_OPEN) == bool(
            state != DECIDER.initial and state.close_time is None
        )


@given(asked)
def test_what_occurred_is_in_one_order_for_moves_and_in_one_for_changes(asked):
    _, history = walk(asked)
    now = START + timedelta(minutes=len(asked))

    for each in (moves(history), changes(history)):
        times = [utc(fact.occur_time) for fact in each]
        assert times == sorted(times)
        assert all(time <= now for time in times)


@given(asked)
@settings(max_examples=300)
def test_periods_are_what_the_facts_lead_to_in_the_order_in_which_they_occurred(asked):
    _, history = walk(asked)
    periods = []
    for version, fact in enumerate(history, start=1):
        periods = told(periods, fact, utc(fact.occur_time), row_of(version, history[:version]))

    in_order = sorted(history, key=lambda fact: utc(fact.occur_time))
    states, state = [], State()
    for fact in in_order:
        state = evolve(state, fact)
        states.append(state)
    assert states == [period.row.state for period in periods]
    assert [utc(fact.occur_time) for fact in in_order] == [each.from_time for each in periods]
    assert list(range(1, len(periods) + 1)) == [each.place for each in periods]


def test_what_is_told_of_the_time_before_a_deal_counts_from_its_beginning():
    """Facts from before deals could be told late do not say since when there may be others."""
    history = [
        events_pb2.DealOpened(stage=STAGES[0]),
        events_pb2.DealRenamed(display_name="Mills"),
        events_pb2.DealAssigned(owner="members/kim"),
    ]
    times = [START, START + timedelta(days=1), START - timedelta(days=1)]

    periods = []
    for version, (fact, time) in enumerate(zip(history, times, strict=True), start=1):
        periods = told(periods, fact, time, row_of(version, history[:version]))

    assert [(1, START, ""), (2, START, "members/kim"), (3, times[1], "members/kim")] == [
        (each.place, each.from_time, each.row.state.owner) for each in periods
    ]


@given(asked)
def test_a_late_fact_needs_only_the_periods_since_it_occurred(asked):
    _, history = walk(asked)
    periods, partly = [], []
    for version, fact in enumerate(history, start=1):
        moment, row = utc(fact.occur_time), row_of(version, history[:version])
        periods = told(periods, fact, moment, row)
        # As the view does: only what lasts longer than the moment is read again.
        since = [
            each
            for each, after in zip_longest(partly, partly[1:])
            if after is None or after.from_time > moment
        ]
        partly = [*partly[: len(partly) - len(since)], *told(since, fact, moment, row)]
        assert periods == partly


def moves(history):
    """A deal that was deleted for a while may be told to have moved meanwhile."""
    deletions = (events_pb2.DealDeleted, events_pb2.DealUndeleted)
    return [fact for fact in history if not (is_change(fact) or isinstance(fact, deletions))]


def changes(history):
    return [fact for fact in history if is_change(fact)]


def is_change(fact):
    before = State(change_time=START)
    return not isinstance(fact, events_pb2.DealOpened) and (
        evolve(before, fact).change_time != START
    )


def row_of(version, history):
    """The row that a history leads to."""
    return AggregateRow(
        workspace="acme",
        aggregate_id="looms",
        state=DECIDER.fold(history),
        version=version,
        partition=0,
        create_position=1,
        update_position=version,
        create_time=START,
        update_time=START,
    )


def walk(asked):
    """The states that commands lead through, one a minute, and all that was recorded."""
    states, history = [DECIDER.initial], []
    for minute, (command, late) in enumerate(asked):
        now = START + timedelta(minutes=minute)
        if late is not None and "occur_time" in command.DESCRIPTOR.fields_by_name:
            command.occur_time.CopyFrom(timestamp_of(now - timedelta(minutes=late)))
        recorded = decided(command, states[-1], now)
        states.append(DECIDER.fold(recorded, states[-1]))
        history += recorded
    return states, history


def decided(command, state, now):
    """The events of a command, none if it is refused."""
    try:
        return list(decider_at(now, PIPELINES).decide(command, state))
    except RapportError:
        return []
