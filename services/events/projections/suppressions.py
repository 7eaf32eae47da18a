"""The view `suppressions`: which identifiers are refused, known by keyed hashes only.

It is read at once: a suppression holds for every call that begins after it was answered, but for
the first of a workspace, which is noticed with the rules of its doors (`doors.RULES_AGE_S_MAX`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.events.v1.suppressions_pb2 import ListSuppressionsResponse, Suppression
from services.events.deciders.suppression import DECIDER, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from asyncpg import Pool

    from rapport.events.v1.suppressions_pb2 import ListSuppressionsRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TABLES = """
create table {schema}.suppressions (
    workspace text not null,
    suppression_id text collate "C" not null,
    type text collate "C" not null,
    is_suppressed boolean not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, suppression_id)
);
create index suppressions_by_create_time
    on {schema}.suppressions (workspace, create_time, suppression_id);
create index suppressions_by_update_position
    on {schema}.suppressions (workspace, update_position);
"""

_COLUMNS = """suppression_id, type, is_suppressed, version, partition, create_position,
    update_position, create_time, update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.suppressions
join unnest($1::text[], $2::text[]) as asked (workspace, suppression_id)
    using (workspace, suppression_id)
"""

_SAVE = f"""
insert into {{schema}}.suppressions (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::bool[], $5::bigint[], $6::int[], $7::bigint[],
    $8::bigint[], $9::timestamptz[], $10::timestamptz[]
)
on conflict (workspace, suppression_id) do update set
    type = excluded.type, is_suppressed = excluded.is_suppressed, version = excluded.version,
    update_position = excluded.update_position, update_time = excluded.update_time
"""

_ONE = f"""
select workspace, {_COLUMNS} from suppressions.suppressions
where workspace = $1 and suppression_id = $2
"""

_AMONG = """
select suppression_id from suppressions.suppressions
where workspace = $1 and suppression_id = any($2::text[]) and is_suppressed
"""

SUPPRESSIONS = Listing(
    method="ListSuppressions",
    table=Table(
        "suppressions.suppressions",
        key="suppression_id",
        positions=Positions(partition="partition"),
    ),
    columns=f"workspace, {_COLUMNS}",
    fields=Fields(
        {
            "type": Field("type", Kind.TEXT, sortable=True, immutable=True, nullable=False),
            "is_suppressed": Field("is_suppressed", Kind.BOOLEAN, nullable=False),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
        }
    ),
    default_order="create_time",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(type=record["type"], is_suppressed=record["is_suppressed"])


def _state_columns(row: Row) -> tuple[object, ...]:
    return row.state.type, row.state.is_suppressed


SUPPRESSION_ROWS = AggregateRows(
    DECIDER,
    key="suppression_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class SuppressionsView:
    """Keeps suppressions, those taken back too."""

    name = "suppressions"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of suppressions."""
        own = SUPPRESSION_ROWS.own(events)
        if own:
            await SUPPRESSION_ROWS.fold(tx, schema, own)


def suppression_key(derive_key: Callable[[str], bytes], workspace: str) -> bytes:
    """The key under which a workspace's suppressed identifiers are hashed."""
    return derive_key(f"suppressions/{workspace}")


async def suppressed_among(
    pool: Pool, workspace: str, suppression_ids: Collection[str]
) -> set[str]:
    """Which of the suppressions that would concern a batch are in force."""
    rows = await pool.fetch(_AMONG, workspace, sorted(suppression_ids))
    return {row["suppression_id"] for row in rows}


async def list_suppressions(
    pool: Pool, workspace: str, request: ListSuppressionsRequest
) -> ListSuppressionsResponse:
    """Returns a page of suppressions, those taken back too."""
    rows, next_page_token = await SUPPRESSION_ROWS.page(pool, SUPPRESSIONS, workspace, request)
    return ListSuppressionsResponse(
        suppressions=[suppression_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


def suppression_of(suppression_id: str, known: Row | Decided[State]) -> Suppression:
    """Returns a suppression as the API shows it."""
    return Suppression(
        name=DECIDER.name(suppression_id),
        type=known.state.type,
        is_suppressed=known.state.is_suppressed,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
