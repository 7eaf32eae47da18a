"""A server that stops finishes what it began, takes nothing new, and does not wait for ever."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rapport.common.v1.log_service_pb2 import ReadLogRequest
from services.kernel import errors
from services.kernel.rpc.caller import draining
from services.kernel.rpc.pipeline import LOOKERS_MAX
from tests.contract.echo import response, world


@pytest.fixture
async def echo_world():
    async with world() as made:
        yield made


class Held:
    """A handler that is inside a call until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, _: ReadLogRequest):
        self.entered.set()
        await self.let_go.wait()
        return response(7)


async def test_a_call_in_flight_is_finished_and_a_new_one_refused(echo_world):
    held = echo_world.echo.get = Held()
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    asking = asyncio.create_task(peer.get(ReadLogRequest()))
    await held.entered.wait()

    stopping = asyncio.create_task(echo_world.server.stop(grace_s=10))
    while echo_world.server.serving:
        await asyncio.wait({stopping}, timeout=0.01)
    with pytest.raises(errors.Unavailable):
        await peer.set(ReadLogRequest(), timeout=2)
    assert not stopping.done()
    held.let_go.set()
    answer = await asking
    async with asyncio.timeout(5):
        await stopping

    assert answer.events[0].position == 7


async def test_a_server_knows_that_it_is_asked_and_that_it_was_long_ago(echo_world, monkeypatch):
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    before = echo_world.server.is_asked()
    await peer.get(ReadLogRequest())
    just_then = echo_world.server.is_asked()
    monkeypatch.setattr("services.kernel.rpc.pipeline.ASKED_WITHIN_S", 0)

    assert (before, just_then, echo_world.server.is_asked()) == (False, True, False)


async def test_what_does_not_end_within_the_grace_is_cancelled(echo_world):
    held = echo_world.echo.get = Held()
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    asking = asyncio.create_task(peer.get(ReadLogRequest()))
    await held.entered.wait()

    async with asyncio.timeout(5):
        await echo_world.server.stop(grace_s=0.1)

    with pytest.raises(errors.Unavailable):
        await asking


async def test_a_stream_is_told_to_end(echo_world):
    async def watch(_):
        yield response(1)
        await draining().wait()
        yield response(2)

    echo_world.echo.watch = watch
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    stream = peer.watch(ReadLogRequest())
    await anext(stream)

    async with asyncio.timeout(5):
        stopping = asyncio.create_task(echo_world.server.stop(grace_s=30))
        rest = [answer async for answer in stream]
        await stopping

    assert [answer.events[0].position for answer in rest] == [2]


async def test_who_only_looks_on_takes_no_room_of_others(echo_world):
    stub = health_pb2_grpc.HealthStub(await echo_world.bare())
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(LOOKERS_MAX)]
    for watch in watches:
        await watch.read()

    one_more = stub.Watch(health_pb2.HealthCheckRequest())

    assert await one_more.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    for watch in watches:
        watch.cancel()


async def test_who_watches_our_health_hears_the_end_and_is_not_waited_for(echo_world):
    stub = health_pb2_grpc.HealthStub(await echo_world.bare())
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
    first = await watch.read()
    held = echo_world.echo.get = Held()
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    asking = asyncio.create_task(peer.get(ReadLogRequest()))
    await held.entered.wait()

    async with asyncio.timeout(5):
        stopping = asyncio.create_task(echo_world.server.stop(grace_s=30))
        second = await watch.read()
        held.let_go.set()
        await asking
        await stopping

    heard = [first.status, second.status]
    answer = health_pb2.HealthCheckResponse
    assert heard == [answer.SERVING, answer.NOT_SERVING]
