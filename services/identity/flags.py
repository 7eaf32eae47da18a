"""Flags: what people decided about one identifier, as the facts of our own log say it. Pure.

The last flag of an identifier, by the facts' keys, is the one that holds. A fact names it by its
node: it can wait for one that nobody has told of, and carries no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial

from google.protobuf.message import Message

from rapport.identity.v1.events_pb2 import (
    IdentifierAllowed,
    IdentifierBlocked,
    IdentifierFlagCleared,
    JudgedIdentifier,
)
from rapport.identity.v1.flags_pb2 import (
    AllowIdentifierRequest,
    BlockIdentifierRequest,
    ClearIdentifierFlagRequest,
)
from services.identity.facts import key_of
from services.identity.identifiers import Identifier
from services.kernel.command.decider import Decider
from services.kernel.log.recorded import Recorded


class Kind(IntEnum):
    """What a flag says; the numbers are those of FlagKind, and kept."""

    NONE = 0
    BLOCK = 1
    ALLOW = 2


FlaggedPlace = tuple[str, str]  # workspace, node

FACTS: dict[Kind, type[IdentifierBlocked | IdentifierAllowed | IdentifierFlagCleared]] = {
    Kind.BLOCK: IdentifierBlocked,
    Kind.ALLOW: IdentifierAllowed,
    Kind.NONE: IdentifierFlagCleared,
}
_KINDS: dict[type[Message], Kind] = {fact: kind for kind, fact in FACTS.items()}

Command = BlockIdentifierRequest | AllowIdentifierRequest | ClearIdentifierFlagRequest


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as a fact gives it to an identifier, by its type and node."""

    event: Recorded
    key: bytes
    kind: Kind
    type: str
    node: str
    reason: str

    @property
    def place(self) -> FlaggedPlace:
        """What it is about."""
        return self.event.workspace, self.node


def flag_of(event: Recorded) -> Flag | None:
    """Reads the flag that an event gives, if it gives one."""
    kind = _KINDS.get(type(event.event))
    if kind is None:
        return None
    fact = event.event
    assert isinstance(fact, IdentifierBlocked | IdentifierAllowed | IdentifierFlagCleared)
    key = key_of(event.record_time, event.event_id)
    return Flag(event, key, kind, fact.identifier.type, fact.identifier.node, fact.reason)


def last_flags(events: Iterable[Recorded]) -> dict[FlaggedPlace, Flag]:
    """Returns the last flag of each identifier among events, whatever their order."""
    last: dict[FlaggedPlace, Flag] = {}
    for event in events:
        flag = flag_of(event)
        if flag is not None:
            known = last.get(flag.place)
            if known is None or known.key < flag.key:
                last[flag.place] = flag
    return last


def held_flags(flags: Iterable[Flag]) -> dict[str, bool]:
    """Returns, by node, what flags that hold say: True blocks one, False allows it."""
    return {flag.node: flag.kind is Kind.BLOCK for flag in flags if flag.kind is not Kind.NONE}


@dataclass(frozen=True, slots=True)
class State:
    """A flag as its events leave it."""

    kind: int = Kind.NONE
    reason: str = ""


def decide(about: Identifier, command: Command, state: State) -> Sequence[Message]:
    """Deciding twice is deciding once; taking back what nobody said is no news."""
    kind = _kind(command)
    if kind == state.kind:
        return []
    flagged = JudgedIdentifier(type=about.type, node=about.node)
    return [FACTS[kind](identifier=flagged, reason=command.reason.replace("\0", ""))]


def evolve(state: State, event: Message) -> State:
    """Returns the flag after an event."""
    match event:
        case IdentifierBlocked():
            return State(Kind.BLOCK, event.reason)
        case IdentifierAllowed():
            return State(Kind.ALLOW, event.reason)
        case IdentifierFlagCleared():
            return State(Kind.NONE, event.reason)
    return state


def _kind(command: Command) -> Kind:
    match command:
        case BlockIdentifierRequest():
            return Kind.BLOCK
        case AllowIdentifierRequest():
            return Kind.ALLOW
        case ClearIdentifierFlagRequest():
            return Kind.NONE


DECIDER: Decider[Command, State] = Decider(
    category="flag",
    collection="identifierFlags",
    initial=State(),
    # What it is about is known when it is asked: see `decider_about`.
    decide=lambda _command, _state: [],
    evolve=evolve,
)


def decider_about(identifier: Identifier) -> Decider[Command, State]:
    """Returns the rules of the flag of an identifier, which is known by its node."""
    return replace(DECIDER, decide=partial(decide, identifier))
