"""The view `currencies`: base currencies and exchange rates, now and at any moment before.

It is read at once. A rate that was removed keeps its row, without a rate.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from services.deals.deciders import base_currency, exchange_rate
from services.deals.exchange import rate_text
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows
from services.kernel.views.aggregate_versions import AggregateVersions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_REST = "version, partition, create_position, update_position, create_time, update_time"

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

_BASE_COLUMNS = f"base_currency_id, currency, {_REST}"

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

RATE_COLUMNS = f"""exchange_rate_id, from_currency, to_currency, effective_date, rate, is_removed,
    {_REST}"""

Row: TypeAlias = AggregateRow[exchange_rate.State]


def _several(table: str, key: str, columns: str) -> str:
    return f"""
        select workspace, {columns} from {{schema}}.{table}
        join unnest($1::text[], $2::text[]) as asked (workspace, {key}) using (workspace, {key})
    """


def _save(table: str, key: str, columns: str, *types: str) -> str:
    """What inserts rows, or replaces them; `types` are those of the columns of the state."""
    all_types = ["text", "text", *types, "bigint", "int", "bigint", "bigint"]
    all_types += ["timestamptz", "timestamptz"]
    arrays = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(all_types, start=1))
    changed = [name.strip() for name in columns.split(",")]
    values = ", ".join(f"excluded.{name}" for name in changed)
    return f"""
        insert into {{schema}}.{table} (workspace, {columns}) select * from unnest({arrays})
        on conflict (workspace, {key}) do update set ({columns}) = row ({values})
    """


def _one(table: str, key: str, columns: str) -> str:
    return f"""
        select workspace, {columns} from currencies.{table}
        where workspace = $1 and {key} = $2
    """


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


_BASE = ("base_currencies", "base_currency_id", _BASE_COLUMNS)
_RATE = ("exchange_rates", "exchange_rate_id", RATE_COLUMNS)

BASE_ROWS = AggregateRows(
    base_currency.DECIDER,
    key="base_currency_id",
    several=_several(*_BASE),
    save=_save(*_BASE, "text"),
    one=_one(*_BASE),
    state_of=lambda record: base_currency.State(currency=record["currency"]),
    state_columns=lambda row: (row.state.currency,),
)

BASE_VERSIONS = AggregateVersions(
    BASE_ROWS, live="currencies", table="base_currencies", state_types={"currency": "text"}
)

RATE_ROWS = AggregateRows(
    exchange_rate.DECIDER,
    key="exchange_rate_id",
    several=_several(*_RATE),
    save=_save(*_RATE, "text", "text", "text", "numeric", "boolean"),
    one=_one(*_RATE),
    state_of=_rate_in,
    state_columns=_rate_columns,
)

RATE_VERSIONS = AggregateVersions(
    RATE_ROWS,
    live="currencies",
    table="exchange_rates",
    state_types={
        "from_currency": "text",
        "to_currency": "text",
        "effective_date": "text",
        "rate": "numeric",
        "is_removed": "boolean",
    },
)


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
