"""The view `retention_rules`: for how long customer events are kept. It is read at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.common.v1.subjects_pb2 import ERASURE_STAGE_FINISHED
from rapport.events.v1.events_pb2 import RetentionSettings
from rapport.events.v1.retention_pb2 import (
    ListRetentionRulesResponse,
    RetentionRule,
    RetentionRuleState,
)
from services.events.deciders.retention_rule import DECIDER, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from asyncpg import Pool

    from rapport.events.v1.retention_pb2 import ListRetentionRulesRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

COUNTED_MAX = 100_000
"""As many are counted when somebody asks how many would go."""

_ENABLED = RetentionRuleState.RETENTION_RULE_STATE_ENABLED
_DISABLED = RetentionRuleState.RETENTION_RULE_STATE_DISABLED

_TABLES = """
create table {schema}.retention_rules (
    workspace text not null,
    retention_rule_id text collate "C" not null,
    display_name text collate "C" not null,
    settings bytea not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, retention_rule_id)
);
create index retention_rules_by_create_time
    on {schema}.retention_rules (workspace, create_time, retention_rule_id);
create index retention_rules_by_update_position
    on {schema}.retention_rules (workspace, update_position);
"""

_TABLE = AggregateTable(
    "retention_rules",
    "retention_rules",
    "retention_rule_id",
    {"display_name": "text", "settings": "bytea", "state": "int"},
)

_COUNT = "select count(*) from retention_rules.retention_rules where workspace = $1"

_ENABLED_RULES = f"""
select workspace, retention_rule_id, settings from retention_rules.retention_rules
where state = {_ENABLED} order by workspace, retention_rule_id
"""

_HALTED_RULES = f"""
select workspace, retention_rule_id, settings from retention_rules.retention_rules r
where state = {_DISABLED} and exists (
    select from kernel.erasures e
    where e.workspace = r.workspace and e.stage <> {ERASURE_STAGE_FINISHED}
        and starts_with(e.erasure, '{DECIDER.collection}/' || r.retention_rule_id || '@')
)
order by workspace, retention_rule_id
"""

# An erasure by age is named for its rule and when it began; `A` comes next to `@`.
_TAKEN = """
select name as rule, sum((e.counts ->> $3)::bigint)::bigint as taken
from unnest($2::text[]) name
join kernel.erasures e
    on e.workspace = $1 and e.erasure >= name || '@' and e.erasure < name || 'A'
group by 1
"""

_WOULD_GO = """
select count(*) from (
    select from customer_events.customer_events
    where workspace = $1 and receive_time < $2 and ($3 = '' or source = $3)
        and ($4 = 0 or type = $4) and ($5 = '' or name = $5)
        and not ($6 and starts_with(message_id, $7))
    limit $8
) old
"""

_STATES = enum_values(RetentionRuleState)

RETENTION_RULES = Listing(
    method="ListRetentionRules",
    table=Table(
        "retention_rules.retention_rules",
        key="retention_rule_id",
        positions=Positions(partition="partition"),
    ),
    columns=f"workspace, {_TABLE.columns}",
    fields=Fields(
        {
            "display_name": Field(
                "display_name", Kind.TEXT, sortable=True, immutable=True, nullable=False
            ),
            "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        },
        searched=("display_name",),
    ),
    default_order="create_time",
)

Row: TypeAlias = AggregateRow[State]
Applied: TypeAlias = tuple[str, str, RetentionSettings]


def _state_in(record: Any) -> State:
    return State(
        exists=True,
        display_name=record["display_name"],
        settings=record["settings"],
        is_enabled=record["state"] == _ENABLED,
    )


RETENTION_RULE_ROWS = _TABLE.rows(
    DECIDER,
    state_of=_state_in,
    state_columns=lambda row: (row.state.display_name, row.state.settings, _state_of(row.state)),
)


class RetentionRulesView:
    """Keeps rules of retention, disabled ones too."""

    name = "retention_rules"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of rules."""
        own = RETENTION_RULE_ROWS.own(events)
        if own:
            await RETENTION_RULE_ROWS.fold(tx, schema, own)


async def count_rules(pool: Pool, workspace: str) -> int:
    """How many rules a workspace has."""
    return int(await pool.fetchval(_COUNT, workspace))


async def enabled_rules(pool: Pool) -> list[Applied]:
    """The rules in force of all workspaces: workspace, name and settings."""
    return [_applied(row) for row in await pool.fetch(_ENABLED_RULES)]


async def halted_rules(pool: Pool) -> list[Applied]:
    """The rules of all workspaces that were disabled while they took something."""
    return [_applied(row) for row in await pool.fetch(_HALTED_RULES)]


def _applied(row: Any) -> Applied:
    name = DECIDER.name(row["retention_rule_id"])
    return row["workspace"], name, RetentionSettings.FromString(row["settings"])


async def count_old(
    pool: Pool, workspace: str, settings: RetentionSettings, until: datetime, nobodys: str
) -> int:
    """How many recorded customer events a rule would take; at most COUNTED_MAX are counted.

    `nobodys` is how message ids begin of which nothing would go; empty when all would.
    """
    count: int = await pool.fetchval(
        _WOULD_GO,
        workspace,
        until,
        settings.source,
        settings.type,
        settings.event_name,
        bool(nobodys),
        nobodys,
        COUNTED_MAX,
    )
    return count


async def taken(pool: Pool, workspace: str, names: Sequence[str], system: str) -> Mapping[str, int]:
    """How many messages each rule has taken until now."""
    rows = await pool.fetch(_TAKEN, workspace, names, system)
    return {row["rule"]: row["taken"] or 0 for row in rows}


async def list_rules(
    pool: Pool, workspace: str, request: ListRetentionRulesRequest, system: str
) -> ListRetentionRulesResponse:
    """Returns a page of rules."""
    rows, next_page_token = await RETENTION_RULE_ROWS.page(
        pool, RETENTION_RULES, workspace, request
    )
    names = [DECIDER.name(row.aggregate_id) for row in rows]
    counts = await taken(pool, workspace, names, system)
    return ListRetentionRulesResponse(
        retention_rules=[
            rule_of(row.aggregate_id, row, counts.get(name, 0))
            for row, name in zip(rows, names, strict=True)
        ],
        next_page_token=next_page_token,
    )


def rule_of(rule_id: str, known: Row | Decided[State], taken_count: int) -> RetentionRule:
    """Returns a rule as the API shows it."""
    return RetentionRule(
        name=DECIDER.name(rule_id),
        display_name=known.state.display_name,
        settings=RetentionSettings.FromString(known.state.settings),
        state=_state_of(known.state),
        taken_count=taken_count,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def _state_of(state: State) -> RetentionRuleState.ValueType:
    return _ENABLED if state.is_enabled else _DISABLED
