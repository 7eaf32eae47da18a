"""The rules of a verdict: what a person decides about two identifiers, whatever was seen.

Its id is a hash of both, so that a stream's name carries no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.identity.v1.events_pb2 import IdentifiersCut, IdentifiersLinked, VerdictCleared
from rapport.identity.v1.verdicts_pb2 import (
    ClearVerdictRequest,
    CutIdentifiersRequest,
    LinkIdentifiersRequest,
)
from services.identity.identifiers import Identifier
from services.identity.verdicts import Kind, fact_of
from services.kernel.command.decider import Decider
from services.kernel.errors import ResourceExhausted

# How many links and cuts an identifier may have: somebody who decides more wants another rule.
VERDICTS_PER_IDENTIFIER_MAX = 100

Command = LinkIdentifiersRequest | CutIdentifiersRequest | ClearVerdictRequest


@dataclass(frozen=True, slots=True)
class State:
    """A verdict as its events leave it."""

    kind: int = Kind.NONE
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """The two identifiers that a verdict is about, and how many others each of them has."""

    one: Identifier
    other: Identifier
    others: Mapping[str, int]


def decide(judged: Judged, command: Command, state: State) -> Sequence[Message]:
    """Deciding twice is deciding once; taking back what nobody said is no news."""
    kind = _kind(command)
    if kind == state.kind:
        return []
    if kind is not Kind.NONE and max(judged.others.values()) >= VERDICTS_PER_IDENTIFIER_MAX:
        raise ResourceExhausted("VERDICTS_PER_IDENTIFIER_MAX", VERDICTS_PER_IDENTIFIER_MAX)
    return [fact_of(kind, judged.one, judged.other, command.reason.replace("\0", ""))]


def evolve(state: State, event: Message) -> State:
    """Returns the verdict after an event."""
    match event:
        case IdentifiersLinked():
            return State(Kind.LINK, event.reason)
        case IdentifiersCut():
            return State(Kind.CUT, event.reason)
        case VerdictCleared():
            return State(Kind.NONE, event.reason)
    return state


def _kind(command: Command) -> Kind:
    match command:
        case LinkIdentifiersRequest():
            return Kind.LINK
        case CutIdentifiersRequest():
            return Kind.CUT
        case ClearVerdictRequest():
            return Kind.NONE


DECIDER: Decider[Command, State] = Decider(
    category="verdict",
    collection="verdicts",
    initial=State(),
    # What it is about is known when it is asked: see `decider_about`.
    decide=lambda _command, _state: [],
    evolve=evolve,
)


def decider_about(judged: Judged) -> Decider[Command, State]:
    """Returns the rules of the verdict on two identifiers."""
    return replace(DECIDER, decide=partial(decide, judged))
