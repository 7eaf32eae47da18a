"""Parked events: poison is put aside with its reason, and all later events of its stream with it.

Other streams go on. Nothing is copied: a retry reads the log again, through today's upcasters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.log.sql import Tx, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool, Record

    from services.kernel.log.recorded import Logged
    from services.kernel.views.checkpoint import Place

PARKED_STREAMS_MAX = 100
BEHIND_PARKED = "STREAM_PARKED"

_PARK = """
insert into kernel.parked (consumer, source, partition, position, workspace, stream, type,
                           reason, attempts, park_time)
select $1, $2, $3, p.position, p.workspace, p.stream, p.type, p.reason, 1, now()
from unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[])
     p(position, workspace, stream, type, reason)
on conflict (consumer, source, partition, position) do update
set attempts = parked.attempts + 1, reason = excluded.reason
"""

_PARKED_STREAMS = """
select distinct workspace, stream from kernel.parked
where consumer = $1 and source = $2 and partition = $3
"""

_LIST = """
select consumer, source, partition, position, workspace, stream, type, reason, attempts, park_time
from kernel.parked where consumer = $1 order by source, partition, position limit $2
"""

_OF_STREAM = """
select position from kernel.parked
where consumer = $1 and source = $2 and partition = $3 and workspace = $4 and stream = $5
order by position
"""

_COUNT_ATTEMPT = """
update kernel.parked set attempts = attempts + 1, reason = $6
where consumer = $1 and source = $2 and partition = $3 and position = (
    select min(position) from kernel.parked
    where consumer = $1 and source = $2 and partition = $3 and workspace = $4 and stream = $5)
"""

_UNPARK = """
delete from kernel.parked
where consumer = $1 and source = $2 and partition = $3 and position = any($4::bigint[])
"""

_FORGET = "delete from kernel.parked where consumer = $1"


class TooManyParkedError(Exception):
    """When so many streams are parked that the fault must be ours: the consumer stops."""


@dataclass(frozen=True, slots=True)
class Poison:
    """An event that cannot be applied, and why."""

    envelope: Logged
    reason: str


async def parked_streams(tx: Tx, place: Place) -> set[tuple[str, str]]:
    """The (workspace, stream)s of which something is parked."""
    rows = await tx.fetch(_PARKED_STREAMS, place.consumer, place.source, place.partition)
    return {(row["workspace"], row["stream"]) for row in rows}


async def park(tx: Tx, place: Place, poisons: Sequence[Poison]) -> None:
    """Put events aside, or raise TooManyParkedError."""
    if not poisons:
        return
    rows = [
        (p.envelope.position, p.envelope.workspace, p.envelope.stream, p.envelope.type, p.reason)
        for p in poisons
    ]
    await tx.execute(_PARK, place.consumer, place.source, place.partition, *columns(rows))
    streams = await parked_streams(tx, place)
    if len(streams) > PARKED_STREAMS_MAX:
        raise TooManyParkedError(
            f"{place.consumer} has more than {PARKED_STREAMS_MAX} parked streams"
        )


async def list_parked(connection: Tx | Pool, consumer: str, limit: int = 1_000) -> list[Record]:
    """What is parked for a consumer, in order."""
    return list(await connection.fetch(_LIST, consumer, limit))


async def positions_of_stream(tx: Tx, place: Place, workspace: str, stream: str) -> list[int]:
    """The positions of a parked stream's events, in order."""
    rows = await tx.fetch(
        _OF_STREAM, place.consumer, place.source, place.partition, workspace, stream
    )
    return [row["position"] for row in rows]


async def unpark(tx: Tx, place: Place, positions: Sequence[int]) -> None:
    """Forget that events were parked, because they have been applied."""
    await tx.execute(_UNPARK, place.consumer, place.source, place.partition, list(positions))


async def forget_parked(tx: Tx, consumer: str) -> None:
    """Forget all that was parked, because a generation that holds it has become the live one."""
    await tx.execute(_FORGET, consumer)


async def count_attempt(pool: Pool, place: Place, workspace: str, stream: str, reason: str) -> None:
    """Remember that a retry of a parked stream failed, and why."""
    await pool.execute(
        _COUNT_ATTEMPT, place.consumer, place.source, place.partition, workspace, stream, reason
    )
