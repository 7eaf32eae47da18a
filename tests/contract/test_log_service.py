"""Another service reads this one's log over gRPC: whole, in order, in bounded messages."""

import grpc
import pytest

from rapport.common.v1 import log_service_pb2 as pb
from rapport.common.v1.log_service_pb2_grpc import (
    LogServiceStub,
    add_LogServiceServicer_to_server,
)
from services.kernel.errors import Unavailable
from services.kernel.feed.log_service import RESPONSE_BYTES_MAX, LogServicer, hole_reader
from tests.feed_world import SERVICE, feed_world

UNUSED_NATS_URL = "nats://127.0.0.1:1"


@pytest.fixture
async def world(database):
    async with feed_world(database, UNUSED_NATS_URL) as world:
        yield world


@pytest.fixture
async def stub(world):
    server = grpc.aio.server()
    add_LogServiceServicer_to_server(LogServicer(world.pool), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield LogServiceStub(channel)
    await server.stop(None)


async def test_the_log_is_read_to_its_head(world, stub):
    await world.append(5_000)
    responses = [r async for r in stub.ReadLog(pb.ReadLogRequest(), timeout=10)]
    assert [event for r in responses for event in r.events] == await world.logged()


async def test_a_limit_and_a_start_are_kept(world, stub):
    await world.append(1_000)
    read = hole_reader(stub, SERVICE)
    assert await read(0, 990, 100) == (await world.logged())[990:]
    assert await read(0, 10, 5) == (await world.logged())[10:15]
    assert await read(0, 1_000, 5) == []
    assert await read(0, 2_000, 5) == []


async def test_responses_are_bounded_in_bytes(world, stub):
    for _ in range(3):
        await world.append(10, size=300_000)
    sizes = [r.ByteSize() async for r in stub.ReadLog(pb.ReadLogRequest(), timeout=10)]
    assert len(sizes) > 5
    assert max(sizes) < RESPONSE_BYTES_MAX + 400_000


async def test_heads_are_told(world, stub):
    await world.append(7)
    heads = (await stub.GetHeads(pb.GetHeadsRequest(), timeout=5)).heads
    assert [(head.partition, head.position) for head in heads] == [(0, 7)]


async def test_an_owner_that_does_not_answer_is_unavailable():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(Unavailable):
            await hole_reader(LogServiceStub(channel), SERVICE)(0, 0, 1)
