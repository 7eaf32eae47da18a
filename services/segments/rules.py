"""Rules: whether one holds on what is known about a profile at a moment, until when, since when.

Pure. A rule is the conjunction of conditions on traits and on activities within a window
`(now - window, now]`, exact to the microsecond. An activity that lies in the future counts from its
time on, so an answer changes by itself only when an activity leaves its window or reaches its time:
`Verdict.due` is that moment. A trait has the value it was last given, whenever that was said.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache

from rapport.segments.v1 import rule_pb2

PARSED_RULES_MAX = 10_000

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)

Stretch = tuple[datetime, datetime]
"""From a moment up to, but not at, another."""


class Kind(Enum):
    """The kinds of JSON values that can be compared, and those that cannot."""

    TEXT = 1
    NUMBER = 2
    BOOLEAN = 3
    LIST = 4
    OTHER = 5


class Operator(Enum):
    """How a trait is compared; the numbers are the proto's."""

    EQUALS = rule_pb2.TRAIT_OPERATOR_EQUALS
    NOT_EQUALS = rule_pb2.TRAIT_OPERATOR_NOT_EQUALS
    LESS_THAN = rule_pb2.TRAIT_OPERATOR_LESS_THAN
    AT_MOST = rule_pb2.TRAIT_OPERATOR_AT_MOST
    GREATER_THAN = rule_pb2.TRAIT_OPERATOR_GREATER_THAN
    AT_LEAST = rule_pb2.TRAIT_OPERATOR_AT_LEAST
    CONTAINS = rule_pb2.TRAIT_OPERATOR_CONTAINS
    EXISTS = rule_pb2.TRAIT_OPERATOR_EXISTS


ORDERING = frozenset(
    {Operator.LESS_THAN, Operator.AT_MOST, Operator.GREATER_THAN, Operator.AT_LEAST}
)


@dataclass(frozen=True, slots=True)
class Trait:
    """A trait's value as JSON, None when it was taken back, and when that was said."""

    value: str | None
    occur_time: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules look at: traits by name, and the times of each activity in ascending order."""

    traits: Mapping[str, Trait] = field(default_factory=dict)
    activities: Mapping[str, Sequence[datetime]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TraitCondition:
    """`trait operator value`; never holds on a trait that is absent or of another kind."""

    trait: str
    operator: Operator
    value: object

    def holds(self, found: Trait | None) -> bool:
        """Tells whether it holds on the trait's present value."""
        if found is None or found.value is None:
            return False
        return self.operator is Operator.EXISTS or _compare(
            self.operator, parsed(found.value), self.value
        )


@dataclass(frozen=True, slots=True)
class ActivityCondition:
    """`activity` at least `count_min` times within `window`."""

    activity: str
    count_min: int
    window: timedelta

    def holds(self, times: Sequence[datetime], now: datetime) -> bool:
        """Tells whether the newest `count_min` that have happened all lie in the window."""
        happened = bisect_right(times, now)
        return happened >= self.count_min and times[happened - self.count_min] > now - self.window

    def ends(self, times: Sequence[datetime], now: datetime) -> datetime:
        """Returns when it ceases to hold by itself, given that it holds now."""
        newest = bisect_right(times, now)
        while newest < len(times) and times[newest] <= self._leaves(times, newest):
            newest += 1
        return self._leaves(times, newest)

    def begins(self, times: Sequence[datetime], now: datetime) -> datetime | None:
        """Returns when it begins to hold by itself, given that it does not hold now."""
        for place in range(bisect_right(times, now), len(times)):
            if self.holds(times, times[place]):
                return times[place]
        return None

    def stretches(self, times: Sequence[datetime]) -> list[Stretch]:
        """Returns all stretches in which it holds, in order and apart from each other."""
        found: list[Stretch] = []
        for newest in range(self.count_min, len(times) + 1):
            begin, end = times[newest - 1], self._leaves(times, newest)
            if begin >= end:
                continue
            if found and begin <= found[-1][1]:
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
        return found

    def _leaves(self, times: Sequence[datetime], happened: int) -> datetime:
        """When the oldest of the `count_min` newest, after so many happened, leaves the window."""
        oldest = times[happened - self.count_min]
        return oldest + self.window if _LAST - self.window > oldest else _LAST


Condition = TraitCondition | ActivityCondition


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a rule holds, and the first moment at which that may change by itself, if any."""

    holds: bool
    due: datetime | None


@dataclass(frozen=True, slots=True)
class Rule:
    """Holds while all its conditions hold."""

    traits: tuple[TraitCondition, ...]
    activities: tuple[ActivityCondition, ...]

    def verdict(self, facts: Facts, now: datetime) -> Verdict:
        """Judges the facts at a moment.

        Of each activity it needs the `count_min` newest that happened, and those of the future.
        """
        if not all(c.holds(facts.traits.get(c.trait)) for c in self.traits):
            return Verdict(holds=False, due=None)
        ends, begins = [], []
        for condition in self.activities:
            times = facts.activities.get(condition.activity, ())
            if condition.holds(times, now):
                ends.append(condition.ends(times, now))
            else:
                begins.append(condition.begins(times, now))
        if not begins:
            return Verdict(holds=True, due=min(ends, default=None))
        # It holds no earlier than its last condition does, and never if one never does.
        awaited = [moment for moment in begins if moment is not None]
        return Verdict(holds=False, due=max(awaited) if len(awaited) == len(begins) else None)

    def since(self, facts: Facts, now: datetime) -> datetime | None:
        """Returns the moment at which the answer of now began, or None if it never was another.

        It tells of the facts as they are known now, and wants all of them. A trait's former value
        is not known; it is taken to have satisfied the rule, or there would be nothing to tell.
        """
        held = [(_FIRST, _LAST)]
        for condition in self.traits:
            held = _both(held, _trait_stretches(condition, facts.traits.get(condition.trait), now))
        for counted in self.activities:
            held = _both(held, counted.stretches(facts.activities.get(counted.activity, ())))
        begun = [stretch for stretch in held if stretch[0] <= now]
        if not begun:
            return None
        begin, end = begun[-1]
        moment = begin if now < end else end
        return None if moment == _FIRST else moment


@lru_cache(maxsize=PARSED_RULES_MAX)
def parsed_rule(serialized: bytes) -> Rule:
    """Reads a rule in its stored form."""
    return rule_of(rule_pb2.Rule.FromString(serialized))


def rule_of(message: rule_pb2.Rule) -> Rule:
    """Reads a rule that was found valid."""
    traits, activities = [], []
    for condition in message.conditions:
        if condition.WhichOneof("condition") == "trait":
            said = condition.trait
            value = parsed(said.value) if said.value else None
            traits.append(TraitCondition(said.trait, Operator(said.operator), value))
        else:
            counted = condition.activity
            window = timedelta(days=counted.window_days)
            activities.append(ActivityCondition(counted.activity, counted.count_min, window))
    return Rule(tuple(traits), tuple(activities))


def invalidity(condition: rule_pb2.TraitCondition) -> str:
    """Returns what is wrong with a trait condition's value, or an empty text."""
    operator = Operator(condition.operator)
    if operator is Operator.EXISTS:
        return "EXISTS compares no value; leave it empty" if condition.value else ""
    kind = kind_of(parsed(condition.value))
    if operator is Operator.CONTAINS:
        return "" if kind is Kind.TEXT else 'CONTAINS needs a JSON text such as "gold"'
    if operator in ORDERING and kind is Kind.BOOLEAN:
        return "a boolean is neither less nor greater than another"
    if kind not in {Kind.TEXT, Kind.NUMBER, Kind.BOOLEAN}:
        return 'needs a JSON text, number or boolean, such as "gold", 7 or true'
    return ""


class _Unreadable:
    """In place of what is no JSON: equal to nothing, of no kind that is compared."""


_UNREADABLE = _Unreadable()


def parsed(text: str) -> object:
    """Reads a JSON value; numbers stay exact. What cannot be read is of no comparable kind."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError):
        return _UNREADABLE


def kind_of(value: object) -> Kind:
    """Returns the kind of a parsed value."""
    match value:
        case bool():
            return Kind.BOOLEAN
        case int() | Decimal():
            return Kind.NUMBER
        case str():
            return Kind.TEXT
        case list():
            return Kind.LIST
    return Kind.OTHER


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _compare(operator: Operator, left: object, right: object) -> bool:
    """Compares what was parsed; values of different kinds never match."""
    if operator is Operator.CONTAINS and isinstance(left, list):
        return any(isinstance(item, str) and item == right for item in left)
    if kind_of(left) is not kind_of(right):
        return False
    match operator, left, right:
        case Operator.EQUALS, _, _:
            return left == right
        case Operator.NOT_EQUALS, _, _:
            return left != right
        case Operator.CONTAINS, str(), str():
            return right in left
        case (_, str(), str()) | (_, int() | Decimal(), int() | Decimal()):
            return _in_order(operator, left, right)
    return False


def _in_order(operator: Operator, left: object, right: object) -> bool:
    less, equal = left < right, left == right  # type: ignore[operator] # of one kind, by the caller
    match operator:
        case Operator.LESS_THAN:
            return bool(less)
        case Operator.AT_MOST:
            return bool(less or equal)
        case Operator.GREATER_THAN:
            return not less and not equal
    return not less


def _trait_stretches(
    condition: TraitCondition, found: Trait | None, now: datetime
) -> list[Stretch]:
    if found is None:
        return []
    said = min(found.occur_time, now)
    return [(said, _LAST)] if condition.holds(found) else [(_FIRST, said)]


def _both(left: Sequence[Stretch], right: Sequence[Stretch]) -> list[Stretch]:
    """The stretches in which both hold; each side is in order and so is the answer."""
    found = []
    mine = yours = 0
    while mine < len(left) and yours < len(right):
        begin = max(left[mine][0], right[yours][0])
        end = min(left[mine][1], right[yours][1])
        if begin < end:
            found.append((begin, end))
        if left[mine][1] < right[yours][1]:
            mine += 1
        else:
            yours += 1
    return found
