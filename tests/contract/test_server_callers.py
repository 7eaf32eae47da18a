"""Nobody is served who was not vouched for, nor beyond what they may; health needs no caller."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rapport.common.v1.log_service_pb2 import ReadLogRequest
from services.kernel import errors
from services.kernel.rpc.caller import CALLER_METADATA, CallerSigner, current_caller
from services.kernel.rpc.methods import MethodsError
from tests.contract.echo import ECHO, EchoStub, make_service, response, world


@pytest.fixture
async def echo_world():
    async with world() as made:
        yield made


async def refusal_of(made, signed: bytes | None) -> str:
    stub = EchoStub(await made.bare())
    metadata = ((CALLER_METADATA, signed),) if signed is not None else ()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.get(ReadLogRequest(), metadata=metadata, timeout=5)
    return raised.value.code().name


async def test_a_call_without_a_caller_is_refused(echo_world):
    assert await refusal_of(echo_world, None) == "UNAUTHENTICATED"


@pytest.mark.parametrize("signed", [b"", b"x", b"x" * 32, b"x" * 100, b"x" * 5000])
async def test_a_caller_that_is_noise_is_refused(echo_world, signed):
    assert await refusal_of(echo_world, signed) == "UNAUTHENTICATED"


async def test_a_caller_signed_by_somebody_else_is_refused(echo_world):
    stranger = CallerSigner(b"another secret that is long enough", echo_world.clock)

    signed = stranger.sign(echo_world.caller("echo.*"))

    assert await refusal_of(echo_world, signed) == "UNAUTHENTICATED"


async def test_a_caller_whose_time_is_over_is_refused(echo_world):
    signed = echo_world.signer.sign(echo_world.caller("echo.*"))

    echo_world.clock.advance(timedelta(hours=1))

    assert await refusal_of(echo_world, signed) == "UNAUTHENTICATED"


async def test_a_caller_of_no_workspace_may_only_call_inside_the_platform(echo_world):
    peer = await echo_world.peer(lambda: echo_world.caller("internal", "*", workspace=""))
    echo_world.echo.repair = echo_world.echo.get

    await peer.repair(ReadLogRequest())
    with pytest.raises(errors.PermissionDenied):
        await peer.get(ReadLogRequest())


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ({"echo.read"}, {"get"}),
        ({"echo.write"}, {"set"}),
        ({"echo.*"}, {"get", "set"}),
        ({"*"}, {"get", "set"}),
        ({"internal"}, {"repair"}),
        ({"internal.*"}, set()),
        ({"contacts.*"}, set()),
        (set(), set()),
    ],
)
async def test_a_caller_may_what_its_scopes_cover(echo_world, scopes, allowed):
    peer = await echo_world.peer(lambda: echo_world.caller(*scopes))
    echo_world.echo.repair = echo_world.echo.get

    for name, scope in {"get": "echo.read", "set": "echo.write", "repair": "internal"}.items():
        if name in allowed:
            await getattr(peer, name)(ReadLogRequest())
        else:
            with pytest.raises(errors.PermissionDenied) as denied:
                await getattr(peer, name)(ReadLogRequest())
            assert denied.value.metadata == {"scope": scope}


async def test_a_handler_knows_who_asks(echo_world):
    heard = []

    async def listen(_):
        heard.append(current_caller())
        return response(1)

    echo_world.echo.get = listen
    asking = echo_world.caller("echo.read")
    await (await echo_world.peer(lambda: asking)).get(ReadLogRequest())

    (caller,) = heard
    assert (caller.workspace, caller.actor, caller.scopes) == (
        "acme",
        "api_keys/k1",
        frozenset({"echo.read"}),
    )
    assert caller.expire_time == asking.expire_time
    assert caller.correlation_id
    assert 9 < caller.remaining_s < 10.5  # gRPC rounds up on the wire


def test_a_method_without_a_scope_is_refused_at_start_up(echo_world):
    none = MethodOptions.NO_SIDE_EFFECTS
    unscoped = make_service("rapport.bad.v1.BadService", [("Get", "", none, False, False)])
    servicers = [(ECHO, None, None), (unscoped, None, None)]

    with pytest.raises(MethodsError, match=r"/rapport\.bad\.v1\.BadService/Get"):
        echo_world.new_server(servicers=servicers)


async def test_health_is_told_to_anybody_for_all_and_for_each_service(echo_world):
    stub = health_pb2_grpc.HealthStub(await echo_world.bare())

    for name in ("", "rapport.echo.v1.EchoService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_server_that_cannot_serve_yet_says_so(echo_world):
    stub = health_pb2_grpc.HealthStub(await echo_world.bare())

    await echo_world.server.set_serving(serving=False)

    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_services(echo_world):
    stub = reflection_pb2_grpc.ServerReflectionStub(await echo_world.bare())
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])

    answers = [answer async for answer in stub.ServerReflectionInfo(asked, timeout=5)]

    listed = {service.name for service in answers[0].list_services_response.service}
    assert {"rapport.echo.v1.EchoService", "grpc.health.v1.Health"} <= listed
