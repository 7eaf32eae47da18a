"""The view `transformations`: what is changed in customer events on the way in.

It is read at once: one that was enabled is in force at the doors a moment later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.events.v1.events_pb2 import TransformationSettings
from rapport.events.v1.transformations_pb2 import (
    ListTransformationsResponse,
    Transformation,
    TransformationState,
)
from services.events.deciders.transformation import DECIDER, State
from services.events.transforming import Transformations, in_order
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpg import Pool

    from rapport.events.v1.transformations_pb2 import ListTransformationsRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_ENABLED = TransformationState.TRANSFORMATION_STATE_ENABLED
_DISABLED = TransformationState.TRANSFORMATION_STATE_DISABLED

_TABLES = """
create table {schema}.transformations (
    workspace text not null,
    transformation_id text collate "C" not null,
    display_name text collate "C" not null,
    settings bytea not null,
    rank int not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, transformation_id)
);
create index transformations_by_create_time
    on {schema}.transformations (workspace, create_time, transformation_id);
create index transformations_by_update_position
    on {schema}.transformations (workspace, update_position);
"""

_COLUMNS = """transformation_id, display_name, settings, rank, state, version, partition,
    create_position, update_position, create_time, update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.transformations
join unnest($1::text[], $2::text[]) as asked (workspace, transformation_id)
    using (workspace, transformation_id)
"""

_SAVE = f"""
insert into {{schema}}.transformations (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::bytea[], $5::int[], $6::int[],
    $7::bigint[], $8::int[], $9::bigint[], $10::bigint[], $11::timestamptz[], $12::timestamptz[]
)
on conflict (workspace, transformation_id) do update set
    display_name = excluded.display_name, settings = excluded.settings, rank = excluded.rank,
    state = excluded.state, version = excluded.version,
    update_position = excluded.update_position, update_time = excluded.update_time
"""

_ONE = f"""
select workspace, {_COLUMNS} from transformations.transformations
where workspace = $1 and transformation_id = $2
"""

_IN_FORCE = f"""
select transformation_id, settings from transformations.transformations
where workspace = $1 and state = {_ENABLED}
"""

_COUNT = "select count(*) from transformations.transformations where workspace = $1"

_STATES = {
    "ENABLED": _ENABLED,
    "DISABLED": _DISABLED,
    "TRANSFORMATION_STATE_ENABLED": _ENABLED,
    "TRANSFORMATION_STATE_DISABLED": _DISABLED,
}

TRANSFORMATIONS = Listing(
    method="ListTransformations",
    table=Table(
        "transformations.transformations",
        key="transformation_id",
        positions=Positions(partition="partition"),
    ),
    columns=f"workspace, {_COLUMNS}",
    fields=Fields(
        {
            "display_name": Field("display_name", Kind.TEXT, sortable=True, nullable=False),
            "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
            "rank": Field("rank", Kind.INTEGER, sortable=True, nullable=False),
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
        exists=True,
        display_name=record["display_name"],
        settings=record["settings"],
        rank=record["rank"],
        is_enabled=record["state"] == _ENABLED,
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return state.display_name, state.settings, state.rank, state_of(state)


TRANSFORMATION_ROWS = AggregateRows(
    DECIDER,
    key="transformation_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class TransformationsView:
    """Keeps transformations."""

    name = "transformations"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of transformations."""
        own = TRANSFORMATION_ROWS.own(events)
        if own:
            await TRANSFORMATION_ROWS.fold(tx, schema, own)


async def load_transformations(
    connection: Tx | Pool, workspace: str, *, hash_key: bytes
) -> Transformations:
    """The enabled transformations of a workspace, in order."""
    rows = await connection.fetch(_IN_FORCE, workspace)
    named = [
        (
            DECIDER.name(row["transformation_id"]),
            TransformationSettings.FromString(row["settings"]),
        )
        for row in rows
    ]
    return in_order(named, hash_key=hash_key)


def hash_key_of(derive_key: Callable[[str], bytes], workspace: str) -> bytes:
    """What values of a workspace are hashed with: the same for ever, and another's in another."""
    return derive_key(f"transformations/{workspace}")


async def count_transformations(pool: Pool, workspace: str) -> int:
    """How many transformations a workspace has."""
    return int(await pool.fetchval(_COUNT, workspace))


async def list_transformations(
    pool: Pool, workspace: str, request: ListTransformationsRequest
) -> ListTransformationsResponse:
    """Returns a page of transformations, disabled ones too."""
    rows, next_page_token = await TRANSFORMATION_ROWS.page(
        pool, TRANSFORMATIONS, workspace, request
    )
    return ListTransformationsResponse(
        transformations=[transformation_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


def transformation_of(transformation_id: str, known: Row | Decided[State]) -> Transformation:
    """Returns a transformation as the API shows it."""
    return Transformation(
        name=DECIDER.name(transformation_id),
        display_name=known.state.display_name,
        settings=TransformationSettings.FromString(known.state.settings),
        state=state_of(known.state),
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def state_of(state: State) -> TransformationState.ValueType:
    """Returns what the API calls the state of a transformation that exists."""
    return _ENABLED if state.is_enabled else _DISABLED
