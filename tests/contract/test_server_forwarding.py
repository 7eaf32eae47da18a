"""A door in front of others: it lets callers in by its own rules and forwards bytes as they are."""

from __future__ import annotations

import grpc
import pytest
from prometheus_client import CollectorRegistry

from rapport.common.v1.log_service_pb2 import ReadLogRequest
from services.kernel import errors
from services.kernel.process.metrics import RpcMetrics
from services.kernel.rpc import pipeline
from services.kernel.rpc.caller import current_caller
from services.kernel.rpc.client import PeerChannel
from services.kernel.rpc.server import Server
from tests.contract.echo import ECHO, EchoStub, response, world


@pytest.fixture
async def echo_world():
    async with world() as made:
        yield made


@pytest.fixture
async def door(echo_world):
    """A server with a key of its own for everybody, in front of the echo service."""

    async def authenticate(metadata):
        if metadata.get("x-key") != "open sesame":
            raise errors.Unauthenticated("no such key")
        return echo_world.caller("echo.read", workspace="globex")

    upstream = PeerChannel(
        "echo",
        f"127.0.0.1:{echo_world.server.port}",
        services=[ECHO],
        signer=echo_world.signer,
        speak_as=current_caller,
    )

    def forward(handler_call_details):
        ask = upstream.unary_unary(handler_call_details.method)

        async def pass_on(body, _):
            return await ask(body)

        return grpc.unary_unary_rpc_method_handler(pass_on)

    class Forward(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            return forward(handler_call_details)

    def add(handler, server):
        server.add_generic_rpc_handlers([handler])

    server = Server(
        "127.0.0.1:0",
        [(ECHO, add, Forward())],
        authenticate=authenticate,
        metrics=RpcMetrics(CollectorRegistry()),
    )
    await server.start()
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as own:
        yield EchoStub(own)
    await server.stop(grace_s=0)
    await upstream.close()


KEY = (("x-key", "open sesame"),)


async def test_whom_the_door_lets_in_is_known_behind_it(echo_world, door):
    heard = []

    async def listen(_):
        heard.append(current_caller().workspace)
        return response(1)

    echo_world.echo.get = listen
    await door.get(ReadLogRequest(), metadata=KEY, timeout=5)

    assert heard == ["globex"]


async def test_an_error_from_behind_the_door_keeps_its_words(echo_world, door):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await door.get(ReadLogRequest(partition=5000), metadata=KEY, timeout=5)

    assert "partition: must be less than" in raised.value.details()


@pytest.mark.parametrize(
    ("method", "metadata", "code"),
    [
        ("get", (), "UNAUTHENTICATED"),
        ("set", KEY, "PERMISSION_DENIED"),
        ("repair", KEY, "PERMISSION_DENIED"),
    ],
)
async def test_the_door_stays_shut(door, method, metadata, code):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(door, method)(ReadLogRequest(), metadata=metadata, timeout=5)

    assert raised.value.code().name == code


async def test_a_server_with_too_many_calls_says_which_limit(echo_world, monkeypatch):
    monkeypatch.setattr(pipeline, "CALLS_MAX", 0)
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))

    with pytest.raises(errors.ResourceExhausted) as raised:
        await peer.get(ReadLogRequest())

    assert raised.value.metadata == {"limit": "CALLS_MAX", "maximum": "0"}
