"""Streams obey the same rules as single calls, message by message, and deadlines end everything."""

from __future__ import annotations

import asyncio

import pytest

from rapport.common.v1.log_service_pb2 import ReadLogRequest
from services.kernel import errors
from services.kernel.rpc.caller import current_caller
from services.kernel.rpc.pipeline import Deadlines
from tests.contract.echo import EchoStub, response, world


@pytest.fixture
async def echo_world():
    async with world() as made:
        yield made


@pytest.fixture
async def peer(echo_world) -> EchoStub:
    return await echo_world.peer(lambda: echo_world.caller("echo.*"))


async def requests(*limits: int, partition: int = 0):
    for limit in limits:
        yield ReadLogRequest(limit=limit, partition=partition)


def positions(answers) -> list[int]:
    return [event.position for answer in answers for event in answer.events]


async def test_a_stream_of_answers_arrives_whole(peer):
    answers = [answer async for answer in peer.watch(ReadLogRequest(limit=300))]

    assert len(answers) == 300


async def test_a_stream_of_requests_is_answered_once(peer):
    assert positions([await peer.collect(requests(1, 2, 3))]) == [6]


async def test_both_sides_may_stream(peer):
    answers = [answer async for answer in peer.chat(requests(1, 2, 3))]

    assert positions(answers) == [1, 2, 3]


async def test_each_message_of_a_stream_is_judged(echo_world, peer):
    async def mixed():
        yield ReadLogRequest(limit=1)
        yield ReadLogRequest(limit=2, partition=5000)

    answers = peer.chat(mixed())
    first = await anext(answers)
    with pytest.raises(errors.InvalidArgument) as raised:
        await anext(answers)

    assert positions([first]) == [1]
    assert [violation.field for violation in raised.value.violations] == ["partition"]
    with pytest.raises(errors.InvalidArgument):
        await peer.collect(mixed())


async def test_an_error_in_the_middle_of_a_stream_keeps_its_reason(echo_world, peer):
    async def break_off(_):
        yield response(1)
        raise errors.NotFound("contacts/1")

    echo_world.echo.watch = break_off

    answers = peer.watch(ReadLogRequest())
    first = await anext(answers)
    with pytest.raises(errors.NotFound) as raised:
        await anext(answers)

    assert positions([first]) == [1]
    assert raised.value.metadata == {"resource": "contacts/1"}


async def test_a_client_that_leaves_ends_the_stream_it_listened_to(echo_world, peer):
    left = asyncio.Event()

    async def endless(_):
        try:
            while True:
                yield response(1)
        finally:
            left.set()

    echo_world.echo.watch = endless
    stream = peer.watch(ReadLogRequest())
    await anext(stream)
    await stream.aclose()

    async with asyncio.timeout(5):
        await left.wait()


async def test_a_deadline_ends_a_call(echo_world, peer):
    ended = asyncio.Event()

    async def hang(_):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    echo_world.echo.get = hang

    with pytest.raises(errors.DeadlineExceeded):
        await peer.get(ReadLogRequest(), timeout=0.1)
    async with asyncio.timeout(5):
        await ended.wait()


async def test_the_server_has_a_deadline_of_its_own(echo_world):
    async def hang(_):
        await asyncio.Event().wait()

    async def hang_after_one(_):
        yield response(1)
        await asyncio.Event().wait()

    await echo_world.restart(Deadlines(unary_default_s=0.1, unary_max_s=0.1, stream_max_s=0.1))
    echo_world.echo.get, echo_world.echo.watch = hang, hang_after_one
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))

    with pytest.raises(errors.DeadlineExceeded) as raised:
        await peer.get(ReadLogRequest(), timeout=30)
    assert raised.value.reason == errors.Reason.DEADLINE_EXCEEDED
    watching = peer.watch(ReadLogRequest(), timeout=30)
    await anext(watching)
    with pytest.raises(errors.DeadlineExceeded):
        await anext(watching)


async def test_a_call_inside_a_call_gets_no_more_time_than_is_left(echo_world, peer):
    left_s = []

    async def ask_another(_):
        return await peer.set(ReadLogRequest(), timeout=60)

    async def tell(_):
        left_s.append(current_caller().remaining_s)
        return response(1)

    echo_world.echo.get, echo_world.echo.set = ask_another, tell

    await peer.get(ReadLogRequest(), timeout=2)

    assert 0 < left_s[0] < 2.1  # gRPC rounds up on the wire


async def test_a_call_whose_storage_is_being_stopped_is_answered(echo_world, peer):
    async def wait_for_what_is_cancelled(_):
        commit = asyncio.get_running_loop().create_future()
        commit.cancel()
        return await commit

    echo_world.echo.set = wait_for_what_is_cancelled

    with pytest.raises(errors.Unavailable) as raised:
        await peer.set(ReadLogRequest(), timeout=5)

    assert raised.value.metadata == {"service": "storage"}
