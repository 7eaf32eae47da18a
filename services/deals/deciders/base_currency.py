"""The rules of a workspace's base currency: the one in which sums are told unless asked otherwise.

There is none until it is set. A change falsifies nothing: amounts stay in their currencies, rates
say for which pair they were given, and a report in a new base has error rows until there are rates
into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from rapport.deals.v1.currencies_pb2 import SetBaseCurrencyRequest
from rapport.deals.v1.events_pb2 import BaseCurrencySet
from services.deals.exchange import known_currency
from services.kernel.command.decider import Decider

Command = SetBaseCurrencyRequest

BASE = "base"
NAME = f"currencies/{BASE}"
"""A workspace has one."""


@dataclass(frozen=True, slots=True)
class State:
    """The base currency as its events leave it; empty before the first of them."""

    currency: str = ""


def decide(command: Command, state: State) -> Sequence[Message]:
    """What is the base already is no news."""
    currency = known_currency(command.currency, "currency")
    if currency == state.currency:
        return []
    return [BaseCurrencySet(currency=currency, previous_currency=state.currency)]


def evolve(state: State, event: Message) -> State:
    """Returns the base currency after an event."""
    match event:
        case BaseCurrencySet():
            return State(currency=event.currency)
    return state


DECIDER = Decider(
    category="basecurrency",
    collection="currencies",
    initial=State(),
    decide=decide,
    evolve=evolve,
)
