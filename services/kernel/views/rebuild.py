"""Rebuilding a view beside the live one: build, compare, swap, drop.

A rebuild reads the logs of the view's sources from position 1 into a new generation, never past
the live one's positions, and runs no policy, so nothing happens twice. Its checkpoints are kept,
so it can be stopped and resumed. Comparing and swapping hold the live positions still only for
the last few events; the digests are then computed in a snapshot while everybody goes on working.

What follows from an accepted difference is only the difference: a view that can tell what lies
between two generations says so in the swap's transaction, and its policy appends that, once.
"""

from __future__ import annotations

import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from services.kernel.log.database import transaction
from services.kernel.log.log import READ_BATCH_SIZE, Log, read_heads, read_partition
from services.kernel.views.bulk import BuildsInBulk, BulkBuild, TooMuchForBulkError
from services.kernel.views.checkpoint import (
    FencedError,
    Place,
    begin_checkpoints,
    create_checkpoint,
    hold_checkpoint,
    read_positions,
)
from services.kernel.views.parking import forget_parked, list_parked
from services.kernel.views.projection import Consumer
from services.kernel.views.view import (
    LIVE,
    RETIRED,
    TellsDifferences,
    add_generation,
    append_with_views,
    digest,
    schema_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.feed.reader import HoleReader
    from services.kernel.log.recorded import EventTypes
    from services.kernel.log.sql import Tx
    from services.kernel.views.policy import Policy
    from services.kernel.views.view import AnyView

_BUILDING_GENERATION = """
select generation from kernel.generations where view = $1 and status = 'BUILDING' and shape = $2
order by generation desc limit 1
"""

_LIVE_GENERATION = "select generation from kernel.generations where view = $1 and status = 'LIVE'"

_SET_STATUS = """
update kernel.generations set status = $3, swap_time = coalesce($4, swap_time)
where view = $1 and generation = $2
"""

_MOVE = """
update kernel.checkpoints set position = $6
where consumer = $1 and generation = $2 and source = $3 and partition = $4 and position = $5
"""

_LOCK_CHECKPOINTS = """
select source, partition, position from kernel.checkpoints
where consumer = $1 and generation = 0 order by source, partition for update
"""

_DROP_CHECKPOINTS = "delete from kernel.checkpoints where consumer = $1 and generation = $2"

_FORGET_GENERATION = "delete from kernel.generations where view = $1 and generation = $2"

Positions = dict[tuple[str, int], int]

_log = structlog.get_logger(__name__)


class RebuildError(Exception):
    """When a rebuild cannot go on: another process moved it, or there is nothing built."""


class DifferenceError(Exception):
    """When the generations differ at the same positions and that was not accepted."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild has got: events applied, events to apply, seconds since it started."""

    done: int
    total: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Row count and digest per table of both generations at the same positions."""

    live: Mapping[str, tuple[int, str]]
    built: Mapping[str, tuple[int, str]]

    @property
    def equal(self) -> bool:
        """Whether the generations hold the same rows."""
        return self.live == self.built


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The rebuild of one view.

    `readers` reads the logs of a consumer's sources, by service; an inline view reads its own log
    from the database. `policy` is what says what follows from what the consumer applies, `views`
    are those of the own log that are read at once.
    """

    pool: Pool
    log: Log
    view: AnyView
    event_types: EventTypes
    readers: Mapping[str, HoleReader]
    policy: Policy[Any] | None = None
    views: Sequence[AnyView] = ()

    @classmethod
    def of_consumer(
        cls,
        pool: Pool,
        log: Log,
        consumer: Consumer[Any],
        readers: Mapping[str, HoleReader],
        views: Sequence[AnyView] = (),
    ) -> Rebuild:
        """The rebuild of a consumer's view."""
        view, event_types = consumer.view, consumer.event_types
        return cls(pool, log, view, event_types, readers, consumer.policy, views)

    async def build(self) -> AsyncIterator[Progress]:
        """Bring the new generation up to the live one's positions, from where it stopped.

        One that is empty is built in bulk, if the view offers that and its logs are not too long.
        """
        generation = await self._generation()
        live, _ = await self._positions(generation)
        places = [Place(self.view.name, *place, generation) for place in live]
        await begin_checkpoints(self.pool, places)
        started = time.monotonic()
        applied = 0
        try:
            # Who stops it may go on once all of it has stopped.
            async with aclosing(self._build_in_bulk(generation)) as built_in_bulk:
                async for applied, total in built_in_bulk:
                    yield Progress(applied, total, time.monotonic() - started)
        except TooMuchForBulkError as reason:
            _log.warning("rebuild.not_in_bulk", view=self.view.name, reason=str(reason))
            applied = 0
        while True:
            live, built = await self._positions(generation)
            behind = {place: live[place] - built.get(place, 0) for place in live}
            total = applied + sum(behind.values())
            yield Progress(applied, total, time.monotonic() - started)
            if total == applied:
                return
            for (source, partition), lag in behind.items():
                if lag > 0:
                    after = built.get((source, partition), 0)
                    applied += await self._step(
                        generation, source, partition, after, min(lag, READ_BATCH_SIZE)
                    )

    async def compare(self) -> Comparison:
        """Digests of both generations at the same positions, taken in one snapshot."""
        generation = await self._built_generation()
        await self._draw_level()
        async with self.pool.acquire() as snapshot:
            async with self._held() as (_, live):
                async with transaction(self.pool) as tx:
                    await self._catch_up(tx, generation, live)
                reading = snapshot.transaction(isolation="repeatable_read", readonly=True)
                await reading.start()
                await snapshot.fetchval("select 1")
            try:
                return Comparison(
                    await digest(snapshot, self.view.name),
                    await digest(snapshot, schema_of(self.view.name, generation)),
                )
            finally:
                await reading.rollback()

    async def swap(self, *, accept_difference: bool = False) -> Comparison:
        """Make the new generation the live one in one transaction, and keep the old one.

        What lies between both is told in it, if the view can say so and has a policy. Raises
        DifferenceError when they differ and that is not accepted; RebuildError when events are
        parked whose policy has yet to say what follows.
        """
        await self._refuse_what_a_policy_waits_for(self.pool)
        comparison = await self.compare()
        if not comparison.equal and not accept_difference:
            raise DifferenceError(f"the generations of {self.view.name} differ; see `compare`")
        generation = await self._built_generation()
        await self._draw_level()
        async with self._held() as (tx, live):
            await self._refuse_what_a_policy_waits_for(tx)
            await self._catch_up(tx, generation, live)
            old = await tx.fetchval(_LIVE_GENERATION, self.view.name)
            now = self.log.clock.now()
            built = schema_of(self.view.name, generation)
            if not comparison.equal:
                await self._tell_difference(tx, built)
            await tx.execute(
                f'alter schema "{self.view.name}" rename to "{schema_of(self.view.name, old)}"'
            )
            await tx.execute(f'alter schema "{built}" rename to "{self.view.name}"')
            await tx.execute(_SET_STATUS, self.view.name, old, RETIRED, None)
            await tx.execute(_SET_STATUS, self.view.name, generation, LIVE, now)
            await tx.execute(_DROP_CHECKPOINTS, self.view.name, generation)
            # A rebuild is strict: the new generation holds what the old one put aside.
            await forget_parked(tx, self.view.name)
        return comparison

    async def drop(self, generation: int) -> None:
        """Remove a generation that is not live."""
        async with transaction(self.pool) as tx:
            live = await tx.fetchval(_LIVE_GENERATION, self.view.name)
            if generation == live:
                raise RebuildError(f"generation {generation} of {self.view.name} is live")
            schema = schema_of(self.view.name, generation)
            await tx.execute(f'drop schema if exists "{schema}" cascade')
            await tx.execute(_DROP_CHECKPOINTS, self.view.name, generation)
            await tx.execute(_FORGET_GENERATION, self.view.name, generation)

    async def _generation(self) -> int:
        """The generation being built; a new one if there is none of the code's shape."""
        async with transaction(self.pool) as tx:
            generation: int | None = await tx.fetchval(
                _BUILDING_GENERATION, self.view.name, self.view.shape
            )
            if generation is None:
                generation = await add_generation(tx, self.view, self.log.clock)
            return generation

    async def _built_generation(self) -> int:
        generation: int | None = await self.pool.fetchval(
            _BUILDING_GENERATION, self.view.name, self.view.shape
        )
        if generation is None:
            raise RebuildError(
                f"no generation of {self.view.name} is being built: run `rebuild` first"
            )
        return generation

    async def _draw_level(self) -> None:
        """Catch up while nothing is held, so that little is left to do while the writers wait."""
        async for _ in self.build():
            pass

    async def _tell_difference(self, tx: Tx, built: str) -> None:
        """Append what follows from the way from the live generation to the new one."""
        if self.policy is None or not isinstance(self.view, TellsDifferences):
            return
        async for applied in self.view.changes_between(tx, self.view.name, built):
            follows = await self.policy.react(tx, (), applied)
            await append_with_views(tx, self.log, self.views, follows)

    async def _refuse_what_a_policy_waits_for(self, connection: Tx | Pool) -> None:
        """A swap would apply parked events without their policy, and forget that it was due."""
        if self.policy is not None and await list_parked(connection, self.view.name, limit=1):
            raise RebuildError(
                f"events of {self.view.name} are parked, and its policy says what follows from "
                "them: retry the parked events first"
            )

    async def _positions(self, generation: int) -> tuple[Positions, Positions]:
        """The live positions, and how far the new generation is."""
        if self.readers:
            live = await read_positions(self.pool, self.view.name)
        else:
            heads = await read_heads(self.pool)
            live = {(self.log.service, partition): head for partition, head in heads.items()}
        return live, await read_positions(self.pool, self.view.name, generation)

    async def _build_in_bulk(self, generation: int) -> AsyncGenerator[tuple[int, int]]:
        """Build an empty generation at once, in one transaction; tells events read, and of all."""
        live, built = await self._positions(generation)
        total = sum(live.values())
        view = self.view
        if any(built.values()) or not isinstance(view, BuildsInBulk):
            return
        if not 0 < total <= view.events_in_bulk_max:
            return
        build = BulkBuild(
            self.pool, self.log.service, view, self.event_types, self._read, generation, live
        )
        try:
            async with aclosing(build.run()) as running:
                async for done in running:
                    yield done, total
        except FencedError as reason:
            raise RebuildError(str(reason)) from None

    async def _step(
        self, generation: int, source: str, partition: int, after: int, limit: int
    ) -> int:
        async with transaction(self.pool) as tx:
            return await self._apply(tx, generation, source, partition, after, limit)

    async def _catch_up(self, tx: Tx, generation: int, live: Positions) -> None:
        """Bring the generation to exactly the live positions in the caller's transaction."""
        built = await read_positions(tx, self.view.name, generation)
        for (source, partition), position in live.items():
            after = built.get((source, partition), 0)
            while after < position:
                limit = min(position - after, READ_BATCH_SIZE)
                after += await self._apply(tx, generation, source, partition, after, limit)

    async def _apply(
        self, tx: Tx, generation: int, source: str, partition: int, after: int, limit: int
    ) -> int:
        """Fold the next events into the generation and move its checkpoint; answers how many."""
        place = Place(self.view.name, source, partition, generation)
        await create_checkpoint(tx, place)
        # Held before the log is read: what an erasure takes meanwhile it takes from here, too.
        await hold_checkpoint(tx, place)
        batch = await self._read(tx, source, partition, after, limit)
        await self._move(tx, place, after, batch[-1].position)
        events = self.event_types.decode_all(batch)
        await self.view.apply(tx, schema_of(self.view.name, generation), events)
        return len(batch)

    async def _move(self, tx: Tx, place: Place, after: int, position: int) -> None:
        """Move a checkpoint of the new generation on from where it was."""
        if await tx.execute(_MOVE, *place.key, after, position) != "UPDATE 1":
            raise RebuildError(f"another process rebuilds {self.view.name}")

    async def _read(
        self, connection: Tx | Pool, source: str, partition: int, after: int, limit: int
    ) -> Sequence[Envelope]:
        """The next events of a log."""
        if source in self.readers:
            batch = await self.readers[source](partition, after, limit)
        else:
            batch = await read_partition(connection, partition, after=after, limit=limit)
        if len(batch) == 0 or batch[0].position != after + 1:
            raise RebuildError(f"the log of {source} does not go on after position {after}")
        return batch

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[tuple[Tx, Positions]]:
        """A transaction in which the live generation does not move, and its positions."""
        async with transaction(self.pool) as tx:
            if self.readers:
                rows = await tx.fetch(_LOCK_CHECKPOINTS, self.view.name)
                yield tx, {(r["source"], r["partition"]): r["position"] for r in rows}
            else:
                heads = await self.log.lock_heads(tx, set(range(self.log.partitions)))
                yield tx, {(self.log.service, p): head.position for p, head in heads.items()}
