"""Forwards calls as bytes: nothing is decoded, so a service may learn a field before the gateway.

Around every call runs the kernel's pipeline, as in any service: key, scope, deadline, canonical
line. Here the bytes go on to the service that answers, in the name of who asked, and its answer
comes back with its metadata, its status and the details of its status as they are. A call that its
client gives up is given up at the service, too, and the other way round. A stream ends when its
caller would no longer be let in: who that is, is asked again every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from services.kernel.errors import RapportError, Unauthenticated
from services.kernel.process import telemetry
from services.kernel.rpc.caller import CALLER_METADATA, Caller, CallerSigner, current_caller
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.methods import Method, methods_of
from services.kernel.rpc.pipeline import Authenticate
from services.kernel.rpc.server import Served
from services.kernel.rpc.wire_errors import DETAILS_METADATA, from_rpc_error

RECHECK_S: Final = 2.0
"""How often the caller of an open stream is asked for anew."""

MetadataPairs = Iterable[tuple[str, str | bytes]]

# What belongs to one connection, to the gateway, or to nobody outside; all else is passed on.
_KEPT_BACK: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "user-agent",
        "x-api-key",
        telemetry.TRACEPARENT_METADATA,
    }
)
_KEPT_BACK_PREFIXES: Final = (":", "grpc-", "rapport-", "x-forwarded-")

_MAKERS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Proxy:
    """Forwards the methods of one service to the process that answers them."""

    def __init__(
        self,
        peer: str,
        address: str,
        descriptor: ServiceDescriptor,
        *,
        signer: CallerSigner,
        authenticate: Authenticate,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._peer = peer
        self._signer = signer
        self._authenticate = authenticate
        self._recheck_s = recheck_s
        self._descriptor = descriptor
        self._channel = open_channel(address, [descriptor])

    @property
    def served(self) -> Served:
        """What a `Server` needs to serve it."""
        return self._descriptor, _add_to_server, self

    async def close(self) -> None:
        """Closes the channel; calls that are left fail."""
        await self._channel.close(None)

    def handlers(self) -> dict[str, Any]:
        """Returns a handler per method, bytes in and bytes out."""
        methods = methods_of([self._descriptor]).values()
        return {method.name: self._handler(method) for method in methods}

    def _handler(self, method: Method) -> Any:
        make = _MAKERS[method.streams_request, method.streams_response]
        kind = f"{_shape(method.streams_request)}_{_shape(method.streams_response)}"
        send = getattr(self._channel, kind)(method.path)
        if method.streams_response:
            return make(self._stream(send, method))
        return make(self._answer(send, method))

    def _answer(self, send: Any, method: Method) -> Callable[[Any, Any], Any]:
        """Forwards what has one answer."""

        async def forward(request: Any, context: Any) -> Any:
            caller = current_caller()
            call = send(
                request,
                timeout=caller.remaining_s,
                metadata=self._outgoing(context.invocation_metadata(), caller),
            )
            try:
                async with self._while_let_in(call, context, caller, method):
                    answer = await call
                initial = passed_on(await call.initial_metadata())
                if initial:
                    await context.send_initial_metadata(initial)
                context.set_trailing_metadata(_trailing(await call.trailing_metadata(), caller))
            except grpc.aio.AioRpcError as error:
                return await self._fail(error, context, caller)
            return answer

        return forward

    def _stream(self, send: Any, method: Method) -> Callable[[Any, Any], Any]:
        """Forwards what has a stream of answers."""

        async def forward(request: Any, context: Any) -> AsyncIterator[bytes]:
            caller = current_caller()
            call = send(
                request,
                timeout=caller.remaining_s,
                metadata=self._outgoing(context.invocation_metadata(), caller),
            )
            try:
                async with self._while_let_in(call, context, caller, method):
                    initial = passed_on(await call.initial_metadata())
                    if initial:
                        await context.send_initial_metadata(initial)
                    async for answer in call:
                        yield answer
                context.set_trailing_metadata(_trailing(await call.trailing_metadata(), caller))
            except grpc.aio.AioRpcError as error:
                await self._fail(error, context, caller)
            finally:
                call.cancel()

        return forward

    @asynccontextmanager
    async def _while_let_in(
        self, call: Any, context: Any, caller: Caller, method: Method
    ) -> AsyncIterator[None]:
        """Ends the call, with the reason, once its caller would be refused: a key was revoked."""
        if not (method.streams_request or method.streams_response):
            yield
            return
        metadata = dict(context.invocation_metadata() or ())

        async def recheck() -> RapportError:
            while True:
                await asyncio.sleep(self._recheck_s)
                try:
                    now = await self._authenticate(metadata)
                    now.require(method.scope)
                    if (now.workspace, now.actor) != (caller.workspace, caller.actor):
                        return Unauthenticated("the API key stands for somebody else now")
                except RapportError as refused:
                    return refused

        checking = asyncio.create_task(recheck())
        checking.add_done_callback(lambda done: done.cancelled() or call.cancel())
        try:
            yield
        except asyncio.CancelledError:
            if checking.done() and not checking.cancelled():
                raise checking.result() from None
            raise
        finally:
            checking.cancel()

    def _outgoing(
        self, incoming: MetadataPairs | None, caller: Caller
    ) -> list[tuple[str, str | bytes]]:
        """Returns what the service hears: the caller as we know them, and what was sent along."""
        metadata = passed_on(incoming)
        metadata.append((CALLER_METADATA, self._signer.sign(caller)))
        metadata.append((telemetry.CORRELATION_METADATA, caller.correlation_id))
        traceparent = telemetry.traceparent()
        if traceparent is not None:
            metadata.append((telemetry.TRACEPARENT_METADATA, traceparent))
        return metadata

    async def _fail(self, error: grpc.aio.AioRpcError, context: Any, caller: Caller) -> Any:
        """Answers with the service's own status; where gRPC itself failed, with one of ours."""
        trailing = error.trailing_metadata() or ()
        details = [value for key, value in trailing if key == DETAILS_METADATA]
        if not details:
            raise from_rpc_error(error, service=self._peer) from error
        metadata = [*_trailing(trailing, caller), (DETAILS_METADATA, details[0])]
        return await context.abort(error.code(), error.details() or "", tuple(metadata))


def passed_on(metadata: MetadataPairs | None) -> list[tuple[str, str | bytes]]:
    """Returns the metadata that goes through the gateway, in either direction."""
    return [
        (key, value)
        for key, value in metadata or ()
        if key not in _KEPT_BACK and not key.startswith(_KEPT_BACK_PREFIXES)
    ]


def _trailing(metadata: MetadataPairs | None, caller: Caller) -> tuple[tuple[str, Any], ...]:
    return (*passed_on(metadata), (telemetry.CORRELATION_METADATA, caller.correlation_id))


def _shape(streams: bool) -> str:  # noqa: FBT001, named at the call
    return "stream" if streams else "unary"


def _add_to_server(proxy: Proxy, server: grpc.aio.Server) -> None:
    """Does what generated code does for a servicer."""
    handlers = proxy.handlers()
    name = proxy._descriptor.full_name  # noqa: SLF001, its own file
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
