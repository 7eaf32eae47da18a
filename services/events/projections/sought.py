"""What is looked for in the log: how far a look has got, and the places that it found.

No view: it is written where the look is taken, outside the lock that writers wait for, and dropped
when what was found is gone. A look belongs to an erasure, or to a rule of retention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.events.receipts import STREAM_PREFIX
from services.kernel.log.log import envelope_of, read_heads
from services.kernel.log.rows import COLUMNS
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.log.sql import Tx

LOOK_SIZE = 2_000
"""Positions that are looked at in one step."""

TABLES = """
create schema if not exists erasing;
create table if not exists erasing.looks (
    workspace text not null,
    look text collate "C" not null,
    partition int not null,
    position bigint not null,
    mark text not null,
    begin_time timestamptz not null,
    end_position bigint,
    primary key (workspace, look, partition)
);
create table if not exists erasing.found (
    workspace text not null,
    look text collate "C" not null,
    partition int not null,
    position bigint not null,
    primary key (workspace, look, partition, position)
);
"""

_BEGIN = """
insert into erasing.looks as known (workspace, look, partition, position, mark, begin_time)
select $1, $2, partition, 0, $3, $4 from kernel.heads
on conflict (workspace, look, partition) do update
set position = 0, mark = excluded.mark, begin_time = excluded.begin_time, end_position = null
where known.mark <> excluded.mark
"""

_LEFT = """
select l.partition, l.position, coalesce(l.end_position, h.position) as head
from erasing.looks l join kernel.heads h using (partition)
where l.workspace = $1 and l.look = $2 and l.position < coalesce(l.end_position, h.position)
order by l.partition
"""

_END = """
update erasing.looks l set end_position = h.position from kernel.heads h
where l.workspace = $1 and l.look = $2 and l.partition = h.partition and l.end_position is null
"""

_BEGIN_TIME = "select max(begin_time) from erasing.looks where workspace = $1 and look = $2"

_LOOK = f"""
select {", ".join(COLUMNS)}, erasure from kernel.events
where partition = $1 and position > $2 and position <= $3 and workspace = $4
    and stream like '{STREAM_PREFIX}%' and erasure is null
order by position
"""

_LAST_WORDS = f"""
{_LOOK.replace("kernel.events", "kernel.events e").partition("order by")[0]} and not exists (
    select from kernel.events later
    where later.workspace = e.workspace and later.stream = e.stream and later.version > e.version
)
order by position
"""

_FIRST_TOO_YOUNG = """
select min(position) from kernel.events
where partition = $1 and position > $2 and position <= $3 and record_time >= $4
"""

_MOVE = """
update erasing.looks set position = $5
where workspace = $1 and look = $2 and partition = $3 and position = $4
"""

_KEEP = """
insert into erasing.found (workspace, look, partition, position)
select $1, $2, $3, position from unnest($4::bigint[]) position
on conflict do nothing
"""

# Whole streams: what became of a message goes with it, whenever that was.
_STREAMS = """
select distinct e.stream from erasing.found f
join kernel.events e using (partition, position)
where f.workspace = $1 and f.look = $2 and e.erasure is null
limit $3
"""

_EVENTS = f"""
select {", ".join(f"e.{name}" for name in COLUMNS)}, e.erasure
from unnest($1::text[], $2::text[]) asked (workspace, stream)
join kernel.events e using (workspace, stream)
where e.erasure is null
order by e.partition, e.position
"""

# What was erased otherwise, or about which there is a later word.
_DROP_YOUNGER = """
delete from erasing.found f using kernel.events e
where f.workspace = $1 and f.look = $2
    and (e.partition, e.position) = (f.partition, f.position)
    and (e.erasure is not null or exists (
        select from kernel.events later
        where later.workspace = e.workspace and later.stream = e.stream
            and later.record_time >= $3
    ))
"""

_HAS_FOUND = "select exists (select from erasing.found where workspace = $1 and look = $2)"

_FORGET_PLACES = """
delete from erasing.found f using unnest($3::int[], $4::bigint[]) gone (partition, position)
where f.workspace = $1 and f.look = $2
    and (f.partition, f.position) = (gone.partition, gone.position)
"""

_FORGET_FOUND = "delete from erasing.found where workspace = $1 and look = $2"

_FORGET_LOOK = "delete from erasing.looks where workspace = $1 and look = $2"


class Stretch(NamedTuple):
    """A piece of a partition to look at: the positions after one, up to another."""

    partition: int
    after: int
    until: int


async def begin(pool: Pool, workspace: str, look: str, mark: str, now: datetime) -> datetime:
    """Begins a look, or goes on with it; with another mark it is begun anew. Tells since when."""
    await pool.execute(_BEGIN, workspace, look, mark, now)
    begun: datetime = await pool.fetchval(_BEGIN_TIME, workspace, look)
    return begun


async def end(pool: Pool, workspace: str, look: str) -> None:
    """Says that a look goes as far as the log does now, if that was not said before."""
    await pool.execute(_END, workspace, look)


async def left(connection: Tx | Pool, workspace: str, look: str) -> list[Stretch]:
    """What was not looked at, of each partition the next piece; none when all was."""
    return [
        Stretch(row["partition"], row["position"], min(row["head"], row["position"] + LOOK_SIZE))
        for row in await connection.fetch(_LEFT, workspace, look)
    ]


async def whole_log(pool: Pool) -> list[Stretch]:
    """All pieces of the log as it is now, in its order."""
    heads = await read_heads(pool)
    return [
        Stretch(partition, after, min(after + LOOK_SIZE, head))
        for partition, head in heads.items()
        for after in range(0, head, LOOK_SIZE)
    ]


async def older_part(pool: Pool, stretch: Stretch, until: datetime) -> Stretch:
    """The part of a piece that was recorded before a moment."""
    first: int | None = await pool.fetchval(_FIRST_TOO_YOUNG, *stretch, until)
    return stretch if first is None else stretch._replace(until=first - 1)


async def read_stretch(connection: Tx | Pool, workspace: str, stretch: Stretch) -> list[Envelope]:
    """What still says something of a workspace's messages in a piece of the log."""
    return [envelope_of(row) for row in await connection.fetch(_LOOK, *stretch, workspace)]


async def read_last_words(pool: Pool, workspace: str, stretch: Stretch) -> list[Envelope]:
    """Those events of a piece of the log that are the last of their messages."""
    rows = await pool.fetch(_LAST_WORDS, *stretch, workspace)
    return [envelope_of(row) for row in rows]


async def read_streams(
    connection: Tx | Pool, workspace: str, streams: Sequence[str]
) -> list[Envelope]:
    """What still says something in some streams, in the order of the log."""
    rows = await connection.fetch(_EVENTS, [workspace] * len(streams), list(streams))
    return [envelope_of(row) for row in rows]


async def keep(
    tx: Tx, workspace: str, look: str, stretch: Stretch, positions: Iterable[int]
) -> None:
    """Keeps what was found in a piece, and that it was looked at; once, whoever looked too."""
    moved = await tx.execute(
        _MOVE, workspace, look, stretch.partition, stretch.after, stretch.until
    )
    if moved == "UPDATE 1":
        await tx.execute(_KEEP, workspace, look, stretch.partition, list(positions))


async def found_streams(pool: Pool, workspace: str, look: str, limit: int) -> list[Envelope]:
    """All events of the next streams in which something was found, a stream as a whole."""
    streams = await pool.fetch(_STREAMS, workspace, look, limit)
    return await read_streams(pool, workspace, [row["stream"] for row in streams])


async def drop_younger(pool: Pool, workspace: str, look: str, until: datetime) -> None:
    """Drops of what was found that of which anything was recorded since a moment."""
    await pool.execute(_DROP_YOUNGER, workspace, look, until)


async def has_found(pool: Pool, workspace: str, look: str) -> bool:
    """Whether a look has found anything that was not dropped since."""
    found: bool = await pool.fetchval(_HAS_FOUND, workspace, look)
    return found


async def forget_places(
    tx: Tx, workspace: str, look: str, places: Sequence[tuple[int, int]]
) -> None:
    """Drops places that were found, as what was there is gone."""
    await tx.execute(_FORGET_PLACES, workspace, look, *columns(places))


async def forget(pool: Pool, workspace: str, look: str) -> None:
    """Drops a look with what it found."""
    await pool.execute(_FORGET_FOUND, workspace, look)
    await pool.execute(_FORGET_LOOK, workspace, look)
