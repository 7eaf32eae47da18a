"""Reports by the book: each formula as it is published, over the plain history of each deal.

Slow and simple. A history is what a deal was, in the order of one of its two times; deals were so
in the half-open intervals [from_time, to_time). Sources: specifications of CRMs and the glossaries
of sales; where they say nothing, what is decided stands in protos/rapport/deals/v1/reports.proto.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from math import ceil

from rapport.deals.v1.service_pb2 import DEAL_STATE_LOST, DEAL_STATE_OPEN, DEAL_STATE_WON
from services.deals.deal import State, evolve

FOREVER = datetime.max.replace(tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Fact:
    """What was told about a deal, when it occurred, and when it was recorded."""

    deal_id: str
    event: object
    occur_time: datetime
    record_time: datetime


@dataclass(frozen=True)
class Was:
    """What a deal was from a moment until another."""

    from_time: datetime
    to_time: datetime
    state: State

    @property
    def is_open(self):
        return self.state.state == DEAL_STATE_OPEN and self.state.delete_time is None


def histories(facts, *, is_recorded=False, moment=FOREVER):
    """What each deal was, by one of its times, as known at a moment."""
    known = [fact for fact in facts if fact.record_time <= moment]
    of_deals = defaultdict(list)
    for fact in known:
        of_deals[fact.deal_id].append(fact)
    return {deal_id: history(told, is_recorded) for deal_id, told in of_deals.items()}


def history(facts, is_recorded=False):
    """What one deal was. Facts of one time follow each other as they were told."""

    def time_of(fact):
        return fact.record_time if is_recorded else fact.occur_time

    state, states = State(), []
    for fact in sorted(facts, key=time_of):
        state = evolve(state, fact.event)
        states.append((time_of(fact), state))
    ends = [*(since for since, _ in states[1:]), FOREVER]
    return [Was(since, end, state) for (since, state), end in zip(states, ends, strict=True)]


def just_before(history, moment):
    """What a deal was as a moment began, if it was there."""
    return next((was for was in history if was.from_time < moment <= was.to_time), None)


def everything(_):
    """A filter that wants every deal."""
    return True


def waterfall(histories, start, end, wanted=everything):
    """The lines of the waterfall: {kind: Counter({currency: amount})}, and how often each happened.

    open(start) + created + reopened + undeleted + amount up - amount down + moved in - moved out -
    won - lost - deleted = open(end).
    """
    amounts, counts = defaultdict(Counter), Counter()

    def is_in(was):
        return was is not None and was.is_open and wanted(was.state)

    def add(kind, currency, amount_minor):
        counts[kind] += 1
        if currency:
            amounts[kind][currency] += amount_minor

    for told in histories.values():
        for kind, moment in (("OPEN_AT_START", start), ("OPEN_AT_END", end)):
            was = just_before(told, moment)
            if is_in(was):
                add(kind, was.state.currency, was.state.amount_minor)
        for before, after in pairwise([None, *told]):
            if start <= after.from_time < end:
                for line in step(before, after, is_in(before), is_in(after)):
                    add(*line)
    return amounts, counts


def step(before, after, was_in, is_in):
    """The lines that a step counts for, each with a currency and an amount."""
    if was_in and is_in:
        yield from worth_more(before.state, after.state)
    elif was_in:
        yield way_out(after.state), before.state.currency, before.state.amount_minor
    elif is_in:
        yield way_in(before), after.state.currency, after.state.amount_minor


def worth_more(before, after):
    """What a change of worth adds and takes: in another currency it takes all and adds all."""
    old = before.amount_minor if before.currency == after.currency else 0
    new = after.amount_minor if before.currency == after.currency else 0
    if after.currency and after.amount_minor > old:
        yield "AMOUNT_UP", after.currency, after.amount_minor - old
    if before.currency and before.amount_minor > new:
        yield "AMOUNT_DOWN", before.currency, before.amount_minor - new


def way_out(after):
    if after.delete_time is not None:
        return "DELETED"
    return {DEAL_STATE_WON: "WON", DEAL_STATE_LOST: "LOST"}.get(after.state, "MOVED_OUT")


def way_in(before):
    if before is None:
        return "CREATED"
    if before.state.delete_time is not None:
        return "UNDELETED"
    return "MOVED_IN" if before.state.state == DEAL_STATE_OPEN else "REOPENED"


@dataclass(frozen=True)
class Ended:
    """A deal as it stood when a window ended."""

    state: State
    opened: datetime
    closed: datetime | None
    history: list

    def cycle(self, stage=""):
        """Cycle = closed - opened, or - first entry to a stage; None if it was never there."""
        if not stage:
            return self.closed - self.opened
        entries = [was.from_time for was in self.history if is_visiting(was, stage)]
        return self.closed - entries[0] if entries else None


def ended(histories, end, wanted=everything):
    """The deals there were as a window ended, as they stood."""
    for told in histories.values():
        was = just_before(told, end)
        if was is not None and was.state.delete_time is None and wanted(was.state):
            past = [each for each in told if each.from_time < end]
            yield Ended(was.state, past[0].from_time, closed_since(past), past)


def closed_since(past):
    """When a deal that is closed was: when it ceased to be open for the last time."""
    if past[-1].state.state == DEAL_STATE_OPEN:
        return None
    return max(was.to_time for was in past if was.state.state == DEAL_STATE_OPEN)


def sales(histories, start, end, wanted=everything, group=lambda _: "", stage=""):
    """Counts, worth by currency and cycles of created, open, won and lost deals, by group."""
    counts, worth, cycles = Counter(), Counter(), defaultdict(list)
    for deal in ended(histories, end, wanted):
        measures = [deal.state.state] if deal.closed is None or deal.closed >= start else []
        if deal.opened >= start:
            measures.append("CREATED")
        for measure in measures:
            key = group(deal.state), measure
            counts[key] += 1
            if deal.state.currency:
                worth[*key, deal.state.currency] += deal.state.amount_minor
        if DEAL_STATE_WON in measures and deal.cycle(stage) is not None:
            cycles[group(deal.state)].append(deal.cycle(stage))
    return counts, worth, cycles


def is_visiting(was, stage):
    return was.state.state == DEAL_STATE_OPEN and was.state.stage == stage


def conversion(histories, stages, start, end, horizon, wanted=everything, *, skips_left_out=False):
    """Of each stage of a pipeline: how many deals first entered it in W, and got further by t.

    stage_conversion(s, W, t) = |{d: first entered s in W and reached a later position or WON by t}|
    ÷ |{d: first entered s in W}|. Lost deals stay in the denominator. A stage is entered by a skip,
    too, when a later one is reached before it was.
    """
    found = dict.fromkeys(stages, (0, 0))
    places = {stage: place for place, stage in enumerate(stages)}
    for deal in ended(histories, horizon, wanted):
        reached = [
            (len(stages) if was.state.state == DEAL_STATE_WON else places.get(was.state.stage), was)
            for was in deal.history
            if was.state.state in {DEAL_STATE_OPEN, DEAL_STATE_WON}
            and was.state.delete_time is None
            and was.state.pipeline == stages[0].partition("/stages/")[0]
        ]
        for stage, place in places.items():
            first = next(
                (
                    number
                    for number, (at, _) in enumerate(reached)
                    if at == place or (at > place and not skips_left_out)
                ),
                None,
            )
            if first is not None and start <= reached[first][1].from_time < end:
                is_passed = any(at > place for at, _ in reached[first:])
                entered, passed = found[stage]
                found[stage] = entered + 1, passed + is_passed
    return found


def time_in_stage(history, stage, moment):
    """time_in_stage(d, s, t) = Σ over visits [enter, exit) of min(exit, t) - enter.

    What is deleted is nowhere.
    """
    return sum(
        (
            min(was.to_time, moment) - was.from_time
            for was in history
            if is_visiting(was, stage) and was.is_open and was.from_time < moment
        ),
        timedelta(),
    )


def times_in_stage(histories, stage, start, end, wanted=everything):
    """How long the deals that left a stage in a window had been in it, shortest first."""
    times = []
    for deal in ended(histories, end, wanted):
        leaves = [
            after.from_time
            for before, after in pairwise(deal.history)
            if is_visiting(before, stage) and before.is_open and not is_visiting(after, stage)
        ]
        if any(start <= moment for moment in leaves):
            times.append(time_in_stage(deal.history, stage, end))
    return sorted(times)


def ages(histories, stage, end, wanted=everything):
    """How long ago the deals that are in a stage entered it last."""
    found = []
    for deal in ended(histories, end, wanted):
        if is_visiting(deal.history[-1], stage):
            *_, visit = [
                list(rows)
                for is_here, rows in groupby(deal.history, key=lambda was: visit_of(was.state))
                if is_here
            ]
            found.append((end - visit[0].from_time, end - visit[0].state.stage_time))
    return found


def visit_of(state):
    """What is the same throughout one visit to a stage, and no other of this deal."""
    return state.state, state.stage, state.stage_time


def slippage(histories, start, end, wanted=everything):
    """Slippage = value whose close date moved from inside a period to after it.

    push_count = changes of the close date to a later one. Returns what was expected as the period
    began, what slipped, and how often each deal was pushed.
    """

    def is_in(was):
        return was is not None and was.is_open and wanted(was.state)

    def is_inside(state):
        return state.expected_close_time is not None and start <= state.expected_close_time < end

    expected, slipped, pushes = [], [], Counter()
    for deal_id, told in histories.items():
        was = just_before(told, start)
        if is_in(was) and is_inside(was.state):
            expected.append(was.state)
        has_moved_out = False
        for before, after in pairwise(told):
            old, new = before.state.expected_close_time, after.state.expected_close_time
            if start <= after.from_time < end and is_in(before) and is_in(after) and old and new:
                pushes[deal_id] += new > old
                has_moved_out |= is_inside(before.state) and new >= end
        was = just_before(told, end)
        if has_moved_out and is_in(was):
            last = was.state.expected_close_time
            if last is not None and last >= end:
                slipped.append(was.state)
    return expected, slipped, +pushes


def median(values):
    """The middle one, or half way between the two in the middle, half a microsecond up."""
    middle = (len(values) - 1) // 2
    return (values[middle] + values[-1 - middle] + INSTANT) // 2 if values else None


def p90(values):
    """The least value that nine of ten do not exceed."""
    return values[ceil(0.9 * len(values)) - 1] if values else None
