"""A deal: what its events make of it. Pure.

What moves a deal (stage, state, deletion) and what changes it (everything else) are told in two
orders of their own and touch different fields, so facts of the two may be told in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import (
    DealAmountChanged,
    DealAssigned,
    DealCompanyChanged,
    DealContactsChanged,
    DealCustomFieldsChanged,
    DealDeleted,
    DealExpectedCloseChanged,
    DealForecastCategoryOverridden,
    DealLineItemsChanged,
    DealLost,
    DealMovedToPipeline,
    DealNextStepChanged,
    DealOpened,
    DealProbabilityOverridden,
    DealQuoted,
    DealRenamed,
    DealReopened,
    DealStageChanged,
    DealUndeleted,
    DealWon,
)
from rapport.deals.v1.lines_pb2 import RecurringRevenue, Totals
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_UNSPECIFIED,
    DEAL_STATE_WON,
    DealState,
)
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_UNSPECIFIED,
    DealContact,
    ForecastCategory,
)
from services.deals.lines import products_of, serialised
from services.kernel.log.recorded import utc

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

AMOUNT_MINOR_MAX: Final = 10**15
"""Small enough that the sums of thousands of such deals are exact in 64 bits."""


@dataclass(frozen=True, slots=True)
class Participant:
    """A contact that takes part in a deal, and its part."""

    contact: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A deal as its events leave it; before the first of them its state is not specified.

    Without a currency its amount is not known. The first of `contacts` is the primary one.
    `closed_from` is the open stage a closed deal was in; `stage_time` is when it entered its
    stage, `change_time` when the latest of the changes occurred. Facts from before deals could be
    told late have no times of their own.
    """

    state: DealState.ValueType = DEAL_STATE_UNSPECIFIED
    display_name: str = ""
    contacts: tuple[Participant, ...] = ()
    company: str = ""
    owner: str = ""
    team: str = ""
    amount_minor: int = 0
    currency: str = ""
    stage: str = ""
    closed_from: str = ""
    lost_reason: str = ""
    lost_note: str = ""
    expected_close_time: datetime | None = None
    next_step: str = ""
    custom_fields: dict[str, str] = field(default_factory=dict)
    forecast_category: ForecastCategory.ValueType = FORECAST_CATEGORY_UNSPECIFIED
    probability_bp: int | None = None
    line_items: bytes = b""
    primary_quote: str = ""
    products: tuple[str, ...] = ()
    monthly_minor: int | None = None
    annual_minor: int | None = None
    open_time: datetime | None = None
    stage_time: datetime | None = None
    change_time: datetime | None = None
    close_time: datetime | None = None
    delete_time: datetime | None = None

    @property
    def amount(self) -> Money | None:
        """What it is worth, if that is known."""
        if not self.currency:
            return None
        return Money(amount_minor=self.amount_minor, currency=self.currency)

    @property
    def recurring(self) -> RecurringRevenue | None:
        """What it earns again and again, if a quote or its lines say so."""
        if self.monthly_minor is None or self.annual_minor is None:
            return None
        return RecurringRevenue(
            monthly=Money(amount_minor=self.monthly_minor, currency=self.currency),
            annual=Money(amount_minor=self.annual_minor, currency=self.currency),
        )

    @property
    def contact(self) -> str:
        """The primary contact, or empty."""
        return self.contacts[0].contact if self.contacts else ""

    @property
    def pipeline(self) -> str:
        """The pipeline its stage belongs to, `pipelines/{id}`."""
        return self.stage.partition("/stages/")[0]


def evolve(state: State, event: Message) -> State:
    """Returns the deal after an event."""
    if isinstance(event, DealOpened):
        return _opened(event)
    moved = _moved(state, event)
    return _changed(state, event) if moved is None else moved


def _opened(event: DealOpened) -> State:
    contacts = event.contacts or [DealContact(contact=event.contact)] * bool(event.contact)
    return State(
        state=DEAL_STATE_OPEN,
        display_name=event.display_name,
        contacts=participants(contacts),
        company=event.company,
        owner=event.owner,
        team=event.team,
        amount_minor=event.amount.amount_minor,
        currency=event.amount.currency,
        stage=event.stage,
        expected_close_time=_time(event, "expected_close_time"),
        next_step=event.next_step,
        custom_fields=dict(event.custom_fields),
        forecast_category=event.forecast_category,
        probability_bp=_number(event, "probability_bp"),
        open_time=_time(event, "occur_time"),
        stage_time=_time(event, "occur_time"),
        change_time=_time(event, "occur_time"),
    )


def _moved(state: State, event: Message) -> State | None:
    """What a move, an ending or a deletion leads to; None for every other event."""
    match event:
        case DealStageChanged() | DealMovedToPipeline():
            return replace(state, stage=event.stage, stage_time=_time(event, "occur_time"))
        case DealWon():
            return _closed(replace(state, state=DEAL_STATE_WON), event)
        case DealLost():
            lost = replace(state, lost_reason=event.reason, lost_note=event.note)
            return _closed(replace(lost, state=DEAL_STATE_LOST), event)
        case DealReopened():
            return replace(
                state,
                state=DEAL_STATE_OPEN,
                stage=event.stage,
                closed_from="",
                lost_reason="",
                lost_note="",
                stage_time=_time(event, "occur_time"),
                close_time=None,
            )
        case DealDeleted():
            return replace(state, delete_time=_time(event, "occur_time"))
        case DealUndeleted():
            return replace(state, delete_time=None)
    return None


def _closed(state: State, event: DealWon | DealLost) -> State:
    moment = _time(event, "occur_time")
    return replace(
        state,
        closed_from=state.stage,
        stage=event.closing_stage or state.stage,
        stage_time=moment or state.stage_time,
        close_time=moment,
    )


def _changed(state: State, event: Any) -> State:
    """What a change leads to, and when the latest of them occurred."""
    after = _about(state, event) or _worth(state, event)
    return replace(after, change_time=_time(event, "occur_time")) if after else state


def _about(state: State, event: Message) -> State | None:
    """What a change of names and people leads to; None for every other event."""
    match event:
        case DealRenamed():
            return replace(state, display_name=event.display_name)
        case DealContactsChanged():
            return replace(state, contacts=participants(event.contacts))
        case DealCompanyChanged():
            return replace(state, company=event.company)
        case DealAssigned():
            return replace(state, owner=event.owner, team=event.team)
        case DealNextStepChanged():
            return replace(state, next_step=event.next_step)
        case DealCustomFieldsChanged():
            return replace(state, custom_fields=dict(event.custom_fields))
    return None


def _worth(state: State, event: Message) -> State | None:
    """What a change of what a forecast is made of leads to; None for every other event."""
    match event:
        case DealAmountChanged(amount=amount):
            return replace(state, amount_minor=amount.amount_minor, currency=amount.currency)
        case DealExpectedCloseChanged():
            return replace(state, expected_close_time=_time(event, "expected_close_time"))
        case DealForecastCategoryOverridden():
            return replace(state, forecast_category=event.forecast_category)
        case DealProbabilityOverridden():
            return replace(state, probability_bp=_number(event, "probability_bp"))
        case DealLineItemsChanged():
            kept = serialised(event.line_items) if event.line_items.items else b""
            after = replace(state, line_items=kept)
            products = products_of(event.line_items)
            return after if state.primary_quote else _earning(after, products, event.totals)
        case DealQuoted():
            after = replace(state, primary_quote=event.quote)
            return _earning(after, tuple(event.products), event.totals)
    return None


def _earning(state: State, products: tuple[str, ...], totals: Totals) -> State:
    """What totals say of what recurs; the amount has a fact of its own."""
    is_told = totals.HasField("recurring")
    return replace(
        state,
        products=products,
        monthly_minor=totals.recurring.monthly.amount_minor if is_told else None,
        annual_minor=totals.recurring.annual.amount_minor if is_told else None,
    )


def participants(contacts: Iterable[DealContact]) -> tuple[Participant, ...]:
    """Contacts as a deal's state keeps them: the primary one first, the others by name."""
    found = [Participant(each.contact, each.role) for each in contacts]
    return (*found[:1], *sorted(found[1:], key=attrgetter("contact")))


def _time(event: Any, name: str) -> datetime | None:
    """A moment that an event may tell."""
    timestamp: Timestamp = getattr(event, name)
    return utc(timestamp) if event.HasField(name) else None


def _number(event: Any, name: str) -> int | None:
    return int(getattr(event, name)) if event.HasField(name) else None
