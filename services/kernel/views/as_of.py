"""Reading the past: what a view said at a moment, by the time of recording.

The same question has the same answer for ever. So the moment is sealed before the first answer:
whoever was appending up to it has committed, and nothing is recorded at or before it any more,
whatever the clocks of other replicas say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import utc
from services.kernel.log.tokens import encode_write_token
from services.kernel.views.checkpoint import LIVE_GENERATION

if TYPE_CHECKING:
    from datetime import datetime

    from asyncpg import Pool
    from google.protobuf.timestamp_pb2 import Timestamp

    from services.kernel.clock import Clock
    from services.kernel.views.freshness import Freshness

_HEADS = """
select min(record_time) >= $1 as is_sealed, max(record_time) >= $1 as is_recorded
from kernel.heads
"""

# An append holds its head until it commits, and records later than the head's time ever after.
_SEAL = """
update kernel.heads h set record_time = greatest(h.record_time, $1)
from (
    select partition from kernel.heads where record_time < $1 order by partition for update
) unsealed
where h.partition = unsealed.partition
"""


# What a view of the own log has not read of it up to a moment; a moment not said is the last one.
_UNREAD = f"""
select h.partition, h.position from kernel.heads h
left join kernel.checkpoints c on c.consumer = $1 and c.generation = {LIVE_GENERATION}
    and c.source = $2 and c.partition = h.partition
join kernel.events next on next.partition = h.partition
    and next.position = coalesce(c.position, 0) + 1
where $3::timestamptz is null or next.record_time <= $3
"""

_LATEST = "select greatest(max(record_time), 'epoch') from kernel.heads"


class DatedRequest(Protocol):
    """A read that may say as of when."""

    @property
    def read_time(self) -> Timestamp: ...

    def HasField(self, name: Any, /) -> bool: ...


async def read_moment(pool: Pool, clock: Clock, request: DatedRequest) -> datetime | None:
    """The moment that a read asks about, sealed; None when it asks about now.

    Raises InvalidArgument when the moment lies in the future: later than the clock, and than all
    that is recorded, since another replica's clock may be ahead of ours.
    """
    if not request.HasField("read_time"):
        return None
    return await sealed(pool, clock, request.read_time, "read_time")


async def read_up_to(
    pool: Pool, freshness: Freshness, service: str, view: str, moment: datetime | None
) -> None:
    """Return when a view of the own log has read it up to a sealed moment, or as far as it goes.

    Raises DeadlineExceeded (VIEW_BEHIND) when the caller's time is over first.
    """
    unread = await pool.fetch(_UNREAD, view, service, moment)
    if unread:
        positions = {row["partition"]: row["position"] for row in unread}
        await freshness.wait(view, encode_write_token(service, positions))


async def present(pool: Pool, clock: Clock) -> datetime:
    """What time it is: not before anything that is recorded, whatever our clock says."""
    latest: datetime = await pool.fetchval(_LATEST)
    return max(clock.now(), latest)


def moment_in(said: Timestamp, field: str) -> datetime:
    """A moment of a request's field; raises InvalidArgument for one that no calendar has."""
    try:
        return utc(said)
    except OverflowError as error:
        raise InvalidArgument.of(field, "lies outside the calendar") from error


async def sealed(pool: Pool, clock: Clock, said: Timestamp, field: str) -> datetime:
    """A moment of a request's field, sealed; raises InvalidArgument when it lies in the future."""
    moment = moment_in(said, field)
    heads: Any = await pool.fetchrow(_HEADS, moment)
    if moment > clock.now() and not heads["is_recorded"]:
        raise InvalidArgument.of(field, "lies in the future")
    if not heads["is_sealed"]:
        await seal(pool, moment)
    return moment


async def seal(pool: Pool, moment: datetime) -> None:
    """Let nothing be recorded at or before a moment any more, once who is appending has done so."""
    await pool.execute(_SEAL, moment)
