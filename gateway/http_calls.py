"""What happens around every HTTP call: its line in the log, its numbers, its deadline, its errors.

The same as the kernel's pipeline does around a gRPC call, so both doors behave alike.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

import grpc
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.rates import RETRY_AFTER
from services.kernel.clock import new_id
from services.kernel.errors import (
    Aborted,
    AlreadyExists,
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
from services.kernel.process import telemetry
from services.kernel.process.metrics import RpcMetrics
from services.kernel.rpc.call_record import CallRecord
from services.kernel.rpc.caller import Caller, enter_call, within_call
from services.kernel.rpc.wire_errors import CODES, to_rapport_error

CALL_S_MAX: Final = 10.0
RETRY_AFTER_S: Final = 1

_INTERNAL: Final = 500
_TOO_LARGE: Final = 413
_UNSUPPORTED: Final = 415
_ENCODING_UNSUPPORTED: Final = "encoding_unsupported"
_STATUSES: Final[dict[type[RapportError], int]] = {
    InvalidArgument: 400,
    OutOfRange: 400,
    FailedPrecondition: 400,
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    AlreadyExists: 409,
    Aborted: 409,
    ResourceExhausted: 429,
    Unimplemented: 501,
    Unavailable: 503,
    DeadlineExceeded: 504,
}
_GZIP_NAMES: Final = {"gzip", "x-gzip"}
# No JSON begins so: what does is packed, even when nobody says it.
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 16 + zlib.MAX_WBITS

# The correlation id of the call at hand, and when it is over on the event loop's clock.
_call: ContextVar[tuple[str, float | None]] = ContextVar("rapport_http_call")

Refuse = Callable[[RapportError, str], Response]


class HttpCalls:
    """Observes the calls of one process."""

    def __init__(self, metrics: RpcMetrics) -> None:
        self._metrics = metrics

    async def answer(
        self,
        request: Request,
        name: str,
        *,
        respond: Callable[[], Awaitable[Response]],
        refuse: Refuse,
    ) -> Response:
        """Answers by `respond` inside the deadline, or by `refuse` with what went wrong."""
        given_id = request.headers.get(telemetry.CORRELATION_METADATA)
        correlation_id = str(given_id) if telemetry.is_correlation_id(given_id) else str(new_id())
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        record = CallRecord(name, self._metrics)
        traceparent = request.headers.get(telemetry.TRACEPARENT_METADATA)
        try:
            with telemetry.server_span(name, traceparent):
                async with asyncio.timeout(CALL_S_MAX) as timeout:
                    _call.set((correlation_id, timeout.when()))
                    response = await respond()
            record.end(grpc.StatusCode.OK)
        except (asyncio.CancelledError, ClientDisconnect):
            record.end(grpc.StatusCode.CANCELLED)
            raise
        except Exception as failure:  # noqa: BLE001, whatever it is, the caller gets an answer
            error = to_rapport_error(failure)
            record.end(CODES[type(error)], failure, reason=error.reason)
            response = refuse(error, correlation_id)
            if isinstance(error, ResourceExhausted | Unavailable):
                wait_s = error.metadata.get(RETRY_AFTER, str(RETRY_AFTER_S))
                response.headers["Retry-After"] = wait_s
                if isinstance(error, ResourceExhausted):
                    response.headers["X-RateLimit-Reset"] = wait_s
        response.headers[telemetry.CORRELATION_METADATA] = correlation_id
        return response


def admit(caller: Caller, scope: str) -> None:
    """Lets a caller in who may do what is asked; from here on calls are made in their name."""
    telemetry.annotate(workspace=caller.workspace, actor=caller.actor)
    caller.require(scope)
    correlation_id, ends_at = _call.get()
    enter_call(
        within_call(
            caller,
            correlation_id=correlation_id,
            ends_at=ends_at,
            draining_event=asyncio.Event(),
        )
    )


def http_status(error: RapportError) -> int:
    """Returns the HTTP status of an error, as google.rpc.Code maps it."""
    if isinstance(error, InvalidArgument) and error.reason == Reason.LIMIT_REACHED:
        return _TOO_LARGE
    if any(violation.reason == _ENCODING_UNSUPPORTED for violation in error.violations):
        return _UNSUPPORTED
    return _STATUSES.get(type(error), _INTERNAL)


async def read_body(request: Request, *, bytes_max: int) -> bytes:
    """Reads a body, unpacked if it says that it is packed; raises InvalidArgument beyond a size."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", *_GZIP_NAMES}:
        description = f"the body must be packed by gzip or not at all, not by {encoding[:50]!r}"
        raise InvalidArgument([FieldViolation("body", description, _ENCODING_UNSUPPORTED)])
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    if encoding in _GZIP_NAMES or body.startswith(_GZIP_MAGIC):
        return _unpacked(bytes(body), bytes_max)
    return bytes(body)


def basic_user(authorization: str | None) -> str | None:
    """Returns the user of HTTP Basic, where trackers put their write key, with or without colon."""
    scheme, _, credential = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(credential.strip() + "==").decode()
    except ValueError:
        return None
    return text.partition(":")[0]


def _unpacked(body: bytes, bytes_max: int) -> bytes:
    """Unpacks at most `bytes_max`, however much a small body claims to hold."""
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacking.decompress(body, bytes_max + 1)
    except zlib.error as error:
        violation = FieldViolation("body", "the body is no gzip", "invalid_gzip")
        raise InvalidArgument([violation]) from error
    if len(unpacked) > bytes_max:
        raise _too_large(bytes_max)
    if not unpacking.eof:
        raise InvalidArgument([FieldViolation("body", "the gzip ends early", "invalid_gzip")])
    if unpacking.unused_data:
        raise InvalidArgument([FieldViolation("body", "the gzip has a tail", "invalid_gzip")])
    return unpacked


def _too_large(bytes_max: int) -> InvalidArgument:
    description = f"the body is larger than {bytes_max} bytes"
    return InvalidArgument(
        [FieldViolation("body", description, "payload_too_large")],
        reason=Reason.LIMIT_REACHED,
        metadata={"limit": "BODY_BYTES_MAX", "maximum": str(bytes_max)},
    )
