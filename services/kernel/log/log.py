"""The log: append with expected version, and read in order.

Positions are dense and become visible in order, because an append takes them while it holds the
partition's head row locked until its commit. Whoever appends within a transaction of his own
calls `append`; commands go through `kernel.group_commit`, which gathers many of them into one
such transaction.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rapport.common.v1.envelope_pb2 import Envelope
from services.kernel.errors import Aborted, ResourceExhausted
from services.kernel.log.bell import Bell
from services.kernel.log.copying import copy_encoded
from services.kernel.log.recent import Recent
from services.kernel.log.recorded import Recorded, set_timestamp
from services.kernel.log.rows import COLUMNS, encoded, row
from services.kernel.log.sql import Statement, Tx, columns, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from asyncpg import Pool, Record
    from google.protobuf.message import Message

    from services.kernel.clock import Clock

ANY_VERSION = -1
NO_STREAM = 0

EVENTS_PER_APPEND_MAX = 10_000
READ_BATCH_SIZE = 2_000
# So many that are passed over in one statement take no more than a moment.
SPAN_MAX = 100_000
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# From here on COPY beats arrays; below, its own round trip costs more.
COPY_SIZE_MIN = 32
APPENDED_CHANNEL = "appended"

_LOCK_HEADS = """
select partition, position, greatest(record_time, 'epoch') as record_time,
    greatest(sealed_time, 'epoch') as sealed_time
from kernel.heads
where partition = any($1::int[]) order by partition for update
"""

_STREAM_VERSIONS = """
select array(
    select coalesce((
        select version from kernel.events e
        where e.workspace = asked.workspace and e.stream = asked.stream
        order by version desc limit 1
    ), 0)
    from unnest($1::text[], $2::text[]) with ordinality asked (workspace, stream, place)
    order by place
)
"""

_INSERT_EVENTS = f"""
insert into kernel.events ({", ".join(COLUMNS)})
select * from unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[],
                     $6::timestamptz[], $7::bigint[], $8::bigint[], $9::uuid[],
                     $10::timestamptz[], $11::text[], $12::text[], $13::bytea[])
"""

_MOVE_HEADS = f"""
update kernel.heads h set position = m.position, record_time = $3
from unnest($1::int[], $2::bigint[]) m(partition, position)
where h.partition = m.partition
returning pg_notify('{APPENDED_CHANNEL}', h.partition || ':' || h.position)
"""

_READ_PARTITION = f"""
select {", ".join(COLUMNS)}, erasure from kernel.events
where partition = $1 and position > $2 order by position limit $3
"""

_READ_OF_TYPES = f"""
select {", ".join(COLUMNS)}, erasure from kernel.events
where partition = $1 and position > $2 and position <= $3 and type = any($4::text[])
    and ($5::text is null or workspace = $5)
order by position limit $6
"""

_READ_STREAM = f"""
select {", ".join(COLUMNS)}, erasure from kernel.events
where workspace = $1 and stream = $2 and version > $3 order by version limit $4
"""

_READ_HEADS = "select partition, position from kernel.heads order by partition"


class Head(NamedTuple):
    """Where a partition ends: the position and the time of its last event.

    What was received until `sealed_time` is in it, or never will be.
    """

    position: int
    record_time: datetime
    sealed_time: datetime = EPOCH


# A Struct takes a quarter of a named tuple's time to make: each event has one of each.
class Origin(msgspec.Struct, frozen=True):
    """Who caused events, and where: the metadata that all events of one append share."""

    workspace: str
    actor: str
    correlation_id: str
    causation_id: str


class NewEvent(msgspec.Struct, frozen=True):
    """An event to append; without an occur_time it happened when it was recorded."""

    event: Message
    occur_time: datetime | None = None


class Append(msgspec.Struct, frozen=True):
    """Events for one stream. `expected_version` is a version, NO_STREAM or ANY_VERSION."""

    origin: Origin
    stream: str
    events: Sequence[NewEvent]
    expected_version: int = ANY_VERSION


@dataclass(frozen=True, slots=True)
class Landed:
    """The events of an append with their positions, and the last position per partition."""

    events: list[Recorded]
    heads: dict[int, int]


def partition_of(workspace: str, stream: str, partitions: int) -> int:
    """The partition a stream lives in for ever."""
    if partitions == 1:
        return 0
    return zlib.crc32(f"{workspace}/{stream}".encode()) % partitions


class Log:
    """A service's log in its PostgreSQL database."""

    def __init__(
        self,
        *,
        service: str,
        partitions: int,
        clock: Clock,
        new_ids: Callable[[int], Sequence[UUID]],
    ) -> None:
        """Name the service that owns the log; `new_ids` makes ids of events.

        `grown` rings when it grew, `wanted` when a reader waits for a view of it, in whichever
        process; `recent` holds what this one appended.
        """
        self.service = service
        self.partitions = partitions
        self.clock = clock
        self.grown = Bell()
        self.wanted = Bell()
        self.recent = Recent()
        self._new_ids = new_ids

    def partition_of(self, workspace: str, stream: str) -> int:
        """The partition a stream of this log lives in."""
        return partition_of(workspace, stream, self.partitions)

    async def lock_heads(self, tx: Tx, partitions: set[int]) -> dict[int, Head]:
        """Lock the partitions' heads until the transaction ends."""
        rows = await tx.fetch(_LOCK_HEADS, sorted(partitions))
        return {
            row["partition"]: Head(row["position"], row["record_time"], row["sealed_time"])
            for row in rows
        }

    async def append(self, tx: Tx, appends: Sequence[Append]) -> Landed:
        """Append to several streams in the caller's transaction.

        Raises Aborted when an expected version is not the stream's, ResourceExhausted past a limit.
        """
        if not appends:
            return Landed([], {})
        streams = dict.fromkeys((a.origin.workspace, a.stream) for a in appends)
        heads = await self.lock_heads(tx, {self.partition_of(*stream) for stream in streams})
        versions = await stream_versions(tx, list(streams))
        return await self.append_under_lock(tx, appends, heads, versions)

    async def append_under_lock(
        self,
        tx: Tx,
        appends: Sequence[Append],
        heads: Mapping[int, Head],
        versions: Mapping[tuple[str, str], int],
    ) -> Landed:
        """Append while the caller holds the heads and read the streams' versions under them."""
        landed = self.record(appends, heads, versions)
        await self.write(tx, landed)
        return landed

    def record(
        self,
        appends: Sequence[Append],
        heads: Mapping[int, Head],
        versions: Mapping[tuple[str, str], int],
    ) -> Landed:
        """Say what appends lead to while the caller holds the heads; nothing is written yet."""
        recorded = self._record(appends, heads, dict(versions))
        return Landed(recorded, {event.partition: event.position for event in recorded})

    async def write(self, tx: Tx, landed: Landed, also: Sequence[Statement] = ()) -> int:
        """Write what `record` said, and with it what else the caller has to write.

        Answers how many bytes the events have.
        """
        if not landed.events:
            await send(tx, also)
            return 0
        positions = list(landed.heads.values())
        move = Statement(
            _MOVE_HEADS, (list(landed.heads), positions, landed.events[-1].record_time)
        )
        if len(landed.events) < COPY_SIZE_MIN:
            rows = [row(event) for event in landed.events]
            await send(tx, [Statement(_INSERT_EVENTS, columns(rows)), *also, move])
            return sum(event.event.ByteSize() for event in landed.events)
        size = await copy_encoded(tx, "kernel", "events", COLUMNS, encoded(landed.events))
        await send(tx, [*also, move])
        return size

    def _record(
        self,
        appends: Sequence[Append],
        heads: Mapping[int, Head],
        versions: dict[tuple[str, str], int],
    ) -> list[Recorded]:
        """Give the events their versions, positions, ids and times."""
        count = sum(len(append.events) for append in appends)
        if count > EVENTS_PER_APPEND_MAX:
            raise ResourceExhausted(limit="EVENTS_PER_APPEND_MAX", maximum=EVENTS_PER_APPEND_MAX)
        record_time = _later(self.clock.now(), heads)
        position = {partition: head.position for partition, head in heads.items()}
        ids = iter(self._new_ids(count))
        recorded = []
        for append in appends:
            origin, stream, expected = append.origin, append.stream, append.expected_version
            workspace = origin.workspace
            key = (workspace, stream)
            version = versions.get(key, NO_STREAM)
            if expected not in (ANY_VERSION, version):
                raise Aborted.conflict(f"{stream} is at version {version}, not {expected}")
            partition = self.partition_of(workspace, stream)
            for new in append.events:
                event = new.event
                version += 1
                position[partition] += 1
                # By place, in the order of its fields: thousands a second are made here.
                values = (
                    partition,
                    position[partition],
                    workspace,
                    stream,
                    version,
                    next(ids),
                    event.DESCRIPTOR.full_name,
                    event,
                    origin.actor,
                    origin.correlation_id,
                    origin.causation_id,
                    new.occur_time or record_time,
                    record_time,
                )
                recorded.append(Recorded._make(values))
            versions[key] = version
        return recorded


def _later(now: datetime, heads: Mapping[int, Head]) -> datetime:
    """The time by the clock, or just after the last event's when this replica's clock is behind.

    So times grow with positions, and what happened later to a stream is also told as later.
    """
    return max([now, *(head.record_time + MICROSECOND for head in heads.values())])


async def stream_versions(tx: Tx, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The last version of each (workspace, stream), NO_STREAM where there is none."""
    workspaces, streams = [key[0] for key in keys], [key[1] for key in keys]
    versions = await tx.fetchval(_STREAM_VERSIONS, workspaces, streams)
    return dict(zip(keys, versions, strict=True))


async def read_heads(connection: Tx | Pool) -> dict[int, int]:
    """The position of the last event of each partition, 0 where it is empty."""
    return {row["partition"]: row["position"] for row in await connection.fetch(_READ_HEADS)}


async def read_partition(
    connection: Tx | Pool, partition: int, *, after: int, limit: int = READ_BATCH_SIZE
) -> list[Envelope]:
    """The next events of a partition after a position, in order, at most `limit`."""
    rows = await connection.fetch(_READ_PARTITION, partition, after, limit)
    return [envelope_of(row) for row in rows]


async def read_of_types(
    connection: Tx | Pool,
    partition: int,
    types: Collection[str],
    *,
    after: int,
    until: int,
    limit: int = READ_BATCH_SIZE,
    workspace: str | None = None,
) -> tuple[list[Envelope], int]:
    """The next events of some types, of all workspaces or one, and how far that is read.

    It looks at positions after < position <= until, at most SPAN_MAX of them at a time.
    """
    until = min(until, after + SPAN_MAX)
    asked = partition, after, until, sorted(types), workspace, limit
    rows = await connection.fetch(_READ_OF_TYPES, *asked)
    found = [envelope_of(row) for row in rows]
    return found, found[-1].position if len(found) == limit else until


async def read_all(
    pool: Pool, partition: int, *, after: int, until: int
) -> AsyncIterator[list[Envelope]]:
    """Batches of a partition's events with after < position <= until, in order."""
    while after < until:
        limit = min(READ_BATCH_SIZE, until - after)
        batch = await read_partition(pool, partition, after=after, limit=limit)
        if not batch:
            return
        after = batch[-1].position
        yield batch


async def read_stream(
    connection: Tx | Pool,
    workspace: str,
    stream: str,
    *,
    after_version: int = 0,
    limit: int = READ_BATCH_SIZE,
) -> list[Envelope]:
    """The next events of one stream after a version, in order, at most `limit`."""
    rows = await connection.fetch(_READ_STREAM, workspace, stream, after_version, limit)
    return [envelope_of(row) for row in rows]


def envelope_of(row: Record) -> Envelope:
    """An event as the log gives it back, of a row with all columns."""
    # Field by field, which takes four fifths of the time that all at once take.
    envelope = Envelope()
    envelope.partition = row["partition"]
    envelope.position = row["position"]
    envelope.workspace = row["workspace"]
    envelope.stream = row["stream"]
    envelope.version = row["version"]
    envelope.event_id = str(row["event_id"])
    envelope.type = row["type"]
    envelope.data = row["data"]
    envelope.actor = row["actor"]
    envelope.correlation_id = row["correlation_id"]
    envelope.causation_id = row["causation_id"]
    if row["erasure"] is not None:
        envelope.erasure = row["erasure"]
    set_timestamp(envelope.occur_time, row["occur_time"])
    set_timestamp(envelope.record_time, row["record_time"])
    return envelope
