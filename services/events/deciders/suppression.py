"""The rules of a suppression: whether what comes with an identifier is refused.

Its id is a keyed hash of the identifier, which itself is kept nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from rapport.events.v1.events_pb2 import IdentifierSuppressed, IdentifierUnsuppressed
from rapport.events.v1.suppressions_pb2 import (
    SuppressIdentifierRequest,
    UnsuppressIdentifierRequest,
)
from services.kernel.command.decider import Decider

Command = SuppressIdentifierRequest | UnsuppressIdentifierRequest


@dataclass(frozen=True, slots=True)
class State:
    """A suppression as its events leave it."""

    type: str = ""
    is_suppressed: bool = False


def decide(command: Command, state: State) -> Sequence[Message]:
    """Suppressing twice is suppressing once; taking back what nobody said is no news."""
    match command:
        case SuppressIdentifierRequest():
            return [] if state.is_suppressed else [IdentifierSuppressed(type=command.type)]
        case UnsuppressIdentifierRequest():
            return [IdentifierUnsuppressed()] if state.is_suppressed else []


def evolve(state: State, event: Message) -> State:
    """Returns the suppression after an event."""
    match event:
        case IdentifierSuppressed():
            return State(type=event.type, is_suppressed=True)
        case IdentifierUnsuppressed():
            return replace(state, is_suppressed=False)
    return state


DECIDER = Decider(
    category="suppression",
    collection="suppressions",
    initial=State(),
    decide=decide,
    evolve=evolve,
)
