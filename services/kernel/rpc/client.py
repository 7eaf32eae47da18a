"""A channel to a peer: stubs made on it speak for a caller, keep deadlines and raise our errors.

    async with PeerChannel("contacts", address, services=..., signer=..., speak_as=...) as peer:
        heads = await LogServiceStub(peer).GetHeads(GetHeadsRequest())

Only methods whose proto says that repeating them does no harm are retried, and only when the peer
does not answer at all. A call never outlives the call it is made in.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from services.kernel.errors import DeadlineExceeded, Reason
from services.kernel.process import telemetry
from services.kernel.rpc.caller import (
    CALLER_METADATA,
    Caller,
    CallerSigner,
    current_caller_or_none,
)
from services.kernel.rpc.methods import methods_of
from services.kernel.rpc.server import (
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    REQUEST_BYTES_MAX,
    RESPONSE_BYTES_MAX,
)
from services.kernel.rpc.wire_errors import from_rpc_error

UNARY_DEADLINE_S: Final = 10.0
STREAM_DEADLINE_S: Final = 3600.0
ATTEMPTS_MAX: Final = 5
CONNECT_TIMEOUT_MS: Final = 2000
RECONNECT_FIRST_MS: Final = 50
RECONNECT_MAX_MS: Final = 1000


class PeerChannel(grpc.aio.Channel):
    """A channel whose calls carry who asks, the trace, the correlation id and what time is left.

    `speak_as` says in whose name: `current_caller` passes on who asked us, a function that returns
    `own_caller(...)` speaks for this service itself.
    """

    def __init__(
        self,
        peer: str,
        address: str,
        *,
        services: Iterable[ServiceDescriptor],
        signer: CallerSigner,
        speak_as: Callable[[], Caller],
        unary_deadline_s: float = UNARY_DEADLINE_S,
        stream_deadline_s: float = STREAM_DEADLINE_S,
    ) -> None:
        self._peer = peer
        self._signer = signer
        self._speak_as = speak_as
        self._unary_deadline_s = unary_deadline_s
        self._stream_deadline_s = stream_deadline_s
        self._channel = open_channel(address, services)

    def unary_unary(self, method: str, *makers: Any, **options: Any) -> Any:
        """Returns the callable behind a stub's method."""
        send = self._channel.unary_unary(method, *makers, **options)
        return self._answering(send, self._unary_deadline_s)

    def stream_unary(self, method: str, *makers: Any, **options: Any) -> Any:
        """Returns the callable behind a stub's method."""
        send = self._channel.stream_unary(method, *makers, **options)
        return self._answering(send, self._stream_deadline_s)

    def unary_stream(self, method: str, *makers: Any, **options: Any) -> Any:
        """Returns the callable behind a stub's method."""
        return self._streaming(self._channel.unary_stream(method, *makers, **options))

    def stream_stream(self, method: str, *makers: Any, **options: Any) -> Any:
        """Returns the callable behind a stub's method."""
        return self._streaming(self._channel.stream_stream(method, *makers, **options))

    def _answering(self, send: Any, deadline_s: float) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, *, timeout: float | None = None, **options: Any) -> Any:
            try:
                return await send(
                    request,
                    timeout=self._time_left(timeout or deadline_s),
                    metadata=self._metadata(),
                    **options,
                )
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, service=self._peer) from error

        return call

    def _streaming(self, send: Any) -> Callable[..., AsyncIterator[Any]]:
        async def call(
            request: Any, *, timeout: float | None = None, **options: Any
        ) -> AsyncIterator[Any]:
            answer = send(
                request,
                timeout=self._time_left(timeout or self._stream_deadline_s),
                metadata=self._metadata(),
                **options,
            )
            try:
                async for message in answer:
                    yield message
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, service=self._peer) from error
            finally:
                answer.cancel()

        return call

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        caller = self._speak_as()
        asking = current_caller_or_none()
        found = {
            CALLER_METADATA: self._signer.sign(caller),
            telemetry.CORRELATION_METADATA: (asking or caller).correlation_id,
            telemetry.TRACEPARENT_METADATA: telemetry.traceparent(),
        }
        return tuple((key, value) for key, value in found.items() if value)

    def _time_left(self, wanted_s: float) -> float:
        asking = current_caller_or_none()
        remaining_s = None if asking is None else asking.remaining_s
        if remaining_s is None:
            return wanted_s
        if remaining_s <= 0:
            raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "no time is left to ask a peer")
        return min(wanted_s, remaining_s)

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(
        self,
        try_to_connect: bool = False,  # noqa: FBT001, FBT002, the signature is gRPC's
    ) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


def open_channel(address: str, services: Iterable[ServiceDescriptor]) -> grpc.aio.Channel:
    """Opens a bare channel with balancing, keepalive and retries; it adds nothing to a call."""
    return grpc.aio.insecure_channel(
        target_of(address),
        options=[
            ("grpc.service_config", json.dumps(service_config(services))),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.max_send_message_length", REQUEST_BYTES_MAX),
            ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
            ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
            # Named for back-off, but it is how long a connection attempt may take.
            ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
            # Else a new channel would share what an older one to the same address gave up for now.
            ("grpc.use_local_subchannel_pool", 1),
            # A proxy for the web is no way to a peer.
            ("grpc.enable_http_proxy", 0),
        ],
    )


def target_of(address: str) -> str:
    """Returns gRPC's name for `host:port`, or for several numeric addresses with commas between."""
    if "," in address:
        kind = "ipv6" if "[" in address else "ipv4"
        return f"{kind}:{address.replace(' ', '')}"
    return address if ":///" in address else f"dns:///{address}"


def service_config(services: Iterable[ServiceDescriptor]) -> dict[str, Any]:
    """Returns gRPC's configuration: who is asked, and which methods are tried again."""
    repeatable = [
        {"service": method.service, "method": method.name}
        for method in methods_of(services).values()
        if method.repeatable
    ]
    retried = {
        "name": repeatable,
        "retryPolicy": {
            "maxAttempts": ATTEMPTS_MAX,
            # gRPC adds the jitter.
            "initialBackoff": "0.05s",
            "maxBackoff": "0.5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [retried] if repeatable else [],
        # When most calls fail, retries would only add to the load.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
