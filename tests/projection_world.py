"""A log, a consumer that tallies it, and its projection, for the tests that drive one by hand."""

import asyncio
import contextlib
from dataclasses import dataclass

import asyncpg
from prometheus_client import CollectorRegistry

from services.kernel.log.database import transaction
from services.kernel.log.log import read_partition
from services.kernel.log.tables import create_kernel_tables
from services.kernel.views.checkpoint import create_checkpoint, read_positions, take_lease
from services.kernel.views.projection import Consumer, Projection, ProjectionMetrics
from services.kernel.views.view import ensure_live
from tests.tallies import TEXTS, Tallies, text_log


class OwnReader:
    """Reads the log from the database, as a feed would carry it."""

    def __init__(self, pool, partition, after):
        self.pool, self.partition, self.position = pool, partition, after

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def next_batch(self, *, max_events, max_wait_s):
        batch = await read_partition(
            self.pool, self.partition, after=self.position, limit=max_events
        )
        if batch:
            self.position = batch[-1].position
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max_wait_s, 0.01)):
                    await asyncio.Event().wait()
        return batch


@dataclass
class ProjectionWorld:
    """A log `things`, a consumer that tallies it, and perhaps a policy that echoes it."""

    pool: asyncpg.Pool
    log: object
    consumer: Consumer
    metrics: ProjectionMetrics

    async def record(self, *appends):
        async with transaction(self.pool) as tx:
            await self.log.append(tx, appends)

    def projection(self, *, owner="one", lease_s=10.0, consumer=None):
        return Projection(
            pool=self.pool,
            log=self.log,
            consumer=consumer or self.consumer,
            source="things",
            partition=0,
            open_reader=lambda _, partition, after: OwnReader(self.pool, partition, after),
            owner=owner,
            metrics=self.metrics,
            lease_s=lease_s,
        )

    async def lease(self, projection):
        await create_checkpoint(self.pool, projection.place)
        return await take_lease(self.pool, projection.place, projection.owner, projection.lease_s)

    async def batch(self, after=0, limit=1000):
        return await read_partition(self.pool, 0, after=after, limit=limit)

    async def tallies(self):
        rows = await self.pool.fetch("select stream, events, last_text from tallies.tallies")
        return {row["stream"]: (row["events"], row["last_text"]) for row in rows}

    async def echoes(self):
        rows = await self.pool.fetch(
            "select stream, count(*) from kernel.events where stream like 'echo-%' group by 1"
        )
        return {row["stream"]: row["count"] for row in rows}

    async def position(self):
        return (await read_positions(self.pool, "tallies")).get(("things", 0), 0)


async def projection_world(database, policy=None):
    pool = await asyncpg.create_pool(database, min_size=1, max_size=6)
    log = text_log()
    consumer = Consumer(Tallies(), ("things",), TEXTS, policy)
    async with pool.acquire() as connection:
        await create_kernel_tables(connection, 1)
        async with connection.transaction():
            await ensure_live(connection, consumer.view, log.clock)
    return ProjectionWorld(pool, log, consumer, ProjectionMetrics(CollectorRegistry()))
