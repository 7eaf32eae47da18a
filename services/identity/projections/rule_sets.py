"""The view `rule_sets`: which rules people wrote down, and which of them are in force.

It is read at once, and it says by which rules every generation of `profiles` is folded: so a
rebuild follows those in force, however long ago they were put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.identity.v1.events_pb2 import ProfileShift, ResolutionRules
from rapport.identity.v1.rule_sets_pb2 import (
    ListRuleSetsRequest,
    ListRuleSetsResponse,
    RuleSet,
    RuleSetState,
)
from services.identity.deciders.rule_set import DECIDER, PUBLISHED, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable

if TYPE_CHECKING:
    from asyncpg import Pool

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

IN_FORCE = "ruleSets/inForce"

_TABLES = f"""
create table {{schema}}.rule_sets (
    workspace text not null,
    rule_set_id text collate "C" not null,
    display_name text collate "C" not null,
    rules bytea not null,
    state int not null,
    shift bytea not null,
    failure text not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, rule_set_id)
);
create index rule_sets_by_create_time
    on {{schema}}.rule_sets (workspace, create_time, rule_set_id);
create index rule_sets_by_update_position on {{schema}}.rule_sets (workspace, update_position);
create index rule_sets_in_force
    on {{schema}}.rule_sets (workspace) where state = {PUBLISHED};
"""

_TABLE = AggregateTable(
    view="rule_sets",
    name="rule_sets",
    key="rule_set_id",
    state_types={
        "display_name": "text",
        "rules": "bytea",
        "state": "int",
        "shift": "bytea",
        "failure": "text",
    },
)

_PUBLISHED = f"""
select workspace, {_TABLE.columns} from rule_sets.rule_sets
where workspace = $1 and state = {PUBLISHED}
"""

_COUNT = "select count(*) from rule_sets.rule_sets where workspace = $1"

_STATES = enum_values(RuleSetState)

RULE_SETS = Listing(
    method="ListRuleSets",
    table=Table(
        "rule_sets.rule_sets", key="rule_set_id", positions=Positions(partition="partition")
    ),
    columns=f"workspace, {_TABLE.columns}",
    fields=Fields(
        {
            "display_name": Field("display_name", Kind.TEXT, sortable=True, nullable=False),
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


def _state_in(record: Any) -> State:
    return State(
        state=record["state"],
        display_name=record["display_name"],
        rules=record["rules"],
        shift=record["shift"],
        failure=record["failure"],
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return state.display_name, state.rules, state.state, state.shift, state.failure


RULE_SET_ROWS = _TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)


class RuleSetsView:
    """Keeps rule sets."""

    name = "rule_sets"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of rule sets."""
        own = RULE_SET_ROWS.own(events)
        if own:
            await RULE_SET_ROWS.fold(tx, schema, own)


async def rule_set_in_force(connection: Tx | Pool, workspace: str) -> Row | None:
    """Returns the rule set that is in force, if one was ever published."""
    record = await connection.fetchrow(_PUBLISHED, workspace)
    return None if record is None else RULE_SET_ROWS.row(record)


async def count_rule_sets(pool: Pool, workspace: str) -> int:
    """How many rule sets a workspace has."""
    return int(await pool.fetchval(_COUNT, workspace))


async def list_rule_sets(
    pool: Pool, workspace: str, request: ListRuleSetsRequest
) -> ListRuleSetsResponse:
    """Returns a page of rule sets, discarded ones too."""
    rows, next_page_token = await RULE_SET_ROWS.page(pool, RULE_SETS, workspace, request)
    return ListRuleSetsResponse(
        rule_sets=[rule_set_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


def rule_set_of(rule_set_id: str, known: Row | Decided[State]) -> RuleSet:
    """Returns a rule set as the API shows it."""
    state = known.state
    return RuleSet(
        name=DECIDER.name(rule_set_id),
        display_name=state.display_name,
        rules=ResolutionRules.FromString(state.rules),
        state=RuleSetState.ValueType(state.state),
        shift=ProfileShift.FromString(state.shift) if state.shift else None,
        failure=state.failure,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
