"""A gRPC server of the platform: served methods, health, reflection, and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.kernel.clock import new_id
from services.kernel.process.metrics import RpcMetrics
from services.kernel.rpc.methods import methods_of
from services.kernel.rpc.pipeline import CALLS_MAX, Authenticate, Deadlines, Pipeline

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
RESPONSE_BYTES_MAX: Final = 16 * 1024 * 1024
# More than the pipeline serves: who asks for health or is refused gets an answer, too.
RPCS_MAX: Final = 2 * CALLS_MAX
# A client that comes back after this finds the replicas that were added since.
CONNECTION_AGE_MAX_S: Final = 300
KEEPALIVE_S: Final = 30
KEEPALIVE_TIMEOUT_S: Final = 10
CLIENT_PING_INTERVAL_MIN_S: Final = 10

Served = tuple[ServiceDescriptor, Callable[[Any, grpc.aio.Server], None], Any]
"""What is served: the service's descriptor, its generated `add_…_to_server`, and the servicer."""


def served(messages: ModuleType, stubs: ModuleType, servicer: object) -> Served:
    """A servicer with the one service that its proto file describes."""
    [descriptor] = messages.DESCRIPTOR.services_by_name.values()
    add: Callable[[Any, grpc.aio.Server], None] = getattr(
        stubs, f"add_{descriptor.name}Servicer_to_server"
    )
    return descriptor, add, servicer


class Server:
    """Serves from `start` until `stop`; after `start`, `port` tells where."""

    def __init__(
        self,
        address: str,
        servicers: Sequence[Served],
        *,
        authenticate: Authenticate,
        metrics: RpcMetrics,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._address = address
        self._servicers = servicers
        self._names = [descriptor.full_name for descriptor, _, _ in servicers]
        self._deadlines = deadlines or Deadlines()
        self._pipeline = Pipeline(
            methods_of(descriptor for descriptor, _, _ in servicers),
            authenticate=authenticate,
            metrics=metrics,
            new_id=new_id,
            deadlines=self._deadlines,
        )
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self.serving = False
        self.port = 0

    async def start(self) -> None:
        """Listens and answers; raises RuntimeError if somebody else has the port."""
        server = grpc.aio.server(
            interceptors=[self._pipeline],
            options=_options(self._deadlines),
            maximum_concurrent_rpcs=RPCS_MAX,
        )
        for _, add, servicer in self._servicers:
            add(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        self.port = server.add_insecure_port(self._address)
        self._server = server
        await self.set_serving(serving=True)
        await server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tells who asks for our health whether to send calls."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        self.serving = serving
        for name in ("", *self._names):
            await self._health.set(name, status)

    def is_asked(self) -> bool:
        """Tells whether calls are coming in."""
        return self._pipeline.is_asked()

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls and finishes those in flight; cancels what is left after `grace_s`."""
        server, self._server = self._server, None
        if server is None:
            return
        self.serving = False
        await self._health.enter_graceful_shutdown()
        self._pipeline.drain()
        # A second stop at the same time would crash gRPC 1.85, hence never "now" when idle.
        idle = asyncio.create_task(self._pipeline.idle())
        await server.stop(grace_s)
        idle.cancel()


def _options(deadlines: Deadlines) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
        ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
        # Two servers on one port would share calls silently; let the second fail to start.
        ("grpc.so_reuseport", 0),
        ("grpc.max_connection_age_ms", CONNECTION_AGE_MAX_S * 1000),
        ("grpc.max_connection_age_grace_ms", round(deadlines.stream_max_s * 1000)),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENT_PING_INTERVAL_MIN_S * 1000),
    ]
