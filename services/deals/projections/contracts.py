"""The view `contracts`: a row per contract, and every version of it.

It is read at once: its rows change in the transaction that appends the events. A row holds the
state as the decider folds it, and beside it what is filtered by. What a contract is on a day, which
state it is in and when its term ends, is in no column: `contract_answers` tells it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from services.deals.deciders.contract import DECIDER
from services.deals.deciders.contract_state import (
    State,
    next_reminder,
    standing_of,
)
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable
from services.kernel.views.aggregate_versions import AggregateVersions

if TYPE_CHECKING:
    from asyncpg import Pool

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

# Beside the state: what is filtered by, and what the days of a contract are counted from.
_STATE_COLUMNS = {
    "folded": "bytea",
    "recorded_state": "int",
    "reference": "text",
    "display_name": "text",
    "company": "text",
    "contact": "text",
    "deal": "text",
    "quote": "text",
    "owner": "text",
    "is_approved": "boolean",
    "auto_renew": "boolean",
    "amount_minor": "bigint",
    "currency": "text",
    "billing_period": "int",
    "custom_fields": "jsonb",
    "start_date": "text",
    "counted_from": "date",
    "months": "int",
    "renewal_months": "int",
    "last_date": "date",
    "ending": "int",
    "notice_date": "text",
    "terminate_date": "text",
    "renews": "text",
    "renewed_by": "text",
    "next_reminder_date": "text",
    "last_reminder_date": "text",
}
CONTRACTS_TABLE = AggregateTable("contracts", "contracts", "contract_id", _STATE_COLUMNS)
COLUMNS = CONTRACTS_TABLE.columns
_NULLABLE = {
    *("display_name", "company", "contact", "deal", "quote", "owner", "amount_minor", "currency"),
    *("billing_period", "last_date", "notice_date", "terminate_date", "renews", "renewed_by"),
    *("next_reminder_date", "last_reminder_date"),
}


def _declared(name: str, sql_type: str) -> str:
    collation = ' collate "C"' if sql_type == "text" and name != "workspace" else ""
    return f"{name} {sql_type}{collation}{'' if name in _NULLABLE else ' not null'}"


_TABLES = f"""
create table {{schema}}.contracts (
    {", ".join(_declared(*column) for column in CONTRACTS_TABLE.types.items())},
    primary key (workspace, contract_id)
);
create index contracts_by_create_time
    on {{schema}}.contracts (workspace, create_time, contract_id);
create index contracts_by_update_position
    on {{schema}}.contracts (workspace, update_position);
create index contracts_by_company
    on {{schema}}.contracts (workspace, company, create_time, contract_id)
    where company is not null;
create index contracts_by_next_reminder
    on {{schema}}.contracts (next_reminder_date, workspace, contract_id)
    where next_reminder_date is not null;
"""

_DUE = """
select workspace, contract_id, next_reminder_date from contracts.contracts
where next_reminder_date <= $1
    and (next_reminder_date, workspace, contract_id) > ($2, $3, $4)
order by next_reminder_date, workspace, contract_id limit $5
"""

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return msgspec.msgpack.decode(record["folded"], type=State)


def _state_columns(row: Row) -> tuple[object, ...]:
    state, terms, standing = row.state, row.state.said(), standing_of(row.state)
    reminder = next_reminder(state)
    found: dict[str, object] = {
        "folded": msgspec.msgpack.encode(state),
        "recorded_state": state.state,
        "reference": terms.reference,
        "display_name": terms.display_name or None,
        "company": terms.company or None,
        "contact": terms.contact or None,
        "deal": terms.deal or None,
        "quote": terms.quote or None,
        "owner": terms.owner or None,
        "is_approved": state.is_approved,
        "auto_renew": terms.auto_renew,
        "amount_minor": terms.value.amount_minor if terms.HasField("value") else None,
        "currency": terms.value.currency or None,
        "billing_period": terms.billing_period or None,
        "custom_fields": json.dumps(dict(terms.custom_fields), sort_keys=True),
        "start_date": terms.start_date,
        "counted_from": standing.course.counted_from,
        "months": standing.course.months,
        "renewal_months": standing.course.renewal_months,
        "last_date": standing.last,
        "ending": standing.ending,
        "notice_date": state.notice_date or None,
        "terminate_date": state.terminate_date or None,
        "renews": state.renews or None,
        "renewed_by": state.renewed_by or None,
        "next_reminder_date": None if reminder is None else reminder.due_date,
        "last_reminder_date": state.last_reminder and state.last_reminder.due_date,
    }
    return tuple(found[name] for name in _STATE_COLUMNS)


CONTRACT_ROWS = CONTRACTS_TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)
CONTRACT_VERSIONS = AggregateVersions(CONTRACT_ROWS, CONTRACTS_TABLE)


class ContractsView:
    """Keeps the rows and their versions."""

    name = "contracts"
    shape = 1

    def tables(self, schema: str) -> str:
        return (_TABLES + CONTRACT_VERSIONS.tables()).format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        if own := CONTRACT_ROWS.own(events):
            versions = await CONTRACT_ROWS.fold(tx, schema, own)
            await CONTRACT_VERSIONS.add(tx, schema, versions)


DueKey: TypeAlias = tuple[str, str, str]
"""The day a reminder is due, the workspace, the contract's id: the order they are taken in."""

FIRST_DUE: DueKey = ("", "", "")


async def due_contracts(pool: Pool, today: date, after: DueKey, limit: int) -> list[DueKey]:
    """Returns contracts of which somebody is to be reminded today or was to be before."""
    rows = await pool.fetch(_DUE, today.isoformat(), *after, limit)
    return [(row["next_reminder_date"], row["workspace"], row["contract_id"]) for row in rows]


async def read_rows(tx: Tx, keys: Sequence[DueKey]) -> list[Row]:
    """Returns the rows of contracts."""
    found = await tx.fetch(
        CONTRACTS_TABLE.several.format(schema=ContractsView.name),
        [key[1] for key in keys],
        [key[2] for key in keys],
    )
    return [CONTRACT_ROWS.row(record) for record in found]
