"""A log, its feed and a relay or two, for the tests that compare them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import asyncpg
import nats
from google.protobuf.wrappers_pb2 import StringValue
from nats.js import api
from prometheus_client import CollectorRegistry

from services.kernel.clock import SystemClock, new_ids
from services.kernel.feed.feed import FeedConnection, stream_name
from services.kernel.feed.reader import FeedReader, ReaderMetrics
from services.kernel.feed.relay import Relay, RelayMetrics
from services.kernel.log.log import (
    Append,
    Log,
    NewEvent,
    Origin,
    read_all,
    read_heads,
    read_partition,
)
from services.kernel.log.tables import create_kernel_tables
from services.kernel.testing import eventually

SERVICE = "things"
STREAM = stream_name(SERVICE, 0)


@dataclass
class FeedWorld:
    """One service's log in a database, and the NATS server that carries it."""

    pool: asyncpg.Pool
    database_url: str
    nats_url: str
    log: Log
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self):
        self.relay_metrics = RelayMetrics(self.registry)
        self.reader_metrics = ReaderMetrics(self.registry)

    async def append(self, count, *, stream="thing-1", workspace="acme", size=10):
        """Records events in one transaction; answers them as they were recorded."""
        origin = Origin(workspace, "tests", "correlation", "causation")
        events = [NewEvent(StringValue(value=f"{number}".ljust(size))) for number in range(count)]
        async with self.pool.acquire() as connection, connection.transaction():
            landed = await self.log.append(connection, [Append(origin, stream, events)])
        return landed.events

    async def logged(self):
        """The whole log."""
        head = (await read_heads(self.pool))[0]
        batches = [batch async for batch in read_all(self.pool, 0, after=0, until=head)]
        return [event for batch in batches for event in batch]

    async def carried(self):
        """What the feed holds, message by message: (sequence, bytes)."""
        return await messages(self.nats_url)

    async def assert_same(self):
        """The feed equals the log, position for position and byte for byte."""
        wanted = [(event.position, event.SerializeToString()) for event in await self.logged()]
        found = await self.carried()
        assert len(found) == len(wanted)
        assert found == wanted

    def relay(self, connection, **options):
        """A relay that is not running yet."""
        return Relay(
            self.pool,
            connection,
            service=SERVICE,
            partition=0,
            metrics=self.relay_metrics,
            **options,
        )

    def reader(self, connection, *, after=0, hole_reader=None, **options):
        """A reader whose owner is the database itself."""
        return FeedReader(
            connection,
            service=SERVICE,
            partition=0,
            after_position=after,
            hole_reader=hole_reader or self.read_owner,
            metrics=self.reader_metrics,
            **options,
        )

    async def read_owner(self, partition, after_position, limit):
        """What the owner's LogService would answer."""
        return await read_partition(self.pool, partition, after=after_position, limit=limit)

    def count(self, name):
        """The value of a counter of the only feed."""
        return self.registry.get_sample_value(name, {"service": SERVICE, "partition": "0"})


@contextlib.asynccontextmanager
async def feed_world(database_url, nats_url):
    """Makes the tables and the pool."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 1)
        log = Log(service=SERVICE, partitions=1, clock=SystemClock(), new_ids=new_ids)
        yield FeedWorld(pool, database_url, nats_url, log)


@contextlib.asynccontextmanager
async def connected(url):
    """A feed connection that is up."""
    async with FeedConnection(url, name="tests") as connection:

        def up():
            assert connection.is_up

        await eventually(up)
        yield connection


@contextlib.asynccontextmanager
async def running(relay):
    """Runs a relay; its error, if any, is raised at the end."""
    task = asyncio.create_task(relay.run())
    try:
        yield task
    finally:
        relay.stop()
        async with asyncio.timeout(10):
            await task


async def messages(url, stream=STREAM):
    """Reads a whole stream past our own reader."""
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        try:
            state = (await jetstream.stream_info(stream)).state
        except nats.js.errors.NotFoundError:
            return []
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.NONE)
        found = []
        if state.messages:
            pulled = await jetstream.pull_subscribe("", stream=stream, config=config)
            while len(found) < state.messages:
                fetched = await pulled.fetch(1_000, timeout=5)
                found += [(message.metadata.sequence.stream, message.data) for message in fetched]
        return found
    finally:
        await client.close()
