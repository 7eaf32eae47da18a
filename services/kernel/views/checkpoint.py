"""Checkpoints: how far a consumer got in a partition of a source, and who may move it.

A worker owns a checkpoint by lease and is fenced by epoch: it moves the checkpoint with a
compare-and-set as the first statement of the transaction that carries the effects. A worker that
slept through its lease finds another epoch, touches no row, and its effects roll back. Times are
the database's, so workers' clocks do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.log.database import transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpg import Pool

    from services.kernel.log.sql import Tx

ADVANCED_CHANNEL = "advanced"
LIVE_GENERATION = 0

# Who holds every checkpoint has it, and so has whoever makes one: else that would not be held.
HOLDING_LOCK_KEY = 7_267_767_680
TAKE_HOLDING_LOCK = "select pg_advisory_xact_lock($1)"

_CREATE = """
insert into kernel.checkpoints (consumer, generation, source, partition, position,
                                epoch, owner, lease_until)
values ($1, $2, $3, $4, $5, 0, '', '-infinity')
on conflict do nothing
"""

_TAKE = """
update kernel.checkpoints
set epoch = epoch + 1, owner = $5, lease_until = now() + make_interval(secs => $6)
where consumer = $1 and generation = $2 and source = $3 and partition = $4
  and (lease_until < now() or owner = $5)
returning position, epoch
"""

_RENEW = """
update kernel.checkpoints set lease_until = now() + make_interval(secs => $6)
where consumer = $1 and generation = $2 and source = $3 and partition = $4 and epoch = $5
"""

_MOVE = """
update kernel.checkpoints
set position = $7, lease_until = greatest(lease_until, now() + make_interval(secs => $8))
where consumer = $1 and generation = $2 and source = $3 and partition = $4
  and epoch = $5 and position = $6
"""

_RELEASE = """
update kernel.checkpoints set lease_until = '-infinity'
where consumer = $1 and generation = $2 and source = $3 and partition = $4 and epoch = $5
"""

_HOLD = """
select position from kernel.checkpoints
where consumer = $1 and generation = $2 and source = $3 and partition = $4 for update
"""

_POSITIONS = """
select source, partition, position from kernel.checkpoints where consumer = $1 and generation = $2
"""


class FencedError(Exception):
    """When another worker has taken the checkpoint over: nothing of the transaction may be kept."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which checkpoint: whose, for which generation of the view, in which partition of a source."""

    consumer: str
    source: str
    partition: int
    generation: int = LIVE_GENERATION

    @property
    def key(self) -> tuple[str, int, str, int]:
        """The primary key's values."""
        return self.consumer, self.generation, self.source, self.partition


@dataclass(slots=True)
class Lease:
    """A checkpoint that is ours until its lease ends or its epoch changes."""

    place: Place
    epoch: int
    position: int
    lease_s: float

    async def move(self, tx: Tx, position: int) -> None:
        """Move the checkpoint in the caller's transaction, else raise FencedError.

        The lease itself learns its new position when that transaction has committed.
        """
        status = await tx.execute(
            _MOVE, *self.place.key, self.epoch, self.position, position, self.lease_s
        )
        if status != "UPDATE 1":
            raise FencedError(f"{self.place} was taken over or moved")

    async def renew(self, pool: Pool) -> None:
        """Keep the lease while there is nothing to do, else raise FencedError."""
        status = await pool.execute(_RENEW, *self.place.key, self.epoch, self.lease_s)
        if status != "UPDATE 1":
            raise FencedError(f"{self.place} was taken over")

    async def release(self, pool: Pool) -> None:
        """Let another worker take over at once."""
        await pool.execute(_RELEASE, *self.place.key, self.epoch)


async def create_checkpoint(connection: Tx | Pool, place: Place, position: int = 0) -> None:
    """Make sure that a checkpoint exists."""
    await connection.execute(_CREATE, *place.key, position)


async def begin_checkpoints(pool: Pool, places: Iterable[Place]) -> None:
    """Make sure that checkpoints exist before what they are of is read.

    Whoever holds every checkpoint at the moment has done when this returns, and will hold these.
    """
    async with transaction(pool) as tx:
        await tx.execute(TAKE_HOLDING_LOCK, HOLDING_LOCK_KEY)
        for place in places:
            await create_checkpoint(tx, place)


async def take_lease(pool: Pool, place: Place, owner: str, lease_s: float) -> Lease | None:
    """Take the checkpoint over if nobody has it; None while somebody else does.

    An owner that lost the connection before it could release its lease need not wait for its end.
    """
    row = await pool.fetchrow(_TAKE, *place.key, owner, lease_s)
    return Lease(place, row["epoch"], row["position"], lease_s) if row else None


async def read_positions(
    connection: Tx | Pool, consumer: str, generation: int = LIVE_GENERATION
) -> dict[tuple[str, int], int]:
    """How far a consumer got, by (source, partition)."""
    rows = await connection.fetch(_POSITIONS, consumer, generation)
    return {(row["source"], row["partition"]): row["position"] for row in rows}


async def hold_checkpoint(tx: Tx, place: Place) -> None:
    """Let no worker move a checkpoint until the transaction ends."""
    await tx.execute(_HOLD, *place.key)
