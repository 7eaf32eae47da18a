"""Customer events per second to the durable answer, through ever more of the platform."""

from __future__ import annotations

import asyncio
import itertools
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import httpx
import nats
import orjson
from asyncpg import Pool

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.service_pb2 import RecordCustomerEventsRequest, RecordCustomerEventsResponse
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events.__main__ import SERVICE
from services.events.projections.doors import Doors
from services.events.recording import Recorder
from services.events.service.customer_events import EventsService
from services.kernel.feed.feed import stream_name
from services.kernel.log.log import read_heads
from services.kernel.process.runtime import open_pool
from services.kernel.rpc.caller import acting_as
from services.kernel.views.checkpoint import read_positions
from tests.bench.anchor import Library
from tests.bench.bare import CopiedLog
from tests.bench.people import EVENTS_PER_VISITOR, Shop
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.sizes import ANCHOR_BULK_MAX, RECORD_BATCHES, RECORD_CALLERS
from tests.bench.world import CAUGHT_UP_WITHIN_S, World, bench_caller, kernel_of

Send = Callable[[Any], Awaitable[None]]

CONTENT = {"content-type": "application/json"}
HTTP_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 30.0
PAUSE_S = 0.01


class Recording:
    """Callers who send batches of customer events in one of several ways."""

    def __init__(self, shop: Shop, count: int) -> None:
        self._shop = shop
        self._count = count

    async def record(self, send: Send, batch_size: int, callers: int) -> Measured:
        """Sends the batches through gRPC messages."""
        return await self._timed(send, self._requests(batch_size), callers)

    async def post(self, send: Send, batch_size: int, callers: int) -> Measured:
        """Sends the batches as a tracker's JSON."""
        bodies = [tracked(request.customer_events) for request in self._requests(batch_size)]
        return await self._timed(send, bodies, callers)

    def sent(self, count: int) -> list[CustomerEvent]:
        """Customer events for the other library."""
        return self._shop.customer_events(count)

    def _requests(self, batch_size: int) -> list[RecordCustomerEventsRequest]:
        return [
            RecordCustomerEventsRequest(customer_events=self._shop.customer_events(batch_size))
            for _ in range(self._count // batch_size)
        ]

    async def _timed(self, send: Send, batches: Sequence[object], callers: int) -> Measured:
        waiting: Iterator[object] = iter(batches)

        async def caller() -> None:
            for batch in waiting:
                await send(batch)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return Measured(self._count, time.perf_counter() - began)


def tracked(sent: Sequence[CustomerEvent]) -> bytes:
    """A batch as Segment's trackers send it."""
    return orjson.dumps({"batch": [_tracked(each) for each in sent]})


def _tracked(sent: CustomerEvent) -> dict[str, object]:
    kind = CustomerEventType.Name(sent.type).removeprefix("CUSTOMER_EVENT_TYPE_").lower()
    item: dict[str, object] = {
        "type": kind,
        "messageId": sent.message_id,
        "anonymousId": sent.anonymous_id,
        "timestamp": sent.original_time.ToJsonString(),
        "context": orjson.Fragment(sent.context),
    }
    if sent.user_id:
        item["userId"] = sent.user_id
    if sent.name:
        item["event" if kind == "track" else "name"] = sent.name
    for name in ("properties", "traits"):
        if value := getattr(sent, name):
            item[name] = orjson.Fragment(value)
    return item


def accepted(response: RecordCustomerEventsResponse) -> None:
    """A number without this would be one of refusals."""
    assert {1} == {receipt.outcome for receipt in response.receipts}


def through_service(service: EventsService) -> Send:
    """The handler in this process: no gRPC, no relay, no view beside it."""

    async def send(request: Any) -> None:
        with acting_as(bench_caller()):
            accepted(await service.RecordCustomerEvents(request, None))

    return send


def through_stub(stub: EventsServiceStub, metadata: tuple[tuple[str, str], ...] = ()) -> Send:
    """A gRPC call to another process."""
    options = {"metadata": metadata} if metadata else {}

    async def send(request: Any) -> None:
        accepted(await stub.RecordCustomerEvents(request, timeout=CALL_TIMEOUT_S, **options))

    return send


def through_http(client: httpx.AsyncClient) -> Send:
    """POST /v1/batch to the gateway."""

    async def send(body: Any) -> None:
        response = await client.post("/v1/batch", content=body, headers=CONTENT)
        assert response.status_code == 200, response.text

    return send


async def settle(pool: Pool, world: World) -> None:
    """Waits until the process's relay and views have caught up, so that rounds are alike."""
    client = await nats.connect(world.nats_server.url)
    try:
        manager = client.jetstream()
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            while True:
                head = (await read_heads(pool))[0]
                reached = [
                    (await read_positions(pool, consumer.name)).get(("events", 0), 0)
                    for consumer in SERVICE.consumers
                ]
                feed = await manager.stream_info(stream_name("events", 0))
                if min(*reached, feed.state.last_seq) >= head:
                    return
                await asyncio.sleep(PAUSE_S)
    finally:
        await client.close()


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    count = world.sizes.recorded_per_contender
    recording = Recording(Shop("recording", visitors=count // EVENTS_PER_VISITOR), count)
    async with AsyncExitStack() as stack:
        kernel = await stack.enter_async_context(
            kernel_of(SERVICE, await world.postgres.create_database("recording"))
        )
        here = through_service(
            EventsService(kernel, Recorder(kernel, Doors(kernel.pool, kernel.derive_key)))
        )
        await recording.record(here, RECORD_BATCHES[-1], RECORD_CALLERS[-1])
        contenders = _ways("service", partial(recording.record, here))
        for batch_size in RECORD_BATCHES:
            copied = CopiedLog(kernel.pool, f"bare_{batch_size}", batch_size)
            await copied.create()
            contenders.append(Contender(f"copy {batch_size}", partial(copied.copy, count)))
        contenders += await _processes(world, stack, recording)
        contenders += await _library(world, stack, recording)
        yield Bout(contenders, _lines())


async def _processes(world: World, stack: AsyncExitStack, recording: Recording) -> list[Contender]:
    """The events process, and the gateway in front of it."""
    stack.push_async_callback(world.forget_feeds)
    url = await world.postgres.create_database("rapport_events")
    await stack.enter_async_context(world.process("events", url))
    await stack.enter_async_context(world.process("gateway"))
    pool = await stack.enter_async_context(open_pool(url))
    peer = await stack.enter_async_context(world.peer("events"))
    door = await stack.enter_async_context(grpc.aio.insecure_channel(world.addresses["gateway"]))
    key = (("authorization", f"Bearer {world.secrets.api_key}"),)
    basic = b64encode(f"{world.secrets.write_key}:".encode()).decode()
    client = await stack.enter_async_context(
        httpx.AsyncClient(
            base_url=f"http://{world.addresses['http']}",
            headers={"authorization": f"Basic {basic}"},
            timeout=HTTP_TIMEOUT_S,
        )
    )
    ways = {
        "grpc": partial(recording.record, through_stub(EventsServiceStub(peer))),
        "gateway": partial(recording.record, through_stub(EventsServiceStub(door), key)),
        "http": partial(recording.post, through_http(client)),
    }

    def settled(run: Callable[[], Awaitable[Measured]]) -> Callable[[], Awaitable[Measured]]:
        async def settled_run() -> Measured:
            measured = await run()
            await settle(pool, world)
            return measured

        return settled_run

    return [
        Contender(contender.name, settled(contender.run))
        for name, record in ways.items()
        for contender in _ways(name, record)
    ]


async def _library(world: World, stack: AsyncExitStack, recording: Recording) -> list[Contender]:
    library = Library(await world.postgres.create_database("recording_anchor"))
    stack.callback(library.close)

    def bulk(size: int) -> Callable[[], Awaitable[Measured]]:
        return lambda: library.timed(
            library.record,
            recording.sent(world.sizes.anchor_bulk),
            min(size, ANCHOR_BULK_MAX),
        )

    return [Contender(f"library {size}", bulk(size)) for size in RECORD_BATCHES]


def _ways(name: str, record: Callable[[int, int], Awaitable[Measured]]) -> list[Contender]:
    return [
        Contender(f"{name} {batch_size} x {callers}", partial(record, batch_size, callers))
        for batch_size, callers in itertools.product(RECORD_BATCHES, RECORD_CALLERS)
    ]


def _lines() -> list[Line]:
    told = {
        "service": "handler called in this process",
        "grpc": "process with its relay and list view at work beside it",
        "gateway": "the same behind the gateway's gRPC",
        "http": "the same behind the gateway's POST /v1/batch",
    }
    return [
        Line(
            what=f"{name}, {batch_size} a call, {callers} caller{'s' if callers > 1 else ''}",
            ours=f"{name} {batch_size} x {callers}",
            bare=f"copy {batch_size}",
            anchor=f"library {batch_size}",
            note=note,
        )
        for name, note in told.items()
        for batch_size, callers in itertools.product(RECORD_BATCHES, RECORD_CALLERS)
    ]


SECTION = Section(
    "recording",
    "Customer events/s to the durable answer (bare: COPY of the same rows, 1 caller; "
    f"anchor: as many per save, at most {ANCHOR_BULK_MAX})",
    _open,
)
