"""The rules of an exchange rate: what one unit of a currency is worth in another from a day on.

Its id is the pair and the day, so a correction is a new fact about the same rate, and nothing said
for one day changes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.deals.v1.currencies_pb2 import RemoveExchangeRateRequest, SetExchangeRateRequest
from rapport.deals.v1.events_pb2 import ExchangeRateRemoved, ExchangeRateSet
from services.deals.exchange import known_pair, rate_text, read_day, read_rate
from services.kernel.command.decider import Decider
from services.kernel.errors import InvalidArgument, NotFound, ResourceExhausted

Command = SetExchangeRateRequest | RemoveExchangeRateRequest

EXCHANGE_RATES_MAX = 50_000
"""How many a workspace has: thirty currencies on every working day of six years.

All that lead to one currency are read at once by reports, so there is an end to them. It is counted
before the command, so those set at the same moment may pass it by their number.
"""


@dataclass(frozen=True, slots=True)
class State:
    """An exchange rate as its events leave it; without a rate when nobody set it, or it is removed.

    The rate is written without zeros at its end.
    """

    from_currency: str = ""
    to_currency: str = ""
    effective_date: str = ""
    rate: str = ""


def decide(count: int, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it; `count` are set already."""
    match command:
        case SetExchangeRateRequest():
            return set_rate(count, command, state)
        case RemoveExchangeRateRequest():
            return remove(command, state)


def set_rate(count: int, command: SetExchangeRateRequest, state: State) -> Sequence[Message]:
    """What the rate is already is no news; a correction is taken however many there are."""
    from_currency, to_currency = known_pair(command.from_currency, command.to_currency)
    if read_day(command.effective_date) is None:
        raise InvalidArgument.of("effective_date", "is no day of the calendar")
    rate = read_rate(command.rate)
    if rate is None:
        message = "must be a decimal above 0 with at most 12 digits before and 12 behind the point"
        raise InvalidArgument.of("rate", message)
    written = rate_text(rate)
    if written == state.rate:
        return []
    if not state.rate and count >= EXCHANGE_RATES_MAX:
        raise ResourceExhausted("EXCHANGE_RATES_MAX", EXCHANGE_RATES_MAX)
    return [
        ExchangeRateSet(
            from_currency=from_currency,
            to_currency=to_currency,
            effective_date=command.effective_date,
            rate=written,
            previous_rate=state.rate,
        )
    ]


def remove(command: RemoveExchangeRateRequest, state: State) -> Sequence[Message]:
    """Removing twice is removing once."""
    if not state.from_currency:
        raise NotFound(command.name)
    if not state.rate:
        return []
    return [
        ExchangeRateRemoved(
            from_currency=state.from_currency,
            to_currency=state.to_currency,
            effective_date=state.effective_date,
            rate=state.rate,
        )
    ]


def evolve(state: State, event: Message) -> State:
    """Returns the exchange rate after an event."""
    match event:
        case ExchangeRateSet():
            return State(
                from_currency=event.from_currency,
                to_currency=event.to_currency,
                effective_date=event.effective_date,
                rate=event.rate,
            )
        case ExchangeRateRemoved():
            return replace(state, rate="")
    return state


def decider_with(count: int) -> Decider[Command, State]:
    """The rules for a workspace that has so many."""
    return Decider(
        category="exchangerate",
        collection="exchangeRates",
        initial=State(),
        decide=partial(decide, count),
        evolve=evolve,
    )


DECIDER = decider_with(0)
"""The rules for who sets none."""


def id_of(command: SetExchangeRateRequest) -> str:
    """The id of the rate that a command sets."""
    return f"{command.from_currency}-{command.to_currency}-{command.effective_date}"
