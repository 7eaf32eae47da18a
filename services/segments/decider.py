"""The rules of a segment's definition: what may be asked of it, and the facts that follow.

Who its members are is no matter of decision: it follows from the rule and the profiles' facts, and
is recorded in a stream of its own (`MEMBERSHIP`), so that a definition's version is its etag and a
command never folds its members.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from rapport.segments.v1.events_pb2 import SegmentArchived, SegmentCreated
from rapport.segments.v1.rule_pb2 import Condition, Rule
from rapport.segments.v1.service_pb2 import ArchiveSegmentRequest, CreateSegmentRequest
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, FieldViolation, InvalidArgument, NotFound
from services.segments.rules import invalidity

Command = CreateSegmentRequest | ArchiveSegmentRequest

MEMBERSHIP = "members"
"""The category of the streams that say who entered and exited."""


@dataclass(frozen=True, slots=True)
class State:
    """A segment as its events leave it; before the first of them it does not exist."""

    exists: bool = False
    display_name: str = ""
    rule: bytes = b""
    is_archived: bool = False


def decide(command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    match command:
        case CreateSegmentRequest():
            return create(command, state)
        case ArchiveSegmentRequest():
            return archive(command, state)


def create(command: CreateSegmentRequest, state: State) -> Sequence[Message]:
    """A new segment needs a free id, a name and a rule that can be evaluated."""
    if state.exists:
        raise AlreadyExists(f"segments/{command.segment_id}", "segment_id")
    if not command.display_name.strip():
        raise InvalidArgument.of("display_name", "a segment needs a name that can be read")
    check(command.rule)
    return [SegmentCreated(display_name=command.display_name.strip(), rule=command.rule)]


def archive(command: ArchiveSegmentRequest, state: State) -> Sequence[Message]:
    """Archiving twice is archiving once."""
    if not state.exists:
        raise NotFound(command.name)
    return [] if state.is_archived else [SegmentArchived()]


def check(rule: Rule) -> None:
    """Refuses a rule that no facts could ever be looked up for, or compared with; names each."""
    violations = [
        violation
        for place, condition in enumerate(rule.conditions)
        for violation in _violations(f"rule.conditions[{place}]", condition)
    ]
    if violations:
        raise InvalidArgument(violations)


def _violations(place: str, condition: Condition) -> Iterator[FieldViolation]:
    """What is wrong with a condition; a name with U+0000 stops whoever looks facts up by it."""
    if "\0" in condition.trait.trait:
        yield FieldViolation(f"{place}.trait.trait", "contains the character U+0000")
    if "\0" in condition.activity.activity:
        yield FieldViolation(f"{place}.activity.activity", "contains the character U+0000")
    is_trait = condition.WhichOneof("condition") == "trait"
    if is_trait and (invalid := invalidity(condition.trait)):
        yield FieldViolation(f"{place}.trait.value", invalid)


def evolve(state: State, event: Message) -> State:
    """Returns the segment after an event."""
    match event:
        case SegmentCreated():
            rule = event.rule.SerializeToString(deterministic=True)
            return State(exists=True, display_name=event.display_name, rule=rule)
        case SegmentArchived():
            return replace(state, is_archived=True)
    return state


DECIDER = Decider(
    category="segment",
    collection="segments",
    initial=State(),
    decide=decide,
    evolve=evolve,
)
