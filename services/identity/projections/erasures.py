"""The view `erasures`: a row per erasure as its events leave it; and, beside it, what it is at.

It is read at once. What a running system is at is no fact: it is said by the table `at_work`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from asyncpg import Pool

from rapport.common.v1.subjects_pb2 import ErasedCount
from rapport.identity.v1.erasure_state_pb2 import (
    ERASURE_STATE_INITIALIZED,
    ERASURE_STATE_RUNNING,
    ErasureState,
)
from rapport.identity.v1.erasures_pb2 import (
    Erasure,
    ListErasuresRequest,
    ListErasuresResponse,
    SystemErasure,
)
from services.identity.deciders.erasure import DECIDER, State
from services.identity.projections.erasure_work import AtWork, read_work
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.log.sql import Tx
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable

VIEW = "erasures"

ERASURES_TABLE = AggregateTable(
    VIEW, "erasures", "erasure_id", {"folded": "bytea", "state": "int", "suppress": "boolean"}
)
_COLUMNS = ERASURES_TABLE.columns

_TABLES = """
create table {schema}.erasures (
    workspace text not null,
    erasure_id text collate "C" not null,
    folded bytea not null,
    state int not null,
    suppress boolean not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, erasure_id)
);
create index erasures_by_create_time
    on {schema}.erasures (workspace, create_time, erasure_id);
create index erasures_by_update_position
    on {schema}.erasures (workspace, update_position);
create index erasures_open
    on {schema}.erasures (create_time, workspace, erasure_id) where state in (1, 2);
"""

_OPEN = f"""
select workspace, {_COLUMNS} from erasures.erasures where state in (1, 2)
order by create_time, workspace, erasure_id limit $1
"""

_OF_WORKSPACE = f"""
select workspace, {_COLUMNS} from erasures.erasures where workspace = $1 order by erasure_id
"""

_WORKSPACES = "select distinct workspace from erasures.erasures order by workspace"

# From one to the next along the key, whatever the number of nodes.
_ALL_WORKSPACES = """
with recursive known (workspace) as (
    (select workspace from profiles.nodes order by workspace limit 1)
    union all
    select (select n.workspace from profiles.nodes n where n.workspace > known.workspace
            order by n.workspace limit 1)
    from known where known.workspace is not null
)
select workspace from known where workspace is not null
union select workspace from erasures.erasures order by workspace
"""

_STATES = {name.removeprefix("ERASURE_STATE_"): value for name, value in ErasureState.items()}

ERASURES = Listing(
    method="ListErasures",
    table=Table("erasures.erasures", key="erasure_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_COLUMNS}",
    fields=Fields(
        {
            "state": Field(
                "state", Kind.ENUM, values=_STATES | dict(ErasureState.items()), nullable=False
            ),
            "suppress": Field("suppress", Kind.BOOLEAN, nullable=False),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        }
    ),
    default_order="create_time",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return msgspec.msgpack.decode(record["folded"], type=State)


def _state_columns(row: Row) -> tuple[object, ...]:
    return msgspec.msgpack.encode(row.state), row.state.state, row.state.suppresses


ERASURE_ROWS = ERASURES_TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)


class ErasuresView:
    """Keeps erasures."""

    name = VIEW
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of erasures."""
        own = ERASURE_ROWS.own(events)
        if own:
            await ERASURE_ROWS.fold(tx, schema, own)


async def open_erasures(pool: Pool, limit: int) -> list[Row]:
    """Erasures in which there is something to do, the oldest first."""
    return [ERASURE_ROWS.row(record) for record in await pool.fetch(_OPEN, limit)]


async def erasures_of(pool: Pool, workspace: str) -> list[Row]:
    """All erasures of a workspace, in the order of their ids."""
    return [ERASURE_ROWS.row(record) for record in await pool.fetch(_OF_WORKSPACE, workspace)]


async def workspaces_to_compare(pool: Pool, *, everywhere: bool) -> list[str]:
    """The workspaces in which somebody was erased; `everywhere`, also those that know anybody."""
    statement = _ALL_WORKSPACES if everywhere else _WORKSPACES
    return [record["workspace"] for record in await pool.fetch(statement)]


async def list_erasures(
    pool: Pool, workspace: str, request: ListErasuresRequest
) -> ListErasuresResponse:
    """Returns a page of erasures."""
    rows, next_page_token = await ERASURE_ROWS.page(pool, ERASURES, workspace, request)
    at_work = await read_work(pool, workspace, [row.aggregate_id for row in rows])
    return ListErasuresResponse(
        erasures=[
            erasure_of(row.aggregate_id, row, at_work.get(row.aggregate_id, {})) for row in rows
        ],
        next_page_token=next_page_token,
    )


async def get_erasure(pool: Pool, workspace: str, name: str) -> Erasure:
    """Returns an erasure; raises NotFound."""
    row = await ERASURE_ROWS.existing(pool, workspace, name)
    at_work = await read_work(pool, workspace, [row.aggregate_id])
    return erasure_of(row.aggregate_id, row, at_work.get(row.aggregate_id, {}))


def erasure_of(
    erasure_id: str, known: Row | Decided[State], at_work: Mapping[str, AtWork]
) -> Erasure:
    """Returns an erasure as the API shows it; `at_work` is what its systems are at."""
    state = known.state
    systems = [_system_of(state, name, at_work.get(name)) for name in state.systems]
    begun = any(system.state == ERASURE_STATE_RUNNING for system in systems)
    whole = state.state
    return Erasure(
        name=DECIDER.name(erasure_id),
        state=ERASURE_STATE_RUNNING if whole == ERASURE_STATE_INITIALIZED and begun else whole,
        systems=systems,
        identifier_count=len(state.subjects),
        suppress=state.suppresses,
        anonymise=state.anonymises,
        until_time=state.fact_key().receive_time,
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
        etag=etag_of(known.version),
    )


def _system_of(state: State, name: str, at_work: AtWork | None) -> SystemErasure:
    system = state.systems[name]
    if name in state.open_systems and at_work is not None:
        return SystemErasure(
            system=name,
            state=ERASURE_STATE_RUNNING,
            stage=at_work.stage,
            counts=_counts(at_work.counts.items()),
            problem=at_work.problem,
        )
    return SystemErasure(
        system=name,
        state=ErasureState.ValueType(system.state),
        counts=_counts(system.counts),
        problem=system.problem,
        notes=system.notes,
    )


def _counts(counts: Any) -> list[ErasedCount]:
    return [ErasedCount(system=name, count=count) for name, count in sorted(counts)]
