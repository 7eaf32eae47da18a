"""One read through gRPC: how long a caller waits, directly and through the gateway."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc
from asyncpg import Pool
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from rapport.contacts.v1.service_pb2 import CreateContactRequest, GetContactRequest
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.kernel.process.runtime import open_pool
from tests.bench.anchor import Library
from tests.bench.rounds import Bout, Contender, Line, Measured, Metric, Section
from tests.bench.sizes import READ_CALLERS
from tests.bench.world import World

CALL_TIMEOUT_S = 10.0
CREATED_AT_ONCE = 50

_SELECT = "select * from contacts.contacts where workspace = $1 and contact_id = $2"

Read = Callable[[str], Awaitable[object]]


async def timed_reads(read: Read, names: list[str], count: int, callers: int) -> Measured:
    """Reads one after the other per caller, each read timed."""
    waiting = itertools.islice(itertools.cycle(names), count)
    latencies_ms: list[float] = []

    async def caller() -> None:
        for name in waiting:
            began = time.perf_counter()
            await read(name)
            latencies_ms.append((time.perf_counter() - began) * 1e3)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return Measured(count, time.perf_counter() - began, latencies_ms)


def load_aggregates(library: Library, count: int) -> Measured:
    """The other library loads an aggregate in this process; no network between."""
    latencies_ms = []
    began = time.perf_counter()
    for contact in itertools.islice(itertools.cycle(library.contacts), count):
        started = time.perf_counter()
        library.shop.repository.get(contact)
        latencies_ms.append((time.perf_counter() - started) * 1e3)
    return Measured(count, time.perf_counter() - began, latencies_ms)


async def create_contacts(stub: ContactsServiceStub, count: int) -> list[str]:
    """Makes contacts to read; answers their names."""
    names: list[str] = []
    for start in range(0, count, CREATED_AT_ONCE):
        made = await asyncio.gather(
            *(
                stub.CreateContact(
                    CreateContactRequest(given_name="Ada", email=f"{number}@people.example")
                )
                for number in range(start, min(count, start + CREATED_AT_ONCE))
            )
        )
        names += [response.contact.name for response in made]
    return names


def selecting(pool: Pool, workspace: str) -> Read:
    """The same row by SQL from this process."""

    async def read(name: str) -> None:
        found = await pool.fetchrow(_SELECT, workspace, name.removeprefix("contacts/"))
        assert found is not None

    return read


def asking(stub: ContactsServiceStub, **options: object) -> Read:
    """The RPC."""

    async def read(name: str) -> None:
        response = await stub.GetContact(
            GetContactRequest(name=name), timeout=CALL_TIMEOUT_S, **options
        )
        assert response.contact.name == name

    return read


def asking_nothing(channel: grpc.aio.Channel) -> Read:
    """The health check of the same process: what a gRPC call costs that does nothing."""
    stub = HealthStub(channel)

    async def read(_: str) -> None:
        await stub.Check(HealthCheckRequest(), timeout=CALL_TIMEOUT_S)

    return read


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    sizes = world.sizes
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.forget_feeds)
        url = await world.postgres.create_database("rapport_contacts")
        await stack.enter_async_context(world.process("contacts", url))
        await stack.enter_async_context(world.process("gateway"))
        pool = await stack.enter_async_context(open_pool(url))
        peer = await stack.enter_async_context(world.peer("contacts"))
        door = await stack.enter_async_context(
            grpc.aio.insecure_channel(world.addresses["gateway"])
        )
        raw = await stack.enter_async_context(
            grpc.aio.insecure_channel(world.addresses["contacts"])
        )
        key = (("authorization", f"Bearer {world.secrets.api_key}"),)
        names = await create_contacts(ContactsServiceStub(peer), sizes.contacts)
        workspace = await pool.fetchval("select workspace from contacts.contacts limit 1")
        library = Library(await world.postgres.create_database("reads_anchor"))
        stack.callback(library.close)
        await library.timed(library.create_contacts, sizes.contacts)
        ways = {
            "direct": asking(ContactsServiceStub(peer)),
            "gateway": asking(ContactsServiceStub(door), metadata=key),
            "sql": selecting(pool, workspace),
            "empty": asking_nothing(raw),
        }
        contenders = [
            Contender(f"{name} x {callers}", partial(timed_reads, read, names, count, callers))
            for name, read in ways.items()
            for callers, count in zip(
                READ_CALLERS, (sizes.reads_alone, sizes.reads_together), strict=True
            )
        ]
        contenders.append(
            Contender(
                "library", partial(library.timed, load_aggregates, library, sizes.reads_alone)
            )
        )
        yield Bout(contenders, [*_lines("p50_ms"), *_lines("p99_ms")])


def _lines(metric: Metric) -> list[Line]:
    told = metric.removesuffix("_ms")
    return [
        Line(
            what=f"GetContact {way}, {callers} caller{'s' if callers > 1 else ''}, {told}",
            ours=f"{way} x {callers}",
            bare=f"{bare} x {callers}",
            anchor="library" if (bare, callers) == ("sql", 1) else None,
            metric=metric,
            note=note,
        )
        for way, bare, note in (
            ("direct", "sql", "bare: the same row by SQL; anchor: repository.get in one process"),
            ("direct", "empty", "bare: an empty gRPC call (health) of the same process"),
            ("gateway", "direct", "bare: here our own direct call"),
        )
        for callers in READ_CALLERS
    ]


SECTION = Section("reads", "Reads: GetContact through gRPC", _open)
