"""A failure reaches the caller as a status and one ErrorInfo, with no word of a driver."""

from __future__ import annotations

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from rapport.common.v1.log_service_pb2 import ReadLogRequest
from services.kernel import errors
from services.kernel.errors import FieldViolation, InvalidArgument, Reason
from services.kernel.process.telemetry import CORRELATION_METADATA
from services.kernel.rpc.caller import CALLER_METADATA
from tests.contract.echo import EchoStub, World, world

FAILURES = [
    (
        InvalidArgument([FieldViolation("name", "is empty", "string.min_len")]),
        "INVALID_ARGUMENT",
        "FIELD_INVALID",
        {},
    ),
    (
        InvalidArgument.of("filter", "what?", reason=Reason.FILTER_INVALID),
        "INVALID_ARGUMENT",
        "FILTER_INVALID",
        {},
    ),
    (errors.OutOfRange("long gone"), "OUT_OF_RANGE", "OUT_OF_RANGE", {}),
    (errors.Unauthenticated("who?"), "UNAUTHENTICATED", "CREDENTIAL_INVALID", {}),
    (errors.PermissionDenied("x.y"), "PERMISSION_DENIED", "SCOPE_MISSING", {"scope": "x.y"}),
    (
        errors.NotFound("contacts/1"),
        "NOT_FOUND",
        "RESOURCE_NOT_FOUND",
        {"resource": "contacts/1"},
    ),
    (
        errors.AlreadyExists("contacts/1", "email"),
        "ALREADY_EXISTS",
        "RESOURCE_EXISTS",
        {"existing_name": "contacts/1", "field": "email"},
    ),
    (
        errors.FailedPrecondition("it is archived", resource="contacts/1", state="ARCHIVED"),
        "FAILED_PRECONDITION",
        "STATE_FORBIDS",
        {"resource": "contacts/1", "state": "ARCHIVED"},
    ),
    (errors.Aborted(Reason.CONFLICT, "again"), "ABORTED", "CONFLICT", {}),
    (
        errors.ResourceExhausted("EVENTS_MAX", 500),
        "RESOURCE_EXHAUSTED",
        "LIMIT_REACHED",
        {"limit": "EVENTS_MAX", "maximum": "500"},
    ),
    (
        errors.Unavailable("identity"),
        "UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        {"service": "identity"},
    ),
    (
        errors.DeadlineExceeded(Reason.VIEW_BEHIND, "late", {"view": "contacts"}),
        "DEADLINE_EXCEEDED",
        "VIEW_BEHIND",
        {"view": "contacts"},
    ),
    (errors.Unimplemented("Fly"), "UNIMPLEMENTED", "METHOD_UNKNOWN", {}),
    (errors.Bug("secret state"), "INTERNAL", "BUG", {"correlation_id": "c-1"}),
    (ZeroDivisionError("secret state"), "INTERNAL", "BUG", {"correlation_id": "c-1"}),
    (TimeoutError("secret state"), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", {}),
    (
        ConnectionRefusedError("secret host"),
        "UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        {"service": "network"},
    ),
    (
        asyncpg.CannotConnectNowError("secret host"),
        "UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        {"service": "storage"},
    ),
    (
        asyncpg.InterfaceError("cannot perform operation: secret connection is closed"),
        "UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        {"service": "storage"},
    ),
    (
        asyncpg.InternalClientError("the server ended the secret connection within a statement"),
        "UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        {"service": "storage"},
    ),
    (asyncpg.DeadlockDetectedError("secret rows"), "ABORTED", "CONFLICT", {}),
    (asyncpg.UndefinedTableError("secret table"), "INTERNAL", "BUG", {"correlation_id": "c-1"}),
]


@pytest.fixture
async def echo_world():
    async with world() as made:
        yield made


async def failure_of(made: World, request: ReadLogRequest | None = None) -> grpc.aio.AioRpcError:
    """Asks without our own client, to see what travels."""
    stub = EchoStub(await made.bare())
    caller = made.signer.sign(made.caller("echo.*"))
    metadata = ((CALLER_METADATA, caller), (CORRELATION_METADATA, "c-1"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.get(request or ReadLogRequest(), metadata=metadata, timeout=5)
    return raised.value


def details_of(error: grpc.aio.AioRpcError) -> list:
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)
    found = []
    for detail in status.details:
        kind = next(kind for kind in kinds if detail.Is(kind.DESCRIPTOR))
        found.append(kind.FromString(detail.value))
    return found


@pytest.mark.parametrize(
    ("failure", "code", "reason", "metadata"), FAILURES, ids=lambda value: type(value).__name__
)
async def test_a_failure_has_its_status_and_one_reason(echo_world, failure, code, reason, metadata):
    async def fail(_):
        raise failure

    echo_world.echo.get = fail

    error = await failure_of(echo_world)

    info, *others = details_of(error)
    assert (error.code().name, info.reason, info.domain) == (code, reason, "rapport.dev")
    assert dict(info.metadata) == metadata
    assert len(others) == bool(getattr(failure, "violations", ()))
    assert "secret" not in f"{error.details()}{error.debug_error_string()}{info}"


async def test_each_broken_rule_of_a_request_is_named(echo_world):
    error = await failure_of(echo_world, ReadLogRequest(partition=5000))

    info, bad_request = details_of(error)
    (violation,) = bad_request.field_violations
    assert (error.code().name, info.reason) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert (violation.field, violation.reason) == ("partition", "uint32.lte")


async def test_an_answer_with_very_many_violations_still_arrives(echo_world):
    async def fail(_):
        raise InvalidArgument(FieldViolation(f"events[{i}].name", "is " * 50) for i in range(500))

    echo_world.echo.get = fail

    info, bad_request = details_of(await failure_of(echo_world))

    assert info.reason == "FIELD_INVALID"
    assert bad_request.field_violations[0].field == "events[0].name"


async def test_bytes_that_are_no_request_are_refused_with_a_reason(echo_world):
    channel = await echo_world.bare()
    get = channel.unary_unary("/rapport.echo.v1.EchoService/Get")
    caller = echo_world.signer.sign(echo_world.caller("echo.*"))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get(b"\xff\xff\xff", metadata=((CALLER_METADATA, caller),), timeout=5)

    assert raised.value.code().name == "INVALID_ARGUMENT"
    assert details_of(raised.value)[0].reason == "FIELD_INVALID"


@pytest.mark.parametrize("path", ["/rapport.echo.v1.EchoService/Fly", "/no.such.Service/Get"])
async def test_an_unknown_method_is_answered_with_a_reason(echo_world, path):
    channel = await echo_world.bare()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary(path)(b"", timeout=5)

    assert raised.value.code().name == "UNIMPLEMENTED"
    assert details_of(raised.value)[0].reason == "METHOD_UNKNOWN"
