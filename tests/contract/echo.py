"""A service with every shape of method, made without a proto file, and a server and peers of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from prometheus_client import CollectorRegistry

from rapport.common.v1 import log_service_pb2, options_pb2
from rapport.common.v1.log_service_pb2 import ReadLogRequest, ReadLogResponse
from services.kernel.clock import FixedClock
from services.kernel.process.metrics import RpcMetrics
from services.kernel.rpc.caller import Caller, CallerSigner, own_caller
from services.kernel.rpc.client import PeerChannel
from services.kernel.rpc.pipeline import Deadlines, signed_caller
from services.kernel.rpc.server import Server

SECRET = b"a secret that only parts of the platform know"


def make_service(name: str, methods: list[tuple[str, str, int, bool, bool]]):
    """Describes a service: its methods' names, scopes, idempotency, and what they stream."""
    package, _, short = name.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto",
        package=package,
        syntax="proto3",
        dependency=[log_service_pb2.DESCRIPTOR.name, options_pb2.DESCRIPTOR.name],
    )
    service = file.service.add(name=short)
    for method_name, scope, idempotency, streams_request, streams_response in methods:
        method = service.method.add(
            name=method_name,
            input_type=".rapport.common.v1.ReadLogRequest",
            output_type=".rapport.common.v1.ReadLogResponse",
            client_streaming=streams_request,
            server_streaming=streams_response,
        )
        method.options.idempotency_level = idempotency
        if scope:
            method.options.Extensions[options_pb2.scope] = scope
    # Options of ours are extensions: parsed again, they are known as such.
    added = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return added.services_by_name[short]


_KINDS = {
    "Get": ("echo.read", MethodOptions.NO_SIDE_EFFECTS, False, False),
    "Set": ("echo.write", MethodOptions.IDEMPOTENCY_UNKNOWN, False, False),
    "Watch": ("echo.read", MethodOptions.NO_SIDE_EFFECTS, False, True),
    "Collect": ("echo.write", MethodOptions.IDEMPOTENCY_UNKNOWN, True, False),
    "Chat": ("echo.write", MethodOptions.IDEMPOTENCY_UNKNOWN, True, True),
    "Repair": ("internal", MethodOptions.IDEMPOTENT, False, False),
}
ECHO = make_service("rapport.echo.v1.EchoService", [(name, *kind) for name, kind in _KINDS.items()])


class Echo:
    """Answers with what its test put in place of a method."""

    async def get(self, _: ReadLogRequest) -> ReadLogResponse:
        return ReadLogResponse()

    async def set(self, _: ReadLogRequest) -> ReadLogResponse:
        return ReadLogResponse()

    async def watch(self, request: ReadLogRequest) -> AsyncIterator[ReadLogResponse]:
        for _ in range(request.limit):
            yield ReadLogResponse()

    async def collect(self, requests: AsyncIterator[ReadLogRequest]) -> ReadLogResponse:
        total = 0
        async for request in requests:
            total += request.limit
        return response(total)

    async def chat(self, requests: AsyncIterator[ReadLogRequest]) -> AsyncIterator[ReadLogResponse]:
        async for request in requests:
            yield response(request.limit)


def response(position: int) -> ReadLogResponse:
    answer = ReadLogResponse()
    answer.events.add(position=position)
    return answer


def add_echo(echo: Echo, server: grpc.aio.Server) -> None:
    """Does what generated code does; looks the method up late, so that a test may replace it."""

    def call(name: str):
        return lambda request, _: getattr(echo, name)(request)

    shapes = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handlers = {
        method.name: shapes[method.client_streaming, method.server_streaming](
            call(method.name.lower()), ReadLogRequest.FromString, ReadLogResponse.SerializeToString
        )
        for method in ECHO.methods
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(ECHO.full_name, handlers)]
    )


class EchoStub:
    """The methods as attributes, on any channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        for method in ECHO.methods:
            kind = f"{'stream' if method.client_streaming else 'unary'}_"
            kind += "stream" if method.server_streaming else "unary"
            make = getattr(channel, kind)
            path = f"/{ECHO.full_name}/{method.name}"
            callee = make(path, ReadLogRequest.SerializeToString, ReadLogResponse.FromString)
            setattr(self, method.name.lower(), callee)


class World:
    """A server of the echo service, and whoever asks it something."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.signer = CallerSigner(SECRET, self.clock)
        self.registry = CollectorRegistry()
        self.metrics = RpcMetrics(self.registry)
        self.echo = Echo()
        self.server = self.new_server()
        self._open = AsyncExitStack()

    def new_server(
        self,
        address: str = "127.0.0.1:0",
        *,
        servicers: list | None = None,
        deadlines: Deadlines | None = None,
    ) -> Server:
        return Server(
            address,
            servicers or [(ECHO, add_echo, self.echo)],
            authenticate=signed_caller(self.signer),
            metrics=self.metrics,
            deadlines=deadlines,
        )

    async def restart(self, deadlines: Deadlines) -> None:
        await self.server.stop(grace_s=0)
        self.server = self.new_server(deadlines=deadlines)
        await self.server.start()

    def caller(self, *scopes: str, workspace: str = "acme") -> Caller:
        return own_caller(
            "api_keys/k1", clock=self.clock, scopes=frozenset(scopes), workspace=workspace
        )

    async def bare(self) -> grpc.aio.Channel:
        """Opens a channel that adds nothing to a call."""
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.server.port}", options=[("grpc.enable_http_proxy", 0)]
        )
        return await self._open.enter_async_context(channel)

    async def peer(
        self, speak_as: Callable[[], Caller], *, address: str | None = None, **options: float
    ) -> EchoStub:
        channel = PeerChannel(
            "echo",
            address or f"127.0.0.1:{self.server.port}",
            services=[ECHO],
            signer=self.signer,
            speak_as=speak_as,
            **options,
        )
        return EchoStub(await self._open.enter_async_context(channel))

    async def close(self) -> None:
        await self._open.aclose()
        await self.server.stop(grace_s=0)

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    await made.server.start()
    try:
        yield made
    finally:
        await made.close()
