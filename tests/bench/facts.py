"""Logs full of facts, and the feed of one of them: what consumers and rebuilds are measured on.

Made once per run, through the log's own append, whichever section asks first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from asyncpg import Pool
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from deploy.stack.keys import WORKSPACE
from rapport.common.v1.envelope_pb2 import Envelope
from services.events.door import Door
from services.events.receipts import Batch, Inlet
from services.kernel.clock import SystemClock, new_ids
from services.kernel.feed.feed import FeedConnection, stream_name
from services.kernel.feed.reader import FeedReader, ReaderMetrics
from services.kernel.feed.relay import Relay, RelayMetrics
from services.kernel.log.log import Append, Log, NewEvent, Origin, read_heads
from services.kernel.log.tables import create_kernel_tables
from services.kernel.process.runtime import open_pool
from tests.bench.people import EVENTS_PER_VISITOR, Shop, contact_events, deal_events
from tests.bench.world import World, caught_up

FILL_BATCH = 1_000
STOP_WITHIN_S = 10.0


async def log_of(world: World, service: str) -> str:
    """The URL of the database with a service's filled log."""
    name = f"facts_{service}"
    if name not in world.made:
        world.made[name] = await world.postgres.create_database(name)
        async with open_pool(world.made[name]) as pool:
            async with pool.acquire() as connection:
                await create_kernel_tables(connection, 1)
            await fill(pool, service, _facts(world, service))
            await pool.execute("analyze")
    return world.made[name]


async def feed_of_events(world: World) -> int:
    """Fills the feed of customer events from their log; answers how many there are."""
    url = await log_of(world, "events")
    async with open_pool(url) as pool, world.feed() as connection:
        head = (await read_heads(pool))[0]
        if "feed" not in world.made:
            await relay_until(pool, connection, head)
            world.made["feed"] = stream_name("events", 0)
    return head


async def relay_until(pool: Pool, connection: FeedConnection, head: int) -> None:
    """Runs the relay of the customer events' log until the feed holds the position."""
    relay = Relay(
        pool,
        connection,
        service="events",
        partition=0,
        metrics=RelayMetrics(CollectorRegistry()),
    )
    task = asyncio.create_task(relay.run())
    try:
        await caught_up(lambda: task.done() or relay.position >= head)
    finally:
        relay.stop()
        async with asyncio.timeout(STOP_WITHIN_S):
            await task


def reader_of_events(connection: FeedConnection, *, after: int = 0) -> FeedReader:
    """A reader of the customer events' feed that must never ask the owner."""
    return FeedReader(
        connection,
        service="events",
        partition=0,
        after_position=after,
        hole_reader=_no_owner,
        metrics=ReaderMetrics(CollectorRegistry()),
    )


async def _no_owner(partition: int, after_position: int, limit: int) -> Sequence[Envelope]:
    raise AssertionError(f"the feed lacks {limit} after {partition}/{after_position}")


def _facts(world: World, service: str) -> Iterable[tuple[str, NewEvent]]:
    sizes = world.sizes
    if service == "contacts":
        return _now(contact_events(sizes.facts_contacts))
    if service == "deals":
        return _now(deal_events(sizes.facts_deals))
    shop = Shop("facts", visitors=sizes.customer_events // EVENTS_PER_VISITOR)
    return customer_event_facts(shop, sizes.customer_events)


def customer_event_facts(shop: Shop, count: int) -> Iterator[tuple[str, NewEvent]]:
    """What the door makes of the shop's next customer events: (stream, event)."""
    for begin in range(0, count, FILL_BATCH):
        inlet = Inlet(Door(), receive_time=SystemClock().now(), call="bench")
        batch = Batch(shop.customer_events(min(FILL_BATCH, count - begin)), inlet)
        for stream, fresh in batch.fresh.items():
            yield stream, NewEvent(fresh.fact, fresh.occur_time)


def _now(events: Iterable[tuple[str, Message]]) -> Iterable[tuple[str, NewEvent]]:
    return ((stream, NewEvent(event)) for stream, event in events)


async def fill(pool: Pool, service: str, facts: Iterable[tuple[str, NewEvent]]) -> None:
    """Appends facts to a log, whoever else does."""
    log = Log(service=service, partitions=1, clock=SystemClock(), new_ids=new_ids)
    origin = Origin(WORKSPACE, "api_keys/bench", "bench", "")
    left = iter(facts)
    while batch := list(islice(left, FILL_BATCH)):
        appends = [Append(origin, stream, [event]) for stream, event in batch]
        async with pool.acquire() as connection, connection.transaction():
            await log.append(connection, appends)
