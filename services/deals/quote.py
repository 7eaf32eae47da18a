"""A quote: what its events make of it, and what it comes to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from google.protobuf.message import Message

from rapport.deals.v1.events_pb2 import (
    QuoteAccepted,
    QuoteApproved,
    QuoteCreated,
    QuoteDeclined,
    QuoteDrafted,
    QuoteRejected,
    QuoteRevised,
    QuoteSent,
    QuoteSubmitted,
    QuoteSuperseded,
)
from rapport.deals.v1.lines_pb2 import LineItems, QuoteDetails, Totals
from rapport.deals.v1.quotes_pb2 import (
    QUOTE_STATE_ACCEPTED,
    QUOTE_STATE_APPROVED,
    QUOTE_STATE_DECLINED,
    QUOTE_STATE_DRAFT,
    QUOTE_STATE_EXPIRED,
    QUOTE_STATE_PENDING_APPROVAL,
    QUOTE_STATE_SENT,
    QUOTE_STATE_SUPERSEDED,
    QUOTE_STATE_UNSPECIFIED,
    QuoteState,
)
from services.deals.exchange import known_currency, read_day
from services.deals.lines import (
    Whole,
    priced,
    read_percent,
    serialised,
    sums_of,
    totals_of,
)
from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import utc

if TYPE_CHECKING:
    from datetime import date

EXPIRING: Final = frozenset({QUOTE_STATE_APPROVED, QUOTE_STATE_SENT})
"""The states in which a quote expires after its last valid day."""


@dataclass(frozen=True, slots=True)
class State:
    """A quote as its events leave it; before the first of them its state is not specified.

    `details` and `totals` are serialised; `valid_until` is the last valid day, or empty.
    """

    state: QuoteState.ValueType = QUOTE_STATE_UNSPECIFIED
    number: int = 0
    revision: int = 0
    deal: str = ""
    earlier_revisions: tuple[str, ...] = ()
    next_revision: str = ""
    details: bytes = b""
    totals: bytes = b""
    valid_until: str = ""
    rejected_reason: str = ""
    approver: str = ""
    send_time: datetime | None = None
    accepted_by: str = ""
    accept_time: datetime | None = None
    declined_reason: str = ""

    @property
    def number_text(self) -> str:
        """Its number as people say it."""
        return f"Q-{self.number:06d}"

    def state_on(self, day: date) -> QuoteState.ValueType:
        """Where it is in its life on a day: what is out of date then has expired."""
        is_over = self.valid_until and self.valid_until < day.isoformat()
        return QUOTE_STATE_EXPIRED if is_over and self.state in EXPIRING else self.state


def evolve(state: State, event: Message) -> State:
    """Returns the quote after an event."""
    match event:
        case QuoteCreated():
            return State(
                state=QUOTE_STATE_DRAFT,
                number=event.number,
                revision=event.revision,
                deal=event.deal,
                earlier_revisions=tuple(event.earlier_revisions),
                details=serialised(event.details),
                totals=serialised(event.totals),
                valid_until=event.details.valid_until,
            )
        case QuoteDrafted():
            return replace(
                state,
                details=serialised(event.details),
                totals=serialised(event.totals),
                valid_until=event.details.valid_until,
            )
    return _gone_on(state, event)


def _gone_on(state: State, event: Message) -> State:
    """What a step towards the customer leads to."""
    match event:
        case QuoteSubmitted():
            return replace(state, state=QUOTE_STATE_PENDING_APPROVAL, rejected_reason="")
        case QuoteApproved():
            return replace(state, state=QUOTE_STATE_APPROVED, approver=event.approver)
        case QuoteRejected():
            return replace(state, state=QUOTE_STATE_DRAFT, rejected_reason=event.reason)
        case QuoteSent():
            return replace(state, state=QUOTE_STATE_SENT, send_time=utc(event.occur_time))
        case QuoteAccepted():
            accepted = replace(state, accept_time=utc(event.occur_time))
            return replace(accepted, state=QUOTE_STATE_ACCEPTED, accepted_by=event.accepted_by)
        case QuoteDeclined():
            return replace(state, state=QUOTE_STATE_DECLINED, declined_reason=event.reason)
        case QuoteRevised():
            return replace(state, next_revision=event.next_revision)
        case QuoteSuperseded():
            return replace(state, state=QUOTE_STATE_SUPERSEDED)
    return state


def offered(details: QuoteDetails) -> tuple[QuoteDetails, Totals]:
    """Details as they are kept, each line with what it comes to, and their totals.

    Refuses what could not be offered, naming the field.
    """
    items = details.line_items
    if not items.items:
        raise InvalidArgument.of("details.line_items.items", "a quote needs a line")
    currency = known_currency(items.currency, "details.line_items.currency")
    kept, lines = priced(items.items, currency, "details.line_items.items")
    percent = read_percent(details.discount_percent, "details.discount_percent")
    if percent and details.discount_minor:
        message = "stands instead of discount_percent"
        raise InvalidArgument.of("details.discount_minor", message)
    whole = Whole(
        path="details.",
        discount_percent=percent,
        discount_minor=details.discount_minor,
        shipping_minor=details.shipping_minor,
        shipping_tax_percent=read_percent(
            details.shipping_tax_percent, "details.shipping_tax_percent"
        ),
    )
    sums = sums_of(lines, whole)
    if details.valid_until and read_day(details.valid_until) is None:
        raise InvalidArgument.of("details.valid_until", "must be a day such as 2026-03-31")
    full = QuoteDetails()
    full.CopyFrom(details)
    full.line_items.CopyFrom(LineItems(currency=currency, items=kept))
    return full, totals_of(sums, currency)
