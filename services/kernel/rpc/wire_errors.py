"""The one table between the family of errors and gRPC's statuses and details.

Each error travels as a status, exactly one ErrorInfo, and its violations in a BadRequest. What is
not of the family becomes one here: time-outs, connections that broke, driver errors. Their own
words stay in the log; the caller reads ours.
"""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg
import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from services.kernel.errors import (
    Aborted,
    AlreadyExists,
    Bug,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    RapportError,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from services.kernel.log.database import is_conflict, is_passing

DOMAIN: Final = "rapport.dev"
DETAILS_METADATA: Final = "grpc-status-details-bin"
# gRPC refuses trailers of more than 8 KiB, and then the caller would learn nothing at all.
STATUS_BYTES_MAX: Final = 4500
MESSAGE_LENGTH_MAX: Final = 400
BUG_MESSAGE: Final = "an internal error; the correlation id finds it in the logs"

CODES: Final[dict[type[RapportError], grpc.StatusCode]] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    Aborted: grpc.StatusCode.ABORTED,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    Bug: grpc.StatusCode.INTERNAL,
}

# How a status of a peer is read. A peer that dies mid-call leaves CANCELLED or UNKNOWN behind.
_KINDS: Final[dict[grpc.StatusCode, tuple[type[RapportError], Reason]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (InvalidArgument, Reason.FIELD_INVALID),
    grpc.StatusCode.OUT_OF_RANGE: (OutOfRange, Reason.OUT_OF_RANGE),
    grpc.StatusCode.UNAUTHENTICATED: (Unauthenticated, Reason.CREDENTIAL_INVALID),
    grpc.StatusCode.PERMISSION_DENIED: (PermissionDenied, Reason.SCOPE_MISSING),
    grpc.StatusCode.NOT_FOUND: (NotFound, Reason.RESOURCE_NOT_FOUND),
    grpc.StatusCode.ALREADY_EXISTS: (AlreadyExists, Reason.RESOURCE_EXISTS),
    grpc.StatusCode.FAILED_PRECONDITION: (FailedPrecondition, Reason.STATE_FORBIDS),
    grpc.StatusCode.ABORTED: (Aborted, Reason.CONFLICT),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (ResourceExhausted, Reason.LIMIT_REACHED),
    grpc.StatusCode.UNAVAILABLE: (Unavailable, Reason.SERVICE_UNAVAILABLE),
    grpc.StatusCode.CANCELLED: (Unavailable, Reason.SERVICE_UNAVAILABLE),
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineExceeded, Reason.DEADLINE_EXCEEDED),
    grpc.StatusCode.UNIMPLEMENTED: (Unimplemented, Reason.METHOD_UNKNOWN),
}

# Said in our words when a peer, or gRPC itself, gave no ErrorInfo: theirs may name machines.
_PLAIN_WORDS: Final[dict[Reason, str]] = {
    Reason.SERVICE_UNAVAILABLE: "a part of the platform does not answer",
    Reason.DEADLINE_EXCEEDED: "the deadline passed before there was an answer",
    Reason.BUG: BUG_MESSAGE,
}


def to_rapport_error(error: BaseException) -> RapportError:
    """Returns the member of the family that stands for any failure."""
    match error:
        case RapportError():
            return error
        case grpc.aio.AioRpcError():
            return from_rpc_error(error)
        # Before OSError, of which it is one.
        case TimeoutError():
            return _deadline_exceeded()
        # In a name, a filter or a token: no column holds it, so none can be asked for it.
        case asyncpg.CharacterNotInRepertoireError() | asyncpg.UntranslatableCharacterError():
            return InvalidArgument((), message="the request contains the character U+0000")
        # Not this call was cancelled, but something it waited for: that part is being stopped.
        case asyncio.CancelledError():
            return _unavailable("storage")
        case OSError():
            return _unavailable("network")
        case Exception() if is_passing(error):
            return _unavailable("storage")
        case Exception() if is_conflict(error):
            return Aborted.conflict()
        case _:
            return Bug(repr(error))


def code_of(error: RapportError) -> grpc.StatusCode:
    """Returns the status of an error: that of its class, or of the nearest class above it."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def to_status(error: RapportError, *, correlation_id: str) -> status_pb2.Status:
    """Returns what travels: a status, exactly one ErrorInfo, and as many violations as fit."""
    code, _ = code_of(error).value
    message, metadata = error.message, error.metadata
    if isinstance(error, Bug):
        message, metadata = BUG_MESSAGE, {"correlation_id": correlation_id}
    if len(message) > MESSAGE_LENGTH_MAX:
        message = f"{message[:MESSAGE_LENGTH_MAX]} ..."
    status = status_pb2.Status(code=code, message=message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    )
    bad_request = error_details_pb2.BadRequest()
    room = STATUS_BYTES_MAX - status.ByteSize()
    for violation in error.violations:
        field_violation = error_details_pb2.BadRequest.FieldViolation(
            field=violation.field, description=violation.description, reason=violation.reason
        )
        room -= field_violation.ByteSize() + 3
        if room < 0:
            break
        bad_request.field_violations.append(field_violation)
    if bad_request.field_violations:
        status.details.add().Pack(bad_request)
    return status


def from_rpc_error(error: grpc.aio.AioRpcError, *, service: str = "") -> RapportError:
    """Reads the error a peer answered with; one without an ErrorInfo comes from gRPC itself."""
    kind, reason = _KINDS.get(error.code(), (Bug, Reason.BUG))
    info, violations = _details(error)
    if info is not None:
        return kind.restored(
            _known(info.reason), error.details() or "", dict(info.metadata), violations
        )
    message = _PLAIN_WORDS.get(reason) or error.details() or reason
    metadata = {"service": service} if service and kind is Unavailable else {}
    return kind.restored(reason, message, metadata)


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, list[FieldViolation]]:
    info, violations = None, []
    for key, value in error.trailing_metadata() or ():
        if key != DETAILS_METADATA:
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            continue
        for detail in status.details:
            found = error_details_pb2.ErrorInfo()
            if detail.Unpack(found) and found.domain == DOMAIN:
                info = found
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(bad_request):
                violations = [
                    FieldViolation(violation.field, violation.description, violation.reason)
                    for violation in bad_request.field_violations
                ]
    return info, violations


def _known(reason: str) -> str:
    return Reason[reason] if reason in Reason.__members__ else reason


def _unavailable(part: str) -> Unavailable:
    return Unavailable(part, message=_PLAIN_WORDS[Reason.SERVICE_UNAVAILABLE])


def _deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded(Reason.DEADLINE_EXCEEDED, _PLAIN_WORDS[Reason.DEADLINE_EXCEEDED])
