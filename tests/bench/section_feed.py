"""The feed: from the log to JetStream, and from JetStream to a consumer's batches."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import nats
from asyncpg import Pool

from services.kernel.feed.feed import FeedConnection, stream_name, subject_of
from services.kernel.log.log import read_all
from services.kernel.process.runtime import open_pool
from services.kernel.views.projection import BATCH_SIZE_MAX
from tests.bench.bare import NATS_TIMEOUT_S, publish, read_stream
from tests.bench.facts import feed_of_events, log_of, reader_of_events, relay_until
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.world import World

BARE = "BARE"
READ_WITHIN_S = 5.0


async def relay_all(pool: Pool, connection: FeedConnection, url: str, head: int) -> Measured:
    """Relays the whole log into a feed that was just lost."""
    client = await nats.connect(url)
    with suppress(nats.js.errors.NotFoundError):
        await client.jetstream(timeout=NATS_TIMEOUT_S).delete_stream(stream_name("events", 0))
    await client.close()
    began = time.perf_counter()
    await relay_until(pool, connection, head)
    return Measured(head, time.perf_counter() - began)


async def read_all_batches(connection: FeedConnection, head: int) -> Measured:
    """Reads the whole feed as a consumer does: parsed, checked, in batches."""
    began = time.perf_counter()
    async with reader_of_events(connection) as reader:
        while reader.position < head:
            await reader.next_batch(max_events=BATCH_SIZE_MAX, max_wait_s=READ_WITHIN_S)
        return Measured(head, time.perf_counter() - began)


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    head = await feed_of_events(world)
    async with open_pool(await log_of(world, "events")) as pool, world.feed() as connection:
        messages = [
            (f"bare.{subject_of('events', event)}", event.SerializeToString())
            async for batch in read_all(pool, 0, after=0, until=head)
            for event in batch
        ]
        url = world.nats_server.url
        await publish(url, messages, BARE)
        yield Bout(
            [
                Contender("relay", partial(relay_all, pool, connection, url, head)),
                Contender("reader", partial(read_all_batches, connection, head)),
                Contender("publish", partial(publish, url, messages, BARE)),
                Contender("pull", partial(read_stream, url, BARE, head)),
            ],
            _LINES,
        )


_LINES = (
    Line(
        what="relay: log to feed",
        ours="relay",
        bare="publish",
        note="bare: the same bodies published, no log read, no guard, no message id",
    ),
    Line(
        what="reader: feed to batches",
        ours="reader",
        bare="pull",
        note="bare: nats-py fetch(1000), bytes only; ours parses and checks every position",
    ),
)

SECTION = Section("feed", "Feed: events/s into JetStream and out of it", _open)
