"""The view `imports`: what each import is told and how far it is. It is read at once.

How many rows were read is no fact but progress, which is kept beside the log (`importing.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.duration_pb2 import Duration

from rapport.events.v1.import_job_pb2 import ImportFormat, ImportKind, ImportMapping
from rapport.events.v1.imports_pb2 import (
    Import,
    ImportProgress,
    ImportState,
    ListImportsResponse,
)
from services.events.deciders.import_job import AT_WORK, DECIDER, OPEN, UPLOADING, State
from services.events.projections.importing import Progress, Progresses, Work, read_progress
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool

    from rapport.events.v1.imports_pb2 import ListImportsRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TABLES = f"""
create table {{schema}}.imports (
    workspace text not null,
    import_id text collate "C" not null,
    display_name text collate "C" not null,
    kind int not null,
    source text collate "C",
    format bytea not null,
    mapping bytea not null,
    state int not null,
    size_bytes bigint not null,
    sha256 bytea not null,
    attempt int not null,
    reason text not null,
    detail text not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, import_id)
);
create index imports_by_create_time on {{schema}}.imports (workspace, create_time, import_id);
create index imports_by_update_position on {{schema}}.imports (workspace, update_position);
create index imports_at_work on {{schema}}.imports (update_time) where state in {AT_WORK};
"""

_COLUMNS = """import_id, display_name, kind, source, format, mapping, state, size_bytes, sha256,
    attempt, reason, detail, version, partition, create_position, update_position, create_time,
    update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.imports
join unnest($1::text[], $2::text[]) as asked (workspace, import_id) using (workspace, import_id)
"""

_SAVE = f"""
insert into {{schema}}.imports (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::bytea[], $7::bytea[], $8::int[],
    $9::bigint[], $10::bytea[], $11::int[], $12::text[], $13::text[], $14::bigint[], $15::int[],
    $16::bigint[], $17::bigint[], $18::timestamptz[], $19::timestamptz[]
)
on conflict (workspace, import_id) do update set
    mapping = excluded.mapping, state = excluded.state, size_bytes = excluded.size_bytes,
    sha256 = excluded.sha256, attempt = excluded.attempt, reason = excluded.reason,
    detail = excluded.detail, version = excluded.version,
    update_position = excluded.update_position, update_time = excluded.update_time
"""

_ONE = f"select workspace, {_COLUMNS} from imports.imports where workspace = $1 and import_id = $2"

_COUNT_OPEN = f"""
select count(*) from imports.imports where workspace = $1 and state in {OPEN}
"""

_KEPT_FILES = f"""
select import_id from imports.imports i where workspace = $1 and state in {OPEN} and exists (
    select from importing.chunks c where (c.workspace, c.import_id) = (i.workspace, i.import_id)
)
order by import_id
"""

_STATES = enum_values(ImportState)

_KINDS = enum_values(ImportKind)

IMPORTS = Listing(
    method="ListImports",
    table=Table("imports.imports", key="import_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_COLUMNS}",
    fields=Fields(
        {
            "display_name": Field(
                "display_name", Kind.TEXT, sortable=True, immutable=True, nullable=False
            ),
            "kind": Field("kind", Kind.ENUM, values=_KINDS, nullable=False),
            "source": Field("source", Kind.TEXT, sortable=True, immutable=True),
            "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        },
        searched=("display_name",),
    ),
    default_order="create_time desc",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        exists=True,
        display_name=record["display_name"],
        kind=record["kind"],
        source=record["source"] or "",
        format=record["format"],
        mapping=record["mapping"],
        state=record["state"],
        size_bytes=record["size_bytes"],
        sha256=record["sha256"],
        attempt=record["attempt"],
        reason=record["reason"],
        detail=record["detail"],
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return (
        state.display_name,
        state.kind,
        state.source or None,
        state.format,
        state.mapping,
        state.state,
        state.size_bytes,
        state.sha256,
        state.attempt,
        state.reason,
        state.detail,
    )


IMPORT_ROWS = AggregateRows(
    DECIDER,
    key="import_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class ImportsView:
    """Keeps imports, those that ended too."""

    name = "imports"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of imports."""
        own = IMPORT_ROWS.own(events)
        if own:
            await IMPORT_ROWS.fold(tx, schema, own)


async def count_open(pool: Pool, workspace: str) -> int:
    """How many imports of a workspace have a file that is still needed."""
    count: int = await pool.fetchval(_COUNT_OPEN, workspace)
    return count


async def kept_files(pool: Pool, workspace: str) -> list[str]:
    """The imports of which something of the file is kept that is still needed."""
    return [row["import_id"] for row in await pool.fetch(_KEPT_FILES, workspace)]


async def list_imports(
    pool: Pool, workspace: str, request: ListImportsRequest
) -> ListImportsResponse:
    """Returns a page of imports, each with its progress."""
    rows, next_page_token = await IMPORT_ROWS.page(pool, IMPORTS, workspace, request)
    progress = await read_progress(pool, workspace, [row.aggregate_id for row in rows])
    return ListImportsResponse(
        imports=[
            import_of(row.aggregate_id, row, progress.get(row.aggregate_id, Progresses()))
            for row in rows
        ],
        next_page_token=next_page_token,
    )


def import_of(import_id: str, known: Row | Decided[State], progress: Progresses) -> Import:
    """Returns an import as the API shows it."""
    state = known.state
    shown = Import(
        name=DECIDER.name(import_id),
        display_name=state.display_name,
        kind=ImportKind.ValueType(state.kind),
        source=state.source,
        format=ImportFormat.FromString(state.format),
        state=ImportState.ValueType(state.state),
        uploaded_bytes=progress.uploaded_bytes if state.state == UPLOADING else state.size_bytes,
        size_bytes=state.size_bytes,
        sha256=state.sha256,
        reason=state.reason,
        detail=state.detail,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
    if state.mapping:
        shown.mapping.CopyFrom(ImportMapping.FromString(state.mapping))
    for work, field in ((Work.CHECK, shown.check), (Work.RECORD, shown.progress)):
        if (found := progress.by_work.get(work)) is not None:
            field.CopyFrom(progress_of(found, state.size_bytes))
    if (undone := progress.by_work.get(Work.UNDO)) is not None:
        shown.retracted = undone.retracted
    return shown


def progress_of(progress: Progress, size_bytes: int) -> ImportProgress:
    """Returns progress as the API shows it, with how fast it is and how long it will take."""
    counts, busy_s, left = progress.counts, progress.busy_s, size_bytes - progress.read_bytes
    shown = ImportProgress(
        counts=counts,
        read_bytes=progress.read_bytes,
        rows_per_s=counts.rows / busy_s if busy_s > 0 else 0.0,
    )
    if progress.read_bytes and left > 0 and not progress.is_over:
        remaining = Duration()
        remaining.FromMilliseconds(round(busy_s * left / progress.read_bytes * 1000))
        shown.remaining_time.CopyFrom(remaining)
    return shown
