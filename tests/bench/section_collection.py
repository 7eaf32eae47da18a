"""Collection: a tracker's JSON over HTTP to the durable receipt, beside the least that it can be.

The least: the very same bytes parsed and copied into one table in one process, with nothing of the
platform. And whether it stays as fast when the log has grown tenfold.
"""

from __future__ import annotations

import itertools
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import httpx
import orjson
from asyncpg import Pool

from deploy.stack.nats import Nats
from deploy.stack.ports import free_port
from services.kernel.clock import SystemClock
from services.kernel.log.log import read_heads
from services.kernel.process.runtime import open_pool
from tests.bench.facts import customer_event_facts, fill
from tests.bench.people import EVENTS_PER_VISITOR, Shop
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.section_recording import HTTP_TIMEOUT_S, Recording, settle, through_http, tracked
from tests.bench.sizes import GROWN_TIMES, RECORD_BATCHES, RECORD_CALLERS
from tests.bench.world import World

MOST = (RECORD_BATCHES[-1], RECORD_CALLERS[-1])

# What a table of customer events cannot do without: their order, and each message once.
_KEYS = ", primary key (position), unique (message_id)"

_TABLE = """
create table bare_{name} (
    position bigint not null,
    message_id text not null,
    type text not null,
    name text,
    user_id text,
    anonymous_id text,
    properties text,
    traits text,
    context text,
    original_time timestamptz,
    receive_time timestamptz not null{keys}
)
"""

_COLUMNS = (
    "position",
    "message_id",
    "type",
    "name",
    "user_id",
    "anonymous_id",
    "properties",
    "traits",
    "context",
    "original_time",
    "receive_time",
)


@dataclass
class CopiedJson:
    """The bodies that the gateway gets, parsed and copied into one table, a transaction each."""

    pool: Pool
    name: str
    keys: str
    shop: Shop
    count: int
    reached: int = 0

    async def create(self) -> None:
        """Makes the table."""
        await self.pool.execute(_TABLE.format(name=self.name, keys=self.keys))

    async def copy(self, batch_size: int) -> Measured:
        """Parses and copies the next bodies, one after the other."""
        batches = range(self.count // batch_size)
        bodies = [tracked(self.shop.customer_events(batch_size)) for _ in batches]
        async with self.pool.acquire() as connection:
            began = time.perf_counter()
            for body in bodies:
                async with connection.transaction():
                    await connection.copy_records_to_table(
                        f"bare_{self.name}", columns=_COLUMNS, records=self._rows(body)
                    )
            return Measured(self.count, time.perf_counter() - began)

    def _rows(self, body: bytes) -> Iterator[tuple[object, ...]]:
        receive_time = SystemClock().now()
        for item in orjson.loads(body)["batch"]:
            self.reached += 1
            yield (
                self.reached,
                item["messageId"],
                item["type"],
                item.get("event") or item.get("name"),
                item.get("userId"),
                item.get("anonymousId"),
                _text(item.get("properties")),
                _text(item.get("traits")),
                _text(item.get("context")),
                datetime.fromisoformat(item["timestamp"]),
                receive_time,
            )


def _text(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


@dataclass
class Platform:
    """An events process with its relay and list view, and the gateway in front of it."""

    world: World
    pool: Pool
    client: httpx.AsyncClient
    recording: Recording

    async def post(self, batch_size: int, callers: int) -> Measured:
        """Posts batches, then waits for relay and view, so that rounds are alike."""
        measured = await self.recording.post(through_http(self.client), batch_size, callers)
        await settle(self.pool, self.world)
        return measured

    async def size(self) -> int:
        """How many events the log holds."""
        return (await read_heads(self.pool))[0]

    async def fill(self, until: int) -> None:
        """Appends to the log, past the door, until it holds so many events."""
        shop = Shop(f"filled {await self.size()}", visitors=until // EVENTS_PER_VISITOR)
        missing = until - await self.size()
        await fill(self.pool, "events", customer_event_facts(shop, missing))
        await settle(self.pool, self.world)


@asynccontextmanager
async def platform(world: World, recording: Recording, database: str) -> AsyncIterator[Platform]:
    """A platform on an empty database."""
    basic = b64encode(f"{world.secrets.write_key}:".encode()).decode()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.forget_feeds)
        url = await world.postgres.create_database(database)
        await stack.enter_async_context(world.process("events", url))
        await stack.enter_async_context(world.process("gateway"))
        pool = await stack.enter_async_context(open_pool(url))
        client = httpx.AsyncClient(
            base_url=f"http://{world.addresses['http']}",
            headers={"authorization": f"Basic {basic}"},
            timeout=HTTP_TIMEOUT_S,
        )
        yield Platform(world, pool, await stack.enter_async_context(client), recording)


@contextmanager
def beside(world: World) -> Iterator[World]:
    """A second platform's world: the same PostgreSQL, but feeds and addresses of its own."""
    directory = world.directory / "beside"
    directory.mkdir(exist_ok=True)
    nats_server = Nats(directory / "nats")
    nats_server.start()
    try:
        addresses = {name: f"127.0.0.1:{free_port()}" for name in world.addresses}
        yield replace(world, directory=directory, nats_server=nats_server, addresses=addresses)
    finally:
        nats_server.stop()


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    count = world.sizes.recorded_per_contender
    shop = Shop("collection", visitors=count // EVENTS_PER_VISITOR)
    recording = Recording(shop, count)
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(
            open_pool(await world.postgres.create_database("collection_bare"))
        )
        keyed = CopiedJson(bare, "keyed", _KEYS, shop, count)
        keyless = CopiedJson(bare, "keyless", "", shop, count)
        other = stack.enter_context(beside(world))
        small = await stack.enter_async_context(platform(world, recording, "collection"))
        grown = await stack.enter_async_context(platform(other, recording, "collection_grown"))
        await small.fill(world.sizes.collected)

        async def post_grown() -> Measured:
            await grown.fill(GROWN_TIMES * await small.size())
            return await grown.post(*MOST)

        contenders = [
            Contender(f"http {batch_size} x {callers}", partial(small.post, batch_size, callers))
            for batch_size, callers in itertools.product(RECORD_BATCHES, RECORD_CALLERS)
        ]
        contenders.append(Contender("grown", post_grown))
        for name, copied in (("keyed", keyed), ("keyless", keyless)):
            await copied.create()
            contenders += [
                Contender(f"{name} {batch_size}", partial(copied.copy, batch_size))
                for batch_size in RECORD_BATCHES
            ]
        yield Bout(contenders, _lines())


def _lines() -> list[Line]:
    lines = [
        Line(
            what=f"http, {batch_size} a call, {callers} caller{'s' if callers > 1 else ''}",
            ours=f"http {batch_size} x {callers}",
            bare=f"{name} {batch_size}",
            note=note,
        )
        for batch_size, callers in itertools.product(RECORD_BATCHES, RECORD_CALLERS)
        for name, note in (
            ("keyed", "bare: parsed, COPY into a table with its order and its message ids as keys"),
            ("keyless", "bare: parsed, COPY into a table without any key"),
        )
    ]
    batch_size, callers = MOST
    lines.append(
        Line(
            what=f"{GROWN_TIMES} times the log, {batch_size} a call, {callers} callers",
            ours="grown",
            bare=f"http {batch_size} x {callers}",
            note=f"here 'bare' is our own rate, at {GROWN_TIMES} times fewer events in the log",
        )
    )
    return lines


SECTION = Section(
    "collection",
    "Collection: a tracker's JSON over HTTP to the durable receipt, customer events/s "
    "(bare: the same bytes parsed and copied by one process)",
    _open,
)
