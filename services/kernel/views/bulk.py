"""Building a view from all of its events at once: in memory, and written by COPY.

A view that offers it is built so while its generation is empty and its logs are not too long; all
of it is one transaction, so what is stopped begins anew. What comes later is folded as ever. Who
erases meanwhile cannot see what is not committed: he fences it, and it begins anew as well.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from services.kernel.log.database import transaction
from services.kernel.log.log import read_of_types
from services.kernel.log.writing import execute_soon
from services.kernel.views.checkpoint import FencedError, Place
from services.kernel.views.view import schema_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.log.recorded import EventTypes, Recorded
    from services.kernel.log.sql import Tx

    # The events of a source's partition after a position, in order, at most so many.
    Read = Callable[[Pool, str, int, int, int], Awaitable[Sequence[Envelope]]]

# What so few events are made into stays in a core's cache: with thousands it takes a tenth longer.
BULK_READ_SIZE = 500
# What COPY and the building of an index may take: far more than a statement of a request.
BULK_STATEMENT_TIMEOUT_S = 3_600.0
# How long all is put together in memory, at most, while the transaction waits for it.
BULK_IDLE_MAX_S = 1_800
INDEX_MEMORY_MB = 256

_PREPARE = f"""
set local idle_in_transaction_session_timeout = '{BULK_IDLE_MAX_S}s';
set local maintenance_work_mem = '{INDEX_MEMORY_MB}MB'
"""

# Else two would write the same rows, and one learn of it only when it has written all.
_LOCK_BUILD = "select pg_try_advisory_xact_lock(hashtext('kernel.rebuild'), hashtext($1))"

_EPOCHS = """
select source, partition, epoch from kernel.checkpoints where consumer = $1 and generation = $2
"""

_MOVE = """
update kernel.checkpoints set position = $6
where consumer = $1 and generation = $2 and source = $3 and partition = $4
    and epoch = $5 and position = 0
"""

_CONSTRAINTS = """
select relname, conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(k.oid)
from pg_constraint k join pg_class c on c.oid = conrelid
where connamespace = $1::regnamespace and contype in ('p', 'u') order by conrelid, conname
"""

_INDEXES = """
select c.relname, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
from pg_index i join pg_class c on c.oid = i.indexrelid
where c.relnamespace = $1::regnamespace
    and not exists (select from pg_constraint where conindid = i.indexrelid)
order by 2
"""


# By table, the statements that make its keys and indexes.
Indexes = Mapping[str, Sequence[str]]


class TooMuchForBulkError(Exception):
    """When what is to be built holds too much of something, and is to be folded as ever."""


class Bulk(Protocol):
    """All of a view in the making; `heeds` are the full names of the types of events it reads."""

    @property
    def heeds(self) -> frozenset[str]: ...

    async def add(self, events: Sequence[Recorded]) -> None:
        """Take the next events, in order per partition; may raise TooMuchForBulkError."""
        ...

    async def finish(self) -> None:
        """Write the rows as folding the same events would have left them."""
        ...


@runtime_checkable
class BuildsInBulk(Protocol):
    """A view that can be built in bulk from at most so many events, which bounds its memory."""

    @property
    def name(self) -> str: ...

    @property
    def events_in_bulk_max(self) -> int: ...

    def bulk(self, tx: Tx, schema: str) -> Bulk:
        """Begin in the empty tables of a schema."""
        ...


@dataclass(frozen=True, slots=True)
class BulkBuild:
    """The building of an empty generation up to the positions `live`.

    The log of `service`, which is the own one, is read without what the view does not heed.
    """

    pool: Pool
    service: str
    view: BuildsInBulk
    event_types: EventTypes
    read: Read
    generation: int
    live: Mapping[tuple[str, int], int]

    async def run(self) -> AsyncGenerator[int]:
        """Build it; tells how many events are done with. Raises FencedError, TooMuchForBulkError.

        Where it is stopped, nothing is left but checkpoints at the beginning.
        """
        done = 0
        async with transaction(self.pool) as tx:
            if not await tx.fetchval(_LOCK_BUILD, self.view.name):
                raise FencedError(f"another process rebuilds {self.view.name}")
            epochs = await self._epochs()
            bulk = self.view.bulk(tx, schema_of(self.view.name, self.generation))
            for (source, partition), until in self.live.items():
                begin = done
                async with aclosing(self._batches(source, partition, until, bulk.heeds)) as read:
                    async for batch, reached in read:
                        # The database, and whoever else runs in this process, go on meanwhile.
                        await bulk.add(await asyncio.to_thread(self.event_types.decode_all, batch))
                        done = begin + reached
                        yield done
            await bulk.finish()
            for (source, partition), until in self.live.items():
                place = self._place(source, partition)
                epoch = epochs[source, partition]
                if await tx.execute(_MOVE, *place.key, epoch, until) != "UPDATE 1":
                    raise FencedError(f"something was erased from {self.view.name} meanwhile")

    async def _epochs(self) -> dict[tuple[str, int], int]:
        """The epochs of all checkpoints, which are there for everybody to see before."""
        rows = await self.pool.fetch(_EPOCHS, self.view.name, self.generation)
        return {(row["source"], row["partition"]): row["epoch"] for row in rows}

    def _place(self, source: str, partition: int) -> Place:
        return Place(self.view.name, source, partition, self.generation)

    async def _batches(
        self, source: str, partition: int, until: int, heeds: frozenset[str]
    ) -> AsyncGenerator[tuple[Sequence[Envelope], int]]:
        """What is heeded of a log until a position, and where that is; the next is read ahead."""
        after = 0
        ahead = asyncio.ensure_future(self._next(source, partition, after, until, heeds))
        try:
            while after < until:
                batch, after = await ahead
                ahead = asyncio.ensure_future(self._next(source, partition, after, until, heeds))
                yield batch, after
        finally:
            ahead.cancel()

    async def _next(
        self, source: str, partition: int, after: int, until: int, heeds: frozenset[str]
    ) -> tuple[Sequence[Envelope], int]:
        if after == until:
            return (), until
        if source == self.service:
            return await read_of_types(
                self.pool, partition, heeds, after=after, until=until, limit=BULK_READ_SIZE
            )
        limit = min(until - after, BULK_READ_SIZE)
        batch = await self.read(self.pool, source, partition, after, limit)
        return [each for each in batch if each.type in heeds], batch[-1].position


async def drop_indexes(tx: Tx, schema: str) -> Indexes:
    """Drop keys and indexes of a schema's tables; answers, by table, what makes them again."""
    await tx.execute(_PREPARE)
    again = defaultdict(list)
    for table, full_name, name, definition in await tx.fetch(_CONSTRAINTS, schema):
        await tx.execute(f"alter table {full_name} drop constraint {name}")
        again[table].append(f"alter table {full_name} add constraint {name} {definition}")
    for table, name, definition in await tx.fetch(_INDEXES, schema):
        await tx.execute(f"drop index {name}")
        again[table].append(definition)
    return again


def make_indexes(tx: Tx, again: Indexes, tables: Iterable[str]) -> None:
    """Let keys and indexes that were dropped of some tables be made, while others are filled."""
    for table in tables:
        for statement in again.get(table, ()):
            execute_soon(tx, statement, timeout_s=BULK_STATEMENT_TIMEOUT_S)
