"""Every public RPC is behind the same door: found by reflection, by key, scope and deadline."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.catalog import PUBLIC
from rapport.common.v1 import options_pb2
from rapport.contacts.v1 import service_pb2 as contacts
from services.kernel import errors
from services.kernel.clock import SystemClock
from services.kernel.rpc.caller import CALLER_METADATA, CallerSigner, own_caller
from tests.contract.gateway_world import SECRET, bearer, error_infos

pytestmark = pytest.mark.asyncio(loop_scope="module")

GET_CONTACT = "/rapport.contacts.v1.ContactsService/GetContact"
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in PUBLIC
    for method in service.methods
}
each_method = pytest.mark.parametrize("path", METHODS, ids=lambda path: path.rpartition("/")[2])


@pytest.fixture
def world(shared_world):
    return shared_world


async def refused(world, path, body=b"", metadata=()) -> grpc.aio.AioRpcError:
    """Calls any method, whatever its shape, and returns the error it must answer with."""
    method = METHODS.get(path)
    is_stream = method is not None and method.server_streaming
    send = world.channel.unary_stream if is_stream else world.channel.unary_unary
    call = send(path)(body, metadata=metadata, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (call.read() if is_stream else call)
    return raised.value


def said(error: grpc.aio.AioRpcError) -> tuple[str, list[str]]:
    return error.code().name, [info.reason for info in error_infos(error)]


async def reflect(world, **asked):
    stub = reflection_pb2_grpc.ServerReflectionStub(world.channel)
    request = reflection_pb2.ServerReflectionRequest(**asked)
    return await anext(aiter(stub.ServerReflectionInfo(iter([request]))))


async def test_reflection_lists_the_public_services_and_only_those(world):
    answer = await reflect(world, list_services="")
    names = {service.name for service in answer.list_services_response.service}

    assert {name for name in names if name.startswith("rapport.")} == {
        service.full_name for service in PUBLIC
    }
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= names


async def test_reflection_describes_every_method(world):
    for service in PUBLIC:
        answer = await reflect(world, file_containing_symbol=service.full_name)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(file)
            for file in answer.file_descriptor_response.file_descriptor_proto
        ]
        described = {
            method.name
            for file in files
            for each in file.service
            if f"{file.package}.{each.name}" == service.full_name
            for method in each.method
        }
        assert {method.name for method in service.methods} == described


@each_method
async def test_without_a_key_nothing_answers(world, path):
    error = await refused(world, path)

    assert said(error) == ("UNAUTHENTICATED", ["CREDENTIAL_INVALID"])


@each_method
async def test_a_key_without_the_scope_is_refused_before_anything_else(world, path):
    scope = METHODS[path].GetOptions().Extensions[options_pb2.scope]

    error = await refused(world, path, b"\xff\xff\xff", bearer("none"))

    assert said(error) == ("PERMISSION_DENIED", ["SCOPE_MISSING"])
    assert {"scope": scope} == dict(error_infos(error)[0].metadata)
    assert not any(service.heard for service in world.services.values())


@each_method
async def test_garbage_is_refused_and_the_gateway_lives(world, path):
    error = await refused(world, path, b"\xff\xff\xff", bearer("all"))

    assert said(error) == ("INVALID_ARGUMENT", ["FIELD_INVALID"])
    assert await world.call(GET_CONTACT, contacts.GetContactRequest(name="contacts/a")) == b""


@pytest.mark.parametrize(
    "path",
    [
        "/rapport.contacts.v1.ContactsService/DeleteEverything",
        "/rapport.common.v1.LogService/ReadLog",
        "/rapport.common.v1.LogService/GetHeads",
        "/rapport.payroll.v1.PayrollService/GetSalary",
        "/nonsense",
    ],
)
async def test_what_is_not_public_does_not_exist(world, path):
    error = await refused(world, path, metadata=bearer("all"))

    assert said(error) == ("UNIMPLEMENTED", ["METHOD_UNKNOWN"])


@pytest.mark.parametrize(
    "credential",
    [
        ("authorization", "Bearer rk_all_wrong"),
        ("authorization", "Bearer wk_all_" + "5ec7e7" * 8),
        ("authorization", "Bearer rk_nobody_" + "5ec7e7" * 8),
        ("authorization", "Bearer nonsense"),
        ("authorization", "Basic " + "5ec7e7" * 8),
        ("x-api-key", "rk__"),
    ],
    ids=["wrong secret", "wrong prefix", "wrong id", "no key", "other scheme", "empty"],
)
async def test_a_wrong_key_is_a_wrong_key(world, credential):
    error = await refused(world, GET_CONTACT, metadata=[credential])

    assert said(error) == ("UNAUTHENTICATED", ["CREDENTIAL_INVALID"])


async def test_a_key_may_come_in_either_place(world):
    _, key = bearer("all")[0]
    answer = world.channel.unary_unary(GET_CONTACT)
    request = contacts.GetContactRequest(name="contacts/a").SerializeToString()

    await answer(request, metadata=[("x-api-key", key.removeprefix("Bearer "))])
    await answer(request, metadata=[("authorization", key.replace("Bearer", "bearer"))])

    assert len(world.services["contacts"].heard) == 2


async def test_a_source_key_sends_customer_events_and_nothing_else(world):
    error = await refused(world, GET_CONTACT, metadata=bearer("web"))

    assert said(error) == ("PERMISSION_DENIED", ["SCOPE_MISSING"])


async def test_a_caller_forged_from_outside_is_ignored(world):
    forged = own_caller(
        "services/contacts", clock=SystemClock(), scopes=frozenset({"internal"}), workspace="globex"
    )
    signed = CallerSigner(SECRET, SystemClock()).sign(forged)
    request = contacts.GetContactRequest(name="contacts/a")

    await world.call(GET_CONTACT, request, rapport_caller_bin=signed)
    error = await refused(world, GET_CONTACT, metadata=[(CALLER_METADATA, signed)])

    [(_, _, _, caller)] = world.services["contacts"].heard
    assert ("acme", "api_keys/all") == (caller.workspace, caller.actor)
    assert said(error) == ("UNAUTHENTICATED", ["CREDENTIAL_INVALID"])


async def test_a_key_opens_its_own_workspace_only(world):
    request = contacts.GetContactRequest(name="contacts/a")

    for key_id in ("all", "globex", "all"):
        await world.call(GET_CONTACT, request, key_id=key_id)

    callers = [caller.workspace for *_, caller in world.services["contacts"].heard]
    assert ["acme", "globex", "acme"] == callers


async def test_the_deadline_of_the_client_reaches_the_service_and_ends_the_call(world):
    remaining = []
    ended = asyncio.Event()

    async def wait(_, context):
        remaining.append(context.time_remaining())
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    world.services["contacts"].says["GetContact"] = wait
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await world.call(GET_CONTACT, contacts.GetContactRequest(name="contacts/a"), timeout=0.5)
    await asyncio.wait_for(ended.wait(), 5)

    assert grpc.StatusCode.DEADLINE_EXCEEDED is raised.value.code()
    # gRPC rounds it up on its way.
    assert 0 < remaining[0] <= 0.51


async def test_a_dead_service_is_named(own_world):
    await own_world.services["contacts"].stop()

    error = await refused(
        own_world,
        GET_CONTACT,
        contacts.GetContactRequest(name="c").SerializeToString(),
        bearer("all"),
    )

    assert said(error) == ("UNAVAILABLE", ["SERVICE_UNAVAILABLE"])
    assert {"service": "contacts"} == dict(error_infos(error)[0].metadata)


async def test_a_read_outlives_a_restart_of_its_service(own_world):
    service = own_world.services["contacts"]
    await own_world.call(GET_CONTACT, contacts.GetContactRequest(name="contacts/a"))
    await service.stop()
    asked = asyncio.create_task(
        own_world.call(GET_CONTACT, contacts.GetContactRequest(name="contacts/a"))
    )
    await service.start()

    assert await asked == b""


async def test_the_status_of_a_service_comes_through_as_it_is(world):
    def refuse(_, __):
        raise errors.InvalidArgument([errors.FieldViolation("name", "is odd", "string.odd")])

    world.services["contacts"].says["GetContact"] = refuse
    request = contacts.GetContactRequest(name="contacts/a").SerializeToString()

    error = await refused(world, GET_CONTACT, request, bearer("all"))

    assert said(error) == ("INVALID_ARGUMENT", ["FIELD_INVALID"])
    assert error.details() == "name: is odd"
    trailing = dict(error.trailing_metadata())
    assert b"string.odd" in trailing["grpc-status-details-bin"]
    assert (
        error_details_pb2.BadRequest.DESCRIPTOR.full_name.encode()
        in (trailing["grpc-status-details-bin"])
    )


async def test_metadata_of_the_answer_comes_back(world):
    async def answer(_, context):
        await context.send_initial_metadata((("x-first", "1"), ("rapport-secret", "2")))
        context.set_trailing_metadata((("x-last-bin", b"\0"), ("rapport-secret", "2")))
        return contacts.GetContactResponse()

    world.services["contacts"].says["GetContact"] = answer
    request = contacts.GetContactRequest(name="contacts/a").SerializeToString()
    call = world.channel.unary_unary(GET_CONTACT)(
        request, metadata=bearer("all", rapport_correlation_id="abc-1"), timeout=5
    )
    await call

    initial, trailing = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    assert initial == {"x-first": "1"}
    assert trailing == {"x-last-bin": b"\0", "rapport-correlation-id": "abc-1"}
