"""Sums of money in reports: as the database adds them up, and as the API tells them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.reports_pb2 import UnconvertedAmount
from services.deals.exchange import Rates, day_of
from services.deals.projections.exchange_rates import load_rates
from services.deals.sums import Sum, gathered, sum_told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from services.deals.projections.report_source import Question
    from services.kernel.log.sql import Tx

_INSTANT: Final = timedelta(microseconds=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)


def day_before(moment: datetime) -> date:
    """The day (in UTC) of the last instant before a moment."""
    return day_of(earlier(moment, _INSTANT))


def earlier(moment: datetime, by: timedelta) -> datetime:
    """A moment so much earlier; the first of the calendar, where that lies before it."""
    return _FIRST + max(moment - _FIRST - by, timedelta())


def sum_of(row: Any, day: date) -> Sum:
    """What the database added up for one currency and day; amounts nobody knows add nothing."""
    amount_minor = 0 if row["amount_minor"] is None else int(row["amount_minor"])
    return Sum(row["currency"] or "", day, row["count"], amount_minor)


async def rates_for(connection: Tx, question: Question, parts: Sequence[Sum]) -> Rates:
    """The rates that telling these sums in the currency of a question needs, as known then."""
    foreign = {part.currency for part in parts} - {"", question.currency}
    if not question.currency or not foreign:
        return Rates()
    return await load_rates(
        connection,
        question.workspace,
        question.currency,
        question.moment,
        first_date=min(part.day for part in parts),
        from_currencies=foreign,
    )


def money(amount_minor: int, currency: str) -> Money | None:
    """An amount, if there is a currency to tell it in, else OutOfRange."""
    return sum_told(amount_minor, currency) if currency else None


def moneys(amounts: Mapping[str, int]) -> list[Money]:
    """An amount in each of several currencies."""
    return [
        told
        for currency, amount_minor in sorted(amounts.items())
        if (told := money(amount_minor, currency))
    ]


def unconverted_of(left_out: Iterable[Sum], currency: str) -> list[UnconvertedAmount]:
    """What sums in a currency leave out, as the API tells it."""
    return [
        UnconvertedAmount(
            amount=money(part.amount_minor, part.currency),
            to_currency=currency,
            date=part.day.isoformat(),
            count=part.count,
        )
        for part in gathered(left_out)
    ]
