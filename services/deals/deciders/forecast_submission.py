"""The rules of submissions: what people expect of a period, each word of theirs a fact of its own.

What was said last is what counts; saying the same again says that it still holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from google.protobuf.message import Message

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import ForecastSubmitted
from rapport.deals.v1.forecasts_pb2 import ForecastCall, SubmitForecastRequest
from services.deals.deciders.quota import known_money
from services.deals.forecast_subject import NOTHING, Subject, known_subject
from services.kernel.command.decider import Decider
from services.kernel.errors import InvalidArgument

AMOUNTS: Final = ("commit", "most_likely", "best_case")
"""What may be said, the surest first: each holds the one before."""


@dataclass(frozen=True, slots=True)
class State:
    """What was said last; before anybody said anything it is about no period.

    The amounts are those of `AMOUNTS`, None where nothing was said.
    """

    subject: Subject = NOTHING
    amounts_minor: tuple[int | None, ...] = ()
    currency: str = ""
    note: str = ""

    @property
    def call(self) -> ForecastCall:
        """What was said last, as the API shows it."""
        call = ForecastCall(note=self.note)
        for name, amount_minor in zip(AMOUNTS, self.amounts_minor, strict=True):
            if amount_minor is not None:
                money = Money(amount_minor=amount_minor, currency=self.currency)
                getattr(call, name).CopyFrom(money)
        return call


def decide(command: SubmitForecastRequest, _state: State) -> Sequence[Message]:
    """Returns what was said as a fact, or refuses what contradicts itself."""
    subject, call = known_subject(command), command.call
    said = [name for name in AMOUNTS if call.HasField(name)]
    if not said:
        raise InvalidArgument.of("call", "at least one amount is needed")
    amounts = {name: known_money(getattr(call, name), f"call.{name}") for name in said}
    for surer, less_sure in pairwise(said):
        before, after = amounts[surer], amounts[less_sure]
        if after.currency != before.currency:
            message = "all amounts are told in one currency"
            raise InvalidArgument.of(f"call.{less_sure}.currency", message)
        if after.amount_minor < before.amount_minor:
            message = f"holds what is surer, so it is not below {surer}"
            raise InvalidArgument.of(f"call.{less_sure}.amount_minor", message)
    submitted = ForecastSubmitted(
        owner=subject.owner,
        team=subject.team,
        period=subject.period,
        pipeline=subject.pipeline,
        note=call.note,
        **amounts,
    )
    return [submitted]


def evolve(state: State, event: Message) -> State:
    """Returns what was said last after an event."""
    match event:
        case ForecastSubmitted():
            said = [getattr(event, name) if event.HasField(name) else None for name in AMOUNTS]
            return State(
                subject=Subject.of(event),
                amounts_minor=tuple(None if each is None else each.amount_minor for each in said),
                currency=next((each.currency for each in said if each is not None), ""),
                note=event.note,
            )
    return state


DECIDER = Decider(
    category="forecastsubmission",
    collection="forecastSubmissions",
    initial=State(),
    decide=decide,
    evolve=evolve,
)
