"""A peer hears in whose name we speak, within what call; only harmless calls are repeated."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from rapport.common.v1.log_service_pb2 import ReadLogRequest
from services.kernel import errors
from services.kernel.process import telemetry
from services.kernel.rpc.caller import acting_as, current_caller
from services.kernel.rpc.client import service_config, target_of
from tests.contract.echo import ECHO, response, world

# By then it is long until the next attempt to connect.
CONNECTIONS_GIVEN_UP = 50

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def echo_world():
    async with world() as made:
        yield made


async def test_an_error_of_a_peer_is_raised_as_our_own(echo_world):
    async def fail(_):
        raise errors.AlreadyExists("contacts/1", "email")

    echo_world.echo.get = fail
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))

    with pytest.raises(errors.AlreadyExists) as raised:
        await peer.get(ReadLogRequest())

    assert raised.value.reason is errors.Reason.RESOURCE_EXISTS
    assert raised.value.metadata == {"existing_name": "contacts/1", "field": "email"}
    assert str(raised.value) == "contacts/1 already has this email"


async def test_a_peer_that_is_not_there_is_unavailable_without_its_address(echo_world, free_port):
    caller = echo_world.caller("echo.*")
    peer = await echo_world.peer(lambda: caller, address=f"127.0.0.1:{free_port}")

    with pytest.raises(errors.Unavailable) as raised:
        await peer.set(ReadLogRequest(), timeout=5)

    assert raised.value.metadata == {"service": "echo"}
    assert str(free_port) not in str(raised.value)


async def test_the_caller_the_trace_and_the_correlation_id_go_along(echo_world):
    heard = []
    passing_on = await echo_world.peer(current_caller)

    async def pass_on(_):
        heard.append((current_caller(), telemetry.traceparent()))
        return await passing_on.set(ReadLogRequest())

    async def listen(_):
        heard.append((current_caller(), telemetry.traceparent()))
        return response(1)

    echo_world.echo.get, echo_world.echo.set = pass_on, listen
    outside = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    get = outside.get

    with telemetry.server_span("edge", TRACEPARENT):
        await get(ReadLogRequest())

    (first, first_trace), (second, second_trace) = heard
    assert first == second
    assert first.correlation_id
    assert first_trace == second_trace == TRACEPARENT


async def test_a_policy_speaks_as_whom_it_acts_for(echo_world):
    heard = []

    async def listen(_):
        heard.append(current_caller())
        return response(1)

    echo_world.echo.set = listen
    peer = await echo_world.peer(current_caller)

    with acting_as(echo_world.caller("echo.write", workspace="globex")):
        await peer.set(ReadLogRequest())
    with pytest.raises(errors.Bug):
        await peer.set(ReadLogRequest())

    assert [caller.workspace for caller in heard] == ["globex"]


async def test_a_correlation_id_that_is_not_fit_to_log_is_replaced(echo_world):
    stub = grpc_path(await echo_world.bare())
    metadata = ((telemetry.CORRELATION_METADATA, "a b c " * 50),)

    call = stub(b"", metadata=metadata, timeout=5)
    trailing = dict(await call.trailing_metadata())

    assert telemetry.is_correlation_id(trailing[telemetry.CORRELATION_METADATA])
    assert " " not in trailing[telemetry.CORRELATION_METADATA]


def grpc_path(channel: grpc.aio.Channel):
    return channel.unary_unary("/rapport.echo.v1.EchoService/Get")


class FailsOnce:
    """A handler that does not answer the first time."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, _: ReadLogRequest):
        self.calls += 1
        if self.calls == 1:
            raise errors.Unavailable("storage")
        return response(self.calls)


async def test_a_harmless_call_is_tried_again(echo_world):
    once = echo_world.echo.get = FailsOnce()
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))

    answer = await peer.get(ReadLogRequest())

    assert (answer.events[0].position, once.calls) == (2, 2)


async def test_a_call_that_may_have_had_an_effect_is_not_tried_again(echo_world):
    once = echo_world.echo.set = FailsOnce()
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))

    with pytest.raises(errors.Unavailable):
        await peer.set(ReadLogRequest())

    assert once.calls == 1


async def test_a_harmless_call_survives_the_restart_of_its_peer(echo_world, free_port):
    """The server is killed with the call in flight; the next attempt finds its successor."""
    address = f"127.0.0.1:{free_port}"
    first = echo_world.new_server(address)
    await first.start()
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"), address=address)
    entered = asyncio.Event()

    async def hang(_):
        entered.set()
        await asyncio.Event().wait()

    echo_world.echo.get = hang
    asking = asyncio.create_task(peer.get(ReadLogRequest(), timeout=10))
    await entered.wait()

    async def answer(_):
        return response(2)

    echo_world.echo.get = answer
    await first.stop(grace_s=0)
    second = echo_world.new_server(address)
    await second.start()
    answered = await asking
    await second.stop(grace_s=0)

    assert answered.events[0].position == 2


async def test_a_channel_does_not_wait_for_what_another_one_gave_up(echo_world, free_port):
    caller = echo_world.caller("echo.*")
    address = f"127.0.0.1:{free_port}"
    vain = await echo_world.peer(lambda: caller, address=address)
    for _ in range(CONNECTIONS_GIVEN_UP):
        with pytest.raises(errors.Unavailable):
            await vain.set(ReadLogRequest(), timeout=5)
    late = echo_world.new_server(address)
    await late.start()
    fresh = await echo_world.peer(lambda: caller, address=address)

    async def answer(_):
        return response(1)

    echo_world.echo.set = answer
    answered = await fresh.set(ReadLogRequest(), timeout=5)
    await late.stop(grace_s=0)

    assert answered.events[0].position == 1


async def test_no_time_is_wasted_when_none_is_left(echo_world):
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    asked = []

    async def ask_late(_):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.Event().wait()
        asked.append(await peer.set(ReadLogRequest(), timeout=60))

    echo_world.echo.get = ask_late

    with pytest.raises(errors.DeadlineExceeded):
        await peer.get(ReadLogRequest(), timeout=0.02)
    assert asked == []


def test_only_harmless_methods_are_configured_for_retries():
    (config,) = service_config([ECHO])["methodConfig"]

    assert {name["method"] for name in config["name"]} == {"Get", "Watch", "Repair"}
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("contacts:7000", "dns:///contacts:7000"),
        ("10.0.0.1:7000,10.0.0.2:7000", "ipv4:10.0.0.1:7000,10.0.0.2:7000"),
        ("[::1]:7000, [::2]:7000", "ipv6:[::1]:7000,[::2]:7000"),
        ("dns:///contacts:7000", "dns:///contacts:7000"),
    ],
)
def test_an_address_becomes_a_target(address, target):
    assert target_of(address) == target
