"""The rules of a quota: what an owner, a team or all are to win in a period.

Its id is made of what it is about, so a correction is a new fact about the same quota.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import QuotaRemoved, QuotaSet
from rapport.deals.v1.forecasts_pb2 import RemoveQuotaRequest, SetQuotaRequest
from services.deals.exchange import CONVERTED_MINOR_MAX, known_currency
from services.deals.forecast_subject import NOTHING, Subject, known_subject
from services.kernel.command.decider import Decider
from services.kernel.errors import InvalidArgument, NotFound

Command = SetQuotaRequest | RemoveQuotaRequest


@dataclass(frozen=True, slots=True)
class State:
    """A quota as its events leave it; before the first of them it is about no period.

    Without a currency there is nothing to be won: it was removed.
    """

    subject: Subject = NOTHING
    amount_minor: int = 0
    currency: str = ""

    @property
    def amount(self) -> Money | None:
        """What is to be won, if anything."""
        if not self.currency:
            return None
        return Money(amount_minor=self.amount_minor, currency=self.currency)


def decide(command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    match command:
        case SetQuotaRequest():
            return set_quota(command, state)
        case RemoveQuotaRequest():
            return remove(command, state)


def set_quota(command: SetQuotaRequest, state: State) -> Sequence[Message]:
    """What is to be won already is no news."""
    subject = known_subject(command)
    amount = known_money(command.amount, "amount")
    if amount == state.amount:
        return []
    quota = QuotaSet(
        owner=subject.owner,
        team=subject.team,
        period=subject.period,
        pipeline=subject.pipeline,
        amount=amount,
        previous_amount=state.amount,
    )
    return [quota]


def remove(command: RemoveQuotaRequest, state: State) -> Sequence[Message]:
    """Removing twice is removing once."""
    if not state.subject.period:
        raise NotFound(command.name)
    return [QuotaRemoved(previous_amount=state.amount)] if state.currency else []


def known_money(amount: Money, field: str) -> Money:
    """Refuses what could not be added up or told in another currency."""
    known_currency(amount.currency, f"{field}.currency")
    if not 0 <= amount.amount_minor <= CONVERTED_MINOR_MAX:
        message = f"lies between 0 and {CONVERTED_MINOR_MAX}"
        raise InvalidArgument.of(f"{field}.amount_minor", message)
    return amount


def evolve(state: State, event: Message) -> State:
    """Returns the quota after an event."""
    match event:
        case QuotaSet(amount=amount):
            return State(Subject.of(event), amount.amount_minor, amount.currency)
        case QuotaRemoved():
            return replace(state, amount_minor=0, currency="")
    return state


DECIDER = Decider(
    category="quota", collection="quotas", initial=State(), decide=decide, evolve=evolve
)
