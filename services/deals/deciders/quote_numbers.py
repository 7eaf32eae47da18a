"""The rules of numbers: each new quote of a workspace gets the next one, and none is left out.

The one stream of a workspace's numbers is decided on in the transaction that creates the quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from rapport.deals.v1.events_pb2 import QuoteNumberAssigned
from services.kernel.command.decider import Decider

NUMBERS_ID = "all"


@dataclass(frozen=True, slots=True)
class State:
    """The last number that was given."""

    last: int = 0


def decide(command: QuoteNumberAssigned, state: State) -> Sequence[Message]:
    """Whatever quote asks gets the next number."""
    return [QuoteNumberAssigned(number=state.last + 1, quote=command.quote)]


def evolve(state: State, event: Message) -> State:
    """Returns the numbers after an event."""
    match event:
        case QuoteNumberAssigned():
            return State(last=event.number)
    return state


DECIDER = Decider(
    category="quotenumbers",
    collection="quoteNumbers",
    initial=State(),
    decide=decide,
    evolve=evolve,
)
