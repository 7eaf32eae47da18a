"""What a deal is worth, when its lines or a quote say it.

The primary quote says it; while there is none, the deal's own lines do; while there are none of
them, whoever changes the amount. It is what is earned over all terms: neither tax nor shipping is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapport.deals.v1.events_pb2 import DealAmountChanged, DealLineItemsChanged, DealQuoted
from rapport.deals.v1.lines_pb2 import LineItems
from services.deals.exchange import known_currency
from services.deals.lines import (
    Whole,
    priced,
    products_of,
    serialised,
    sums_of,
    totals_of,
)
from services.kernel.errors import FailedPrecondition
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from google.protobuf.message import Message

    from rapport.deals.v1.lines_pb2 import QuoteDetails, Totals
    from services.deals.deal import State


def lined(items: LineItems, state: State, path: str) -> Iterator[Message]:
    """The facts that follow when a deal has these lines; those it has already are no news."""
    kept = LineItems()
    totals = None
    if items.items:
        currency = known_currency(items.currency, f"{path}.currency")
        full, lines = priced(items.items, currency, f"{path}.items")
        kept = LineItems(currency=currency, items=full)
        totals = totals_of(sums_of(lines, Whole(path="deal.")), currency)
    if (serialised(kept) if items.items else b"") == state.line_items:
        return
    yield DealLineItemsChanged(line_items=kept, totals=totals)
    if totals is not None and not state.primary_quote and totals.contract_value != state.amount:
        yield DealAmountChanged(amount=totals.contract_value, previous_amount=state.amount)


def quoted(
    now: datetime, state: State, quote: str, details: QuoteDetails, totals: Totals
) -> list[Message]:
    """The facts that follow when this quote, as it is now, says what a deal is worth."""
    # Another replica's clock may be ahead of ours: no change occurs before an earlier one.
    occur_time = timestamp_of(max(now, state.change_time or now))
    facts: list[Message] = [
        DealQuoted(
            quote=quote,
            previous_quote=state.primary_quote,
            products=products_of(details.line_items),
            totals=totals,
            occur_time=occur_time,
        )
    ]
    if totals.contract_value != state.amount:
        facts.append(
            DealAmountChanged(
                amount=totals.contract_value,
                previous_amount=state.amount,
                occur_time=occur_time,
            )
        )
    return facts


def said_by_hand(name: str, state: State, *, is_lined: bool) -> None:
    """Refuses an amount that somebody gives while the deal's quote or its lines say it."""
    if state.primary_quote:
        raise FailedPrecondition(
            f"{state.primary_quote} says what {name} is worth: change or revise it, or make another"
            " quote the primary one",
            resource=name,
            state="PRIMARY_QUOTE",
        )
    if is_lined:
        raise FailedPrecondition(
            f"its line items say what {name} is worth: change them, or take them away",
            resource=name,
            state="LINE_ITEMS",
        )
