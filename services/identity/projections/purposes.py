"""The view `purposes`: what consent is asked for, archived or not. It is read at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeAlias

from asyncpg import Pool
from google.protobuf.duration_pb2 import Duration

from rapport.identity.v1 import consents_pb2 as pb
from services.identity.consents import Purpose
from services.identity.deciders.purpose import DECIDER, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.errors import FailedPrecondition, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.log.sql import Tx
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable

_TABLES = """
create table {schema}.purposes (
    workspace text not null,
    purpose_id text collate "C" not null,
    display_name text collate "C" not null,
    description text not null,
    lawful_basis int not null,
    categories jsonb not null,
    expire_after_s bigint not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, purpose_id)
);
"""

_TABLE = AggregateTable(
    "purposes",
    "purposes",
    "purpose_id",
    {
        "display_name": "text",
        "description": "text",
        "lawful_basis": "int",
        "categories": "jsonb",
        "expire_after_s": "bigint",
        "state": "int",
    },
)

_ALL = f"""
select workspace, {_TABLE.columns} from purposes.purposes where workspace = $1 order by purpose_id
"""

_COUNT = "select count(*) from purposes.purposes where workspace = $1"

_ARCHIVED = pb.PurposeState.PURPOSE_STATE_ARCHIVED
_STATES = {
    known: number
    for name, number in pb.PurposeState.items()
    for known in (name, name.removeprefix("PURPOSE_STATE_"))
}
_BASES = {
    known: number
    for name, number in pb.LawfulBasis.items()
    for known in (name, name.removeprefix("LAWFUL_BASIS_"))
}

PURPOSES = Listing(
    method="ListPurposes",
    table=Table("purposes.purposes", key="purpose_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_TABLE.columns}",
    fields=Fields(
        {
            "display_name": Field("display_name", Kind.TEXT, sortable=True, nullable=False),
            "lawful_basis": Field("lawful_basis", Kind.ENUM, values=_BASES, nullable=False),
            "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
        }
    ),
    default_order="create_time",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        exists=True,
        display_name=record["display_name"],
        description=record["description"],
        lawful_basis=record["lawful_basis"],
        categories=tuple(json.loads(record["categories"])),
        expire_after_s=record["expire_after_s"],
        is_archived=record["state"] == _ARCHIVED,
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return (
        state.display_name,
        state.description,
        state.lawful_basis,
        json.dumps(state.categories),
        state.expire_after_s,
        _state_of(state),
    )


PURPOSE_ROWS = _TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)


class PurposesView:
    """Keeps purposes."""

    name = "purposes"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        own = PURPOSE_ROWS.own(events)
        if own:
            await PURPOSE_ROWS.fold(tx, schema, own)


async def load_purposes(connection: Tx | Pool, workspace: str) -> list[Purpose]:
    """Loads what consent is asked for in a workspace, archived or not."""
    return [purpose_in(row) for row in await load_rows(connection, workspace)]


async def load_rows(connection: Tx | Pool, workspace: str) -> list[Row]:
    """Loads all purposes of a workspace, by id."""
    return [PURPOSE_ROWS.row(record) for record in await connection.fetch(_ALL, workspace)]


async def active_purpose(connection: Tx | Pool, workspace: str, name: str) -> Purpose:
    """Returns the purpose of a name; raises FailedPrecondition when it is archived."""
    purpose_id = DECIDER.aggregate_id(name, "purpose")
    record = await connection.fetchrow(_TABLE.one, workspace, purpose_id)
    if record is None:
        raise NotFound(name)
    row = PURPOSE_ROWS.row(record)
    if row.state.is_archived:
        raise FailedPrecondition(f"{name} is archived", resource=name, state="ARCHIVED")
    return purpose_in(row)


async def count_purposes(pool: Pool, workspace: str) -> int:
    """Returns how many purposes a workspace has."""
    found: int = await pool.fetchval(_COUNT, workspace)
    return found


async def list_purposes(
    pool: Pool, workspace: str, request: pb.ListPurposesRequest
) -> pb.ListPurposesResponse:
    """Returns a page of purposes."""
    rows, next_page_token = await PURPOSE_ROWS.page(pool, PURPOSES, workspace, request)
    return pb.ListPurposesResponse(
        purposes=[purpose_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


def purpose_in(row: Row) -> Purpose:
    """Returns the purpose that a row holds."""
    state = row.state
    return Purpose(
        purpose_id=row.aggregate_id,
        categories=frozenset(state.categories),
        create_time=row.create_time,
        expire_after=timedelta(seconds=state.expire_after_s) if state.expire_after_s else None,
        basis=state.lawful_basis,
    )


def purpose_of(purpose_id: str, known: Row | Decided[State]) -> pb.Purpose:
    """Returns a purpose as the API shows it."""
    state = known.state
    purpose = pb.Purpose(
        name=DECIDER.name(purpose_id),
        display_name=state.display_name,
        description=state.description,
        lawful_basis=pb.LawfulBasis.ValueType(state.lawful_basis),
        categories=state.categories,
        state=_state_of(state),
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
    if state.expire_after_s:
        purpose.expire_after.CopyFrom(Duration(seconds=state.expire_after_s))
    return purpose


def _state_of(state: State) -> pb.PurposeState.ValueType:
    return _ARCHIVED if state.is_archived else pb.PurposeState.PURPOSE_STATE_ACTIVE
