"""What happens around every handler, in one place and in this order.

Canonical line and numbers, error table, who asks, scope, deadline, rules of the request, handler.
Health and reflection (`/grpc.…`) pass by. A handler is wrapped once per method: gRPC asks for it
on every call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from inspect import isasyncgen
from typing import Any, Final, Protocol
from uuid import UUID

import grpc
import grpc.aio
import structlog

from services.kernel.errors import (
    Bug,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from services.kernel.process import telemetry
from services.kernel.process.metrics import UNKNOWN_METHOD, RpcMetrics
from services.kernel.rpc.call_record import CallRecord
from services.kernel.rpc.caller import (
    CALLER_METADATA,
    Caller,
    CallerSigner,
    enter_call,
    within_call,
)
from services.kernel.rpc.methods import Method
from services.kernel.rpc.validation import parse_each, request_parser
from services.kernel.rpc.wire_errors import DETAILS_METADATA, code_of, to_rapport_error, to_status

Metadata = Mapping[str, str | bytes]
Authenticate = Callable[[Metadata], Awaitable[Caller]]

CALLS_MAX: Final = 1000
"""Calls that one server serves at the same time, streams included."""

ASKED_WITHIN_S: Final = 1.0
"""Whoever was asked so recently is likely to be asked again."""

LOOKERS_MAX: Final = 100
"""Streams of health and reflection, which need no credential, at the same time."""

_GRPC_OWN: Final = "/grpc."
_MAKERS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Context(Protocol):
    """The part of gRPC's servicer context that the pipeline touches."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    def time_remaining(self) -> float | None: ...
    def code(self) -> Any: ...
    def set_trailing_metadata(self, metadata: Any) -> None: ...
    async def write(self, message: Any) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str, metadata: Any) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a call may take: when its client does not say, and whatever it says."""

    unary_default_s: float = 10.0
    unary_max_s: float = 60.0
    stream_max_s: float = 3600.0

    def within(self, method: Method, asked_s: float | None) -> float:
        """Returns the seconds a call gets."""
        if method.streams_request or method.streams_response:
            default_s, max_s = self.stream_max_s, self.stream_max_s
        else:
            default_s, max_s = self.unary_default_s, self.unary_max_s
        return min(default_s if asked_s is None else asked_s, max_s)


def signed_caller(signer: CallerSigner) -> Authenticate:
    """Believes whoever signed under the platform's secret; what all but the gateway use."""

    async def authenticate(metadata: Metadata) -> Caller:
        signed = metadata.get(CALLER_METADATA)
        return signer.verify(signed if isinstance(signed, bytes) else None)

    return authenticate


class Pipeline(grpc.aio.ServerInterceptor):
    """Serves the methods of one server."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        authenticate: Authenticate,
        metrics: RpcMetrics,
        new_id: Callable[[], UUID],
        deadlines: Deadlines,
    ) -> None:
        self._methods = methods
        self._authenticate = authenticate
        self._metrics = metrics
        self._new_id = new_id
        self._deadlines = deadlines
        self._handlers: dict[str, Any] = {}
        self._in_flight = 0
        self._asked_at_s = -math.inf
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = asyncio.Event()
        self._looking_on: set[asyncio.Timeout] = set()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Returns the wrapped handler of a method."""
        path: str = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is not None:
            return handler
        if path.startswith(_GRPC_OWN):
            return self._looked_on(await continuation(handler_call_details))
        inner = await continuation(handler_call_details)
        if inner is None or path not in self._methods:
            # Not kept: a stranger could fill the memory with names.
            return self._unknown(path)
        handler = self._handlers[path] = self._wrap(self._methods[path], inner)
        return handler

    def drain(self) -> None:
        """Tells the streams that ask `draining()` to come to their end, and refuses new calls."""
        self._draining.set()

    def is_asked(self) -> bool:
        """Tells whether calls are coming in; a stream that goes on is none."""
        return asyncio.get_running_loop().time() - self._asked_at_s < ASKED_WITHIN_S

    async def idle(self) -> None:
        """Waits until no call is in flight; who only looks on, at health, is sent away then."""
        await self._idle.wait()
        for looking_on in self._looking_on:
            looking_on.reschedule(asyncio.get_running_loop().time())

    def _wrap(self, method: Method, inner: Any) -> Any:
        shape = (method.streams_request, method.streams_response)
        behaviours = (
            inner.unary_unary,
            inner.unary_stream,
            inner.stream_unary,
            inner.stream_stream,
        )
        behaviour = behaviours[2 * shape[0] + shape[1]]
        if behaviour is None:
            raise Bug(f"the handler of {method.path} has another shape than its proto")
        parse = request_parser(method.request_type, inner.request_deserializer)

        async def serve(received: Any, context: Context) -> Any:
            async def respond() -> Any:
                request = parse_each(parse, received) if method.streams_request else parse(received)
                answer = behaviour(request, context)
                if method.streams_response:
                    return await _write_all(answer, context)
                return await answer

            return await self._observe(
                method.path, context, self._admitted(method, context, respond)
            )

        return _MAKERS[shape](serve, None, inner.response_serializer)

    def _unknown(self, path: str) -> Any:
        async def refuse(_: Any, context: Context) -> None:
            async def respond(_: Metadata, __: str) -> None:
                raise Unimplemented(path)

            await self._observe(UNKNOWN_METHOD, context, respond)

        # Streams in and out: refused before anything is read, whatever shape the client means.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _looked_on(self, handler: Any) -> Any:
        """Lets a stream of gRPC's own be ended: nobody waits for one before stopping."""
        if handler is None or not handler.response_streaming:
            return handler

        async def serve(received: Any, context: Context) -> None:
            if len(self._looking_on) >= LOOKERS_MAX:
                # Without a credential nobody takes the room of those who have one.
                message = f"at most {LOOKERS_MAX} streams look on at once; ask for health by Check"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message, ())
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as looking_on:
                    self._looking_on.add(looking_on)
                    try:
                        answer = (handler.unary_stream or handler.stream_stream)(received, context)
                        await (_write_all(answer, context) if isasyncgen(answer) else answer)
                    finally:
                        self._looking_on.discard(looking_on)

        make = _MAKERS[handler.request_streaming, True]
        return make(serve, handler.request_deserializer, handler.response_serializer)

    def _admitted(
        self, method: Method, context: Context, respond: Callable[[], Awaitable[Any]]
    ) -> Callable[[Metadata, str], Awaitable[Any]]:
        """Returns `respond` behind the questions who asks, whether they may, and for how long."""

        async def admitted(metadata: Metadata, correlation_id: str) -> Any:
            if self._draining.is_set():
                raise Unavailable(method.service, message="this server is about to stop")
            if self._in_flight > CALLS_MAX:
                raise ResourceExhausted("CALLS_MAX", CALLS_MAX)
            within_s = self._deadlines.within(method, context.time_remaining())
            async with asyncio.timeout(within_s) as timeout:
                caller = await self._authenticate(metadata)
                telemetry.annotate(workspace=caller.workspace, actor=caller.actor)
                caller.require(method.scope)
                if not (caller.workspace or method.internal):
                    raise PermissionDenied(method.scope, message="the caller has no workspace")
                enter_call(
                    within_call(
                        caller,
                        correlation_id=correlation_id,
                        ends_at=timeout.when(),
                        draining_event=self._draining,
                    )
                )
                return await respond()

        return admitted

    async def _observe(
        self,
        name: str,
        context: Context,
        respond: Callable[[Metadata, str], Awaitable[Any]],
    ) -> Any:
        """Answers a call, with its one line in the log, its numbers, and its error on the wire."""
        metadata = dict(context.invocation_metadata() or ())
        given_id = metadata.get(telemetry.CORRELATION_METADATA)
        correlation_id = (
            str(given_id) if telemetry.is_correlation_id(given_id) else str(self._new_id())
        )
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        context.set_trailing_metadata(((telemetry.CORRELATION_METADATA, correlation_id),))
        call = CallRecord(name, self._metrics)
        self._arrive()
        try:
            with telemetry.server_span(name, metadata.get(telemetry.TRACEPARENT_METADATA)):
                answer = await respond(metadata, correlation_id)
            call.end(grpc.StatusCode.OK)
            return answer
        except grpc.aio.AbortError:
            call.end(_code_of(context))
            raise
        except asyncio.CancelledError as cancelled:
            if not _is_cancelled():
                return await self._fail(call, context, cancelled, correlation_id)
            late = context.time_remaining() == 0
            call.end(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED)
            raise
        except Exception as failure:  # noqa: BLE001, whatever it is, the caller gets an answer
            return await self._fail(call, context, failure, correlation_id)
        finally:
            self._leave()

    async def _fail(
        self, call: CallRecord, context: Context, failure: BaseException, correlation_id: str
    ) -> Any:
        error = to_rapport_error(failure)
        status = to_status(error, correlation_id=correlation_id)
        call.end(code_of(error), failure, reason=error.reason)
        metadata = (
            (DETAILS_METADATA, status.SerializeToString()),
            (telemetry.CORRELATION_METADATA, correlation_id),
        )
        return await context.abort(code_of(error), status.message, metadata)

    def _arrive(self) -> None:
        self._in_flight += 1
        self._asked_at_s = asyncio.get_running_loop().time()
        self._idle.clear()

    def _leave(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()


def _is_cancelled() -> bool:
    """Tells whether this call is cancelled, and not only something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _code_of(context: Context) -> grpc.StatusCode:
    code = context.code()
    codes = {known.value[0]: known for known in grpc.StatusCode}
    if isinstance(code, grpc.StatusCode):
        return code
    return codes.get(code, grpc.StatusCode.UNKNOWN)


async def _write_all(answer: Any, context: Context) -> None:
    """Sends what an async generator yields, inside the deadline of the call."""
    async with aclosing(answer) as messages:
        async for message in messages:
            await context.write(message)
