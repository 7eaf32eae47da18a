"""One profile through gRPC: as it is and as it was, directly and through the gateway.

In quiet, and while customer events keep coming in and are resolved by the process that answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import grpc
from asyncpg import Pool
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.events.v1.service_pb2 import RecordCustomerEventsRequest
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.identity.v1.service_pb2 import GetProfileRequest
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from services.kernel.clock import SystemClock
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import open_pool
from tests.bench.consuming import identity_log
from tests.bench.facts import log_of
from tests.bench.people import EVENTS_PER_VISITOR, Shop
from tests.bench.rounds import Bout, Contender, Line, Measured, Metric, Section
from tests.bench.section_reads import CALL_TIMEOUT_S, Read, timed_reads
from tests.bench.section_recording import accepted, settle
from tests.bench.sizes import LOAD_BATCH, LOAD_PER_S, READ_CALLERS
from tests.bench.world import World

CATCHES_UP_WITHIN_S = 120.0
# How long customer events have been coming in when reads begin.
LOAD_LEAD_S = 1.0
TOGETHER = READ_CALLERS[-1]

_SOME = "select profile from profiles.profiles order by profile limit $1"
_SELECT = "select * from profiles.profiles where workspace = $1 and profile = $2"
_WORKSPACE = "select workspace from profiles.profiles limit 1"


def selecting(pool: Pool, workspace: str) -> Read:
    """The row by which a profile is listed, by SQL from this process."""

    async def read(name: str) -> None:
        found = await pool.fetchrow(_SELECT, workspace, name.removeprefix("profiles/"))
        assert found is not None

    return read


def asking(stub: IdentityServiceStub, moment: Timestamp | None = None, **options: object) -> Read:
    """The RPC: with identifiers, traits and who said them, or as of a moment."""

    async def read(name: str) -> None:
        request = GetProfileRequest(name=name, read_time=moment)
        response = await stub.GetProfile(request, timeout=CALL_TIMEOUT_S, **options)
        assert response.profile.name == name

    return read


class Load:
    """Customer events that come in at a steady rate while something else is measured."""

    def __init__(
        self, events: EventsServiceStub, identity: IdentityServiceStub, shop: Shop
    ) -> None:
        self._events = events
        self._identity = identity
        self._shop = shop
        self._token = ""

    async def beside(self, run: Callable[[], Awaitable[Measured]], name: str) -> Measured:
        """Measures under it; returns when all of it is resolved, within a call's time."""
        sending = asyncio.create_task(self._send())
        try:
            await asyncio.sleep(LOAD_LEAD_S)
            measured = await run()
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
        request = GetProfileRequest(name=name, read_token=self._token)
        await self._identity.GetProfile(request, timeout=CALL_TIMEOUT_S)
        return measured

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            sent = self._shop.customer_events(LOAD_BATCH)
            response = await self._events.RecordCustomerEvents(
                RecordCustomerEventsRequest(customer_events=sent), timeout=CALL_TIMEOUT_S
            )
            accepted(response)
            self._token = response.write_token
            due += LOAD_BATCH / LOAD_PER_S
            await asyncio.sleep(due - loop.time())


@asynccontextmanager
async def _load(world: World, identity: IdentityServiceStub) -> AsyncIterator[Load]:
    """The events process, whose log goes on where identity has followed it to."""
    await log_of(world, "events")
    url = await world.postgres.create_database("profiles_events", "facts_events")
    async with world.process("events", url), world.peer("events") as peer, open_pool(url) as pool:
        await settle(pool, world)
        shop = Shop("load", visitors=world.sizes.customer_events // EVENTS_PER_VISITOR)
        yield Load(EventsServiceStub(peer), identity, shop)


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    sizes = world.sizes
    async with AsyncExitStack() as stack:
        await identity_log(world)
        # Feeds that are left belong to other databases than those of here.
        await world.forget_feeds()
        stack.push_async_callback(world.forget_feeds)
        url = await world.postgres.create_database("profiles_read", "facts_identity")
        await stack.enter_async_context(world.process("identity", url))
        await stack.enter_async_context(world.process("gateway"))
        pool = await stack.enter_async_context(open_pool(url))
        direct = IdentityServiceStub(await stack.enter_async_context(world.peer("identity")))
        door = await stack.enter_async_context(
            grpc.aio.insecure_channel(world.addresses["gateway"])
        )
        key = (("authorization", f"Bearer {world.secrets.api_key}"),)
        names = [f"profiles/{row['profile']}" for row in await pool.fetch(_SOME, sizes.contacts)]
        moment = timestamp_of(SystemClock().now())
        # Once the past is known up to here, nobody waits for it any longer.
        await direct.GetProfile(
            GetProfileRequest(name=names[0], read_time=moment), timeout=CATCHES_UP_WITHIN_S
        )
        ways = {
            "direct": asking(direct),
            "past": asking(direct, moment),
            "gateway": asking(IdentityServiceStub(door), metadata=key),
            "sql": selecting(pool, await pool.fetchval(_WORKSPACE)),
        }
        counts = zip(READ_CALLERS, (sizes.reads_alone, sizes.reads_together), strict=True)
        contenders = [
            Contender(f"{name} x {callers}", partial(timed_reads, read, names, count, callers))
            for callers, count in counts
            for name, read in ways.items()
        ]
        load = await stack.enter_async_context(_load(world, direct))
        contenders += [
            Contender(
                f"{name} loaded",
                partial(
                    load.beside,
                    partial(timed_reads, ways[name], names, sizes.reads_together, TOGETHER),
                    names[0],
                ),
            )
            for name in ("gateway", "sql")
        ]
        yield Bout(contenders, [*_lines("p50_ms"), *_lines("p99_ms")])


def _lines(metric: Metric) -> list[Line]:
    told = metric.removesuffix("_ms")
    loaded = Line(
        what=f"GetProfile gateway, {TOGETHER} callers, under load, {told}",
        ours="gateway loaded",
        bare="sql loaded",
        metric=metric,
        note=f"load: {LOAD_PER_S:,} customer events/s are resolved; bare: the row, under it, too",
    )
    quiet = [
        Line(
            what=f"GetProfile {what}, {callers} caller{'s' if callers > 1 else ''}, {told}",
            ours=f"{way} x {callers}",
            bare=f"{bare} x {callers}",
            metric=metric,
            note=note,
        )
        for way, what, bare, note in (
            ("direct", "direct", "sql", "bare: the row that lists it, by SQL"),
            ("past", "as of a moment", "direct", "bare: here our own answer as of now"),
            ("gateway", "gateway", "sql", "bare: the row that lists it, by SQL"),
        )
        for callers in READ_CALLERS
    ]
    return [*quiet, loaded]


SECTION = Section("profiles", "Profiles: GetProfile through gRPC", _open)
