"""The view `sources`: sources, their write keys, and whose a write key is.

It is read at once: a source may send as soon as its creation was answered. A write key that
expired keeps its row; it is only believed no longer.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.events.v1.events_pb2 import (
    SourceCreated,
    SourceSettings,
    SourceWriteKeyRevoked,
    SourceWriteKeyRotated,
)
from rapport.events.v1.sources_pb2 import ListSourcesResponse, Source, SourceState, WriteKey
from services.events.deciders.source import DECIDER, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from asyncpg import Pool, Record

    from rapport.events.v1.sources_pb2 import ListSourcesRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TABLES = """
create table {schema}.sources (
    workspace text not null,
    source_id text collate "C" not null,
    display_name text collate "C" not null,
    settings bytea not null,
    is_disabled boolean not null,
    key_ids text[] not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, source_id)
);
create index sources_by_create_time on {schema}.sources (workspace, create_time, source_id);
create index sources_by_update_position on {schema}.sources (workspace, update_position);
create table {schema}.write_keys (
    key_id text collate "C" primary key,
    workspace text not null,
    source_id text collate "C" not null,
    secret_hash bytea not null,
    create_time timestamptz not null,
    expire_time timestamptz
);
create index write_keys_by_source on {schema}.write_keys (workspace, source_id);
"""

_COLUMNS = """source_id, display_name, settings, is_disabled, key_ids, state, version, partition,
    create_position, update_position, create_time, update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.sources
join unnest($1::text[], $2::text[]) as asked (workspace, source_id) using (workspace, source_id)
"""

# Arrays of arrays are one long array to PostgreSQL, hence texts that it reads as arrays.
_SAVE = f"""
insert into {{schema}}.sources (workspace, {_COLUMNS})
select workspace, source_id, display_name, settings, is_disabled, string_to_array(key_ids, ','),
       state, version, partition, create_position, update_position, create_time, update_time
from unnest(
    $1::text[], $2::text[], $3::text[], $4::bytea[], $5::bool[], $6::text[], $7::int[],
    $8::bigint[], $9::int[], $10::bigint[], $11::bigint[], $12::timestamptz[], $13::timestamptz[]
) as saved (workspace, {_COLUMNS})
on conflict (workspace, source_id) do update set
    display_name = excluded.display_name, settings = excluded.settings,
    is_disabled = excluded.is_disabled, key_ids = excluded.key_ids, state = excluded.state,
    version = excluded.version, update_position = excluded.update_position,
    update_time = excluded.update_time
"""

_ONE = f"select workspace, {_COLUMNS} from sources.sources where workspace = $1 and source_id = $2"

_ADD_KEY = """
insert into {schema}.write_keys (key_id, workspace, source_id, secret_hash, create_time)
values ($1, $2, $3, $4, $5)
"""

_EXPIRE_OTHERS = """
update {schema}.write_keys set expire_time = least(expire_time, $4)
where workspace = $1 and source_id = $2 and key_id <> $3
"""

_EXPIRE_ONE = """
update {schema}.write_keys set expire_time = least(expire_time, $3)
where workspace = $1 and key_id = $2
"""

_KEYS = """
select source_id, key_id, create_time, expire_time from sources.write_keys
where workspace = $1 and source_id = any($2::text[])
order by create_time desc, key_id
"""

_RESOLVE = """
select workspace, source_id, secret_hash, expire_time from sources.write_keys
where key_id = $1 and (expire_time is null or expire_time > $2)
"""

_STATES = {
    "ENABLED": SourceState.SOURCE_STATE_ENABLED,
    "DISABLED": SourceState.SOURCE_STATE_DISABLED,
    "SOURCE_STATE_ENABLED": SourceState.SOURCE_STATE_ENABLED,
    "SOURCE_STATE_DISABLED": SourceState.SOURCE_STATE_DISABLED,
}

SOURCES = Listing(
    method="ListSources",
    table=Table("sources.sources", key="source_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_COLUMNS}",
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
        exists=True,
        display_name=record["display_name"],
        settings=record["settings"],
        is_disabled=record["is_disabled"],
        key_ids=tuple(record["key_ids"]),
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return (
        state.display_name,
        state.settings,
        state.is_disabled,
        ",".join(state.key_ids),
        state_of(state),
    )


SOURCE_ROWS = AggregateRows(
    DECIDER,
    key="source_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class SourcesView:
    """Keeps sources and write keys."""

    name = "sources"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of sources; each of write keys changes rows of theirs."""
        own = SOURCE_ROWS.own(events)
        if not own:
            return
        await SOURCE_ROWS.fold(tx, schema, own)
        for event in own:
            await _apply_to_keys(tx, schema, event)


async def _apply_to_keys(tx: Tx, schema: str, event: Recorded) -> None:
    fact, now = event.event, event.record_time
    source = event.workspace, DECIDER.id_of(event.stream)
    if isinstance(fact, SourceCreated | SourceWriteKeyRotated):
        key_id, secret_hash = fact.write_key_id, fact.write_key_hash
        await tx.execute(_ADD_KEY.format(schema=schema), key_id, *source, secret_hash, now)
    if isinstance(fact, SourceWriteKeyRotated):
        until = now + timedelta(seconds=fact.grace_s)
        await tx.execute(_EXPIRE_OTHERS.format(schema=schema), *source, fact.write_key_id, until)
    if isinstance(fact, SourceWriteKeyRevoked):
        statement = _EXPIRE_ONE.format(schema=schema)
        await tx.execute(statement, event.workspace, fact.write_key_id, now)


async def list_sources(
    pool: Pool, workspace: str, request: ListSourcesRequest
) -> ListSourcesResponse:
    """Returns a page of sources, disabled ones too."""
    rows, next_page_token = await SOURCE_ROWS.page(pool, SOURCES, workspace, request)
    keys = await write_keys(pool, workspace, [row.aggregate_id for row in rows])
    sources = [source_of(row.aggregate_id, row, keys.get(row.aggregate_id, ())) for row in rows]
    return ListSourcesResponse(sources=sources, next_page_token=next_page_token)


async def write_keys(
    pool: Pool, workspace: str, source_ids: Sequence[str]
) -> dict[str, list[WriteKey]]:
    """What is known of the write keys of sources, the newest first."""
    found: dict[str, list[WriteKey]] = {}
    for row in await pool.fetch(_KEYS, workspace, source_ids):
        found.setdefault(row["source_id"], []).append(_write_key(row))
    return found


async def resolve_write_key(pool: Pool, key_id: str, now: datetime) -> Record | None:
    """Whose a write key is that is believed at a moment: of all workspaces, as its id is."""
    return await pool.fetchrow(_RESOLVE, key_id, now)


def source_of(source_id: str, known: Row | Decided[State], keys: Iterable[WriteKey]) -> Source:
    """Returns a source as the API shows it."""
    return Source(
        name=DECIDER.name(source_id),
        display_name=known.state.display_name,
        settings=SourceSettings.FromString(known.state.settings),
        state=state_of(known.state),
        write_keys=keys,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def state_of(state: State) -> SourceState.ValueType:
    """Returns what the API calls the state of a source that exists."""
    if state.is_disabled:
        return SourceState.SOURCE_STATE_DISABLED
    return SourceState.SOURCE_STATE_ENABLED


def _write_key(row: Record) -> WriteKey:
    key = WriteKey(key_id=row["key_id"], create_time=timestamp_of(row["create_time"]))
    if row["expire_time"] is not None:
        key.expire_time.CopyFrom(timestamp_of(row["expire_time"]))
    return key
