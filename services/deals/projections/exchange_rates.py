"""The questions about currencies, answered from the view `currencies`, now or as of a moment."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from rapport.deals.v1.currencies_pb2 import BaseCurrency, ExchangeRate, ListExchangeRatesResponse
from services.deals.deciders import base_currency, exchange_rate
from services.deals.exchange import Rate, Rates
from services.deals.projections.currencies import (
    BASE_VERSIONS,
    RATE_COLUMNS,
    RATE_ROWS,
)
from services.kernel.command.decider import Decided, etag_of
from services.kernel.errors import NotFound
from services.kernel.iso4217 import EXPONENTS
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_versions import CURRENT_AT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from asyncpg import Pool

    from rapport.deals.v1.currencies_pb2 import ListExchangeRatesRequest
    from services.kernel.log.sql import Tx

_COUNTING = f"""
select workspace, {RATE_COLUMNS} from currencies.{{table}}
where workspace = $1 and to_currency = $2 and from_currency = $3 and effective_date <= $4
    and not is_removed and {{current}}
order by effective_date desc
limit 1
"""
_COUNTING_NOW = _COUNTING.format(table="exchange_rates", current="true")
_COUNTING_AT = _COUNTING.format(
    table="exchange_rates_versions", current=CURRENT_AT.format(moment="$5")
)

_COUNT = "select count(*) from currencies.exchange_rates where workspace = $1 and not is_removed"

# Of each pair those after a day, and the one that counts on it: every part along the index.
_RATES = """
select asked.from_currency, found.effective_date, found.rate
from unnest($3::text[]) as asked (from_currency)
cross join lateral (
    (
        select effective_date, rate from currencies.{table}
        where workspace = $1 and to_currency = $2 and from_currency = asked.from_currency
            and effective_date <= $4 and not is_removed and {current}
        order by effective_date desc
        limit 1
    )
    union all
    select effective_date, rate from currencies.{table}
    where workspace = $1 and to_currency = $2 and from_currency = asked.from_currency
        and effective_date > $4 and not is_removed and {current}
) found
"""
_RATES_NOW = _RATES.format(table="exchange_rates", current="true")
_RATES_AT = _RATES.format(table="exchange_rates_versions", current=CURRENT_AT.format(moment="$5"))


def _unchanged(column: str, kind: Kind) -> Field:
    return Field(column, kind, sortable=True, immutable=True, nullable=False)


EXCHANGE_RATES = Listing(
    method="ListExchangeRates",
    table=Table(
        "currencies.exchange_rates",
        key="exchange_rate_id",
        positions=Positions(partition="partition"),
        versions="currencies.exchange_rates_versions",
    ),
    columns=f"workspace, {RATE_COLUMNS}",
    # By its key: the pair, and the day.
    fields=Fields(
        {
            "from_currency": _unchanged("from_currency", Kind.TEXT),
            "to_currency": _unchanged("to_currency", Kind.TEXT),
            "effective_date": _unchanged("effective_date", Kind.TEXT),
            "create_time": _unchanged("create_time", Kind.TIMESTAMP),
            "update_time": Field("update_time", Kind.TIMESTAMP, nullable=False),
        }
    ),
)


async def get_base_currency(
    pool: Pool, workspace: str, moment: datetime | None = None
) -> BaseCurrency:
    """Returns the base currency, now or as it was, else NotFound."""
    name = base_currency.NAME
    try:
        row = await BASE_VERSIONS.existing_at(pool, workspace, name, moment)
    except NotFound:
        raise NotFound(name, message="the workspace has no base currency") from None
    return base_currency_of(row)


async def get_exchange_rate(
    pool: Pool,
    workspace: str,
    from_currency: str,
    to_currency: str,
    day: date,
    moment: datetime | None = None,
) -> ExchangeRate:
    """Returns the rate that counts on a day, by what is known or was, else NotFound."""
    asked = workspace, to_currency, from_currency, day.isoformat()
    if moment is None:
        row = await pool.fetchrow(_COUNTING_NOW, *asked)
    else:
        row = await pool.fetchrow(_COUNTING_AT, *asked, moment)
    if row is None:
        name = exchange_rate.DECIDER.name(f"{from_currency}-{to_currency}-{day}")
        message = f"nobody said what {from_currency} is worth in {to_currency} on {day}"
        raise NotFound(name, message=message)
    found = RATE_ROWS.row(row)
    return exchange_rate_of(found.aggregate_id, found)


async def list_exchange_rates(
    pool: Pool,
    workspace: str,
    request: ListExchangeRatesRequest,
    moment: datetime | None = None,
) -> ListExchangeRatesResponse:
    """Returns a page of exchange rates, now or as they were."""
    rows, next_page_token = await RATE_ROWS.page(
        pool, EXCHANGE_RATES, workspace, request, moment, where={"is_removed": False}
    )
    return ListExchangeRatesResponse(
        exchange_rates=[exchange_rate_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


async def count_exchange_rates(pool: Pool, workspace: str) -> int:
    """How many exchange rates a workspace has now."""
    count: int = await pool.fetchval(_COUNT, workspace)
    return count


async def load_rates(
    connection: Tx,
    workspace: str,
    to_currency: str,
    moment: datetime | None = None,
    *,
    first_date: date = date.min,
    from_currencies: Iterable[str] = EXPONENTS,
) -> Rates:
    """The rates into a currency, as known now or at a moment, for days from `first_date` on.

    They are at most `EXCHANGE_RATES_MAX`. Who converts for one day, as for deals that are open,
    gets few by saying so: one for each currency, and those of days to come.
    """
    asked = workspace, to_currency, sorted(from_currencies), first_date.isoformat()
    if moment is None:
        rows = await connection.fetch(_RATES_NOW, *asked)
    else:
        rows = await connection.fetch(_RATES_AT, *asked, moment)
    return Rates(
        Rate(from_currency, to_currency, date.fromisoformat(effective_date), rate)
        for from_currency, effective_date, rate in rows
    )


def base_currency_of(
    known: AggregateRow[base_currency.State] | Decided[base_currency.State],
) -> BaseCurrency:
    """Returns a base currency as the API shows it."""
    return BaseCurrency(
        name=base_currency.NAME,
        currency=known.state.currency,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def exchange_rate_of(
    exchange_rate_id: str,
    known: AggregateRow[exchange_rate.State] | Decided[exchange_rate.State],
) -> ExchangeRate:
    """Returns an exchange rate as the API shows it."""
    return ExchangeRate(
        name=exchange_rate.DECIDER.name(exchange_rate_id),
        from_currency=known.state.from_currency,
        to_currency=known.state.to_currency,
        effective_date=known.state.effective_date,
        rate=known.state.rate,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
