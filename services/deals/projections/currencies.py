"""The view `currencies`: base currencies and exchange rates, now and at any moment before.

It is read at once. A rate that was removed keeps its row, without a rate.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from services.deals.deciders import base_currency, exchange_rate
from services.deals.exchange import rate_text
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable
from services.kernel.views.aggregate_versions import AggregateVersions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx


_REST_TYPES = """
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null
"""

_BASE_TABLE = f"""
create table {{schema}}.base_currencies (
    workspace text not null,
    base_currency_id text collate "C" not null,
    currency text collate "C" not null,
    {_REST_TYPES},
    primary key (workspace, base_currency_id)
);
"""

_RATE_TABLE = f"""
create table {{schema}}.exchange_rates (
    workspace text not null,
    exchange_rate_id text collate "C" not null,
    from_currency text collate "C" not null,
    to_currency text collate "C" not null,
    effective_date text collate "C" not null,
    rate numeric,
    is_removed boolean not null,
    {_REST_TYPES},
    primary key (workspace, exchange_rate_id)
);
"""

# After the table of versions.
_RATE_INDEXES = """
create index exchange_rates_in_use
    on {schema}.exchange_rates (workspace, exchange_rate_id) where not is_removed;
create index exchange_rates_by_pair
    on {schema}.exchange_rates (workspace, to_currency, from_currency, effective_date);
create index exchange_rates_versions_by_pair
    on {schema}.exchange_rates_versions (workspace, to_currency, from_currency, effective_date);
"""

BASE_TABLE = AggregateTable(
    "currencies", "base_currencies", "base_currency_id", {"currency": "text"}
)
RATES_TABLE = AggregateTable(
    "currencies",
    "exchange_rates",
    "exchange_rate_id",
    {
        "from_currency": "text",
        "to_currency": "text",
        "effective_date": "text",
        "rate": "numeric",
        "is_removed": "boolean",
    },
)
RATE_COLUMNS = RATES_TABLE.columns

Row: TypeAlias = AggregateRow[exchange_rate.State]


def _rate_in(record: Any) -> exchange_rate.State:
    return exchange_rate.State(
        from_currency=record["from_currency"],
        to_currency=record["to_currency"],
        effective_date=record["effective_date"],
        rate="" if record["is_removed"] else rate_text(record["rate"]),
    )


def _rate_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    rate = Decimal(state.rate) if state.rate else None
    return state.from_currency, state.to_currency, state.effective_date, rate, rate is None


BASE_ROWS = BASE_TABLE.rows(
    base_currency.DECIDER,
    state_of=lambda record: base_currency.State(currency=record["currency"]),
    state_columns=lambda row: (row.state.currency,),
)
BASE_VERSIONS = AggregateVersions(BASE_ROWS, BASE_TABLE)

RATE_ROWS = RATES_TABLE.rows(exchange_rate.DECIDER, state_of=_rate_in, state_columns=_rate_columns)
RATE_VERSIONS = AggregateVersions(RATE_ROWS, RATES_TABLE)


class CurrenciesView:
    """Keeps base currencies and exchange rates, and what they were."""

    name = "currencies"
    shape = 1

    def tables(self, schema: str) -> str:
        base = _BASE_TABLE + BASE_VERSIONS.tables()
        rates = _RATE_TABLE + RATE_VERSIONS.tables() + _RATE_INDEXES
        return (base + rates).format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of base currencies and of exchange rates."""
        if own := BASE_ROWS.own(events):
            await BASE_VERSIONS.add(tx, schema, await BASE_ROWS.fold(tx, schema, own))
        if own := RATE_ROWS.own(events):
            await RATE_VERSIONS.add(tx, schema, await RATE_ROWS.fold(tx, schema, own))
