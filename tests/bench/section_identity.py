"""Events per second through identity: from the feed to profiles, timeline and its own log."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from services.identity.__main__ import SERVICE
from services.kernel.clock import SystemClock
from services.kernel.feed.feed import FeedConnection, stream_name
from services.kernel.process.runtime import open_pool, prepare_database
from tests.bench.anchor import Library
from tests.bench.bare import read_stream
from tests.bench.consuming import follow_feed
from tests.bench.facts import feed_of_events, reader_of_events
from tests.bench.people import EVENTS_PER_VISITOR, Shop
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.sizes import ANCHOR_BULK_SIZE
from tests.bench.world import World

TEMPLATE = "identity_empty"

_numbers = itertools.count(1)


async def identify_all(world: World, connection: FeedConnection, head: int) -> Measured:
    """Runs identity's projection on an empty database until it has applied the whole feed."""
    name = f"identity_{next(_numbers)}"
    url = await world.postgres.create_database(name, TEMPLATE)
    async with open_pool(url) as pool:
        measured = await follow_feed(
            SERVICE,
            pool,
            "events",
            head,
            lambda _source, _partition, after: reader_of_events(connection, after=after),
        )
    await world.postgres.drop_database(name)
    return measured


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    head = await feed_of_events(world)
    async with open_pool(await world.postgres.create_database(TEMPLATE)) as pool:
        await prepare_database(pool, SERVICE, 1, SystemClock())
    library = Library(await world.postgres.create_database("identity_anchor"))
    count = world.sizes.anchor_projected
    shop = Shop("facts", visitors=count // EVENTS_PER_VISITOR)
    await library.timed(library.record, shop.customer_events(count), ANCHOR_BULK_SIZE)
    url = world.nats_server.url
    async with world.feed() as connection:
        yield Bout(
            [
                Contender("identity", partial(identify_all, world, connection, head)),
                Contender("pull", partial(read_stream, url, stream_name("events", 0), head)),
                Contender("library", partial(library.timed, library.project)),
            ],
            _LINES,
        )
    library.close()


_LINES = (
    Line(
        what="events/s through identity",
        ours="identity",
        bare="pull",
        anchor="library",
        note="bare: nats-py reads the same messages; anchor: 1 upsert + checkpoint a transaction",
    ),
)

SECTION = Section(
    "identity", "Identity: customer events from the feed into profiles and timeline", _open
)
