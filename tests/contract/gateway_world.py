"""A gateway in this process, before services that answer what a test tells them to."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry

from gateway.__main__ import Running, running
from gateway.catalog import FORWARDED
from rapport.common.v1 import log_service_pb2, log_service_pb2_grpc
from rapport.events.v1 import service_pb2 as events_pb2
from rapport.events.v1 import webhook_deliveries_pb2, write_keys_pb2
from services.kernel.clock import SystemClock
from services.kernel.process.config import GatewayConfig
from services.kernel.process.metrics import RpcMetrics
from services.kernel.rpc.caller import CallerSigner, current_caller
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.pipeline import signed_caller
from services.kernel.rpc.server import Server

SECRET = b"a secret that only parts of the platform know"
PEPPER = b"a pepper that only the gateway knows of"
KEY_SECRET = "5ec7e7" * 8

# What a service answers to the gateway itself and to nobody outside.
INTERNAL = {
    "events": (
        write_keys_pb2.DESCRIPTOR.services_by_name["WriteKeysService"],
        webhook_deliveries_pb2.DESCRIPTOR.services_by_name["WebhookDeliveriesService"],
    )
}

MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def key_record(key_id: str, *, workspace="acme", scopes=("*",), kind="api") -> dict[str, Any]:
    digest = hmac.new(PEPPER, KEY_SECRET.encode(), hashlib.sha256).hexdigest()
    scopes = list(scopes)
    return {"id": key_id, "hash": digest, "workspace": workspace, "scopes": scopes, "kind": kind}


KEYS = {
    "keys": [
        key_record("all"),
        key_record("none", scopes=[]),
        key_record("contacts", scopes=["contacts.*", "customers.read"]),
        key_record("globex", workspace="globex"),
        key_record("web", scopes=["events.write"], kind="source"),
    ]
}


def key(key_id: str) -> str:
    return f"{'wk' if key_id == 'web' else 'rk'}_{key_id}_{KEY_SECRET}"


def bearer(key_id: str, **more: Any) -> list[tuple[str, Any]]:
    metadata = [("authorization", f"Bearer {key(key_id)}")]
    return [*metadata, *((name.replace("_", "-"), value) for name, value in more.items())]


def accept(request: Any, _: Any) -> Any:
    """Accepts every customer event, as the events service would."""
    outcome = events_pb2.RECEIPT_OUTCOME_ACCEPTED
    return events_pb2.RecordCustomerEventsResponse(
        receipts=[
            events_pb2.Receipt(message_id=sent.message_id, outcome=outcome, position=position)
            for position, sent in enumerate(request.customer_events, start=1)
        ]
    )


class StandIn:
    """One service: answers with an empty message where its test says nothing else.

    `says["GetContact"] = lambda request, context: ...` may return a message or a coroutine; of a
    stream an async generator. `heard` holds (method, request, metadata, caller) of every call.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.descriptors = (*FORWARDED[name], *INTERNAL.get(name, ()))
        self.says: dict[str, Callable[[Any, Any], Any]] = {}
        self.heard: list[tuple[str, Any, dict[str, Any], Any]] = []
        self.server: Server | None = None
        self.port = 0

    async def start(self) -> None:
        signer = CallerSigner(SECRET, SystemClock())
        log_service = (
            log_service_pb2.DESCRIPTOR.services_by_name["LogService"],
            log_service_pb2_grpc.add_LogServiceServicer_to_server,
            log_service_pb2_grpc.LogServiceServicer(),
        )
        self.server = Server(
            f"127.0.0.1:{self.port}",
            [*((each, self._add(each), self) for each in self.descriptors), log_service],
            authenticate=signed_caller(signer),
            metrics=RpcMetrics(CollectorRegistry()),
        )
        await self.server.start()
        self.port = self.server.port

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(grace_s=0)
            self.server = None

    def _add(self, descriptor: Any) -> Callable[[Any, grpc.aio.Server], None]:
        handlers = {method.name: self._handler(method) for method in descriptor.methods}

        def add(_: Any, server: grpc.aio.Server) -> None:
            server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(descriptor.full_name, handlers)]
            )

        return add

    def _handler(self, method: Any) -> Any:
        make = MAKERS[method.client_streaming, method.server_streaming]
        answer_type = GetMessageClass(method.output_type)

        def hear(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            self.heard.append((method.name, request, metadata, current_caller()))
            say = self.says.get(method.name, lambda _, __: answer_type())
            return say(request, context)

        async def answer(request: Any, context: Any) -> Any:
            said = hear(request, context)
            return await said if hasattr(said, "__await__") else said

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            said = hear(request, context)
            if not hasattr(said, "__aiter__"):
                if method.client_streaming:  # who has nothing to say still listens
                    async for _ in request:
                        pass
                return
            async for message in said:
                yield message

        return make(
            stream if method.server_streaming else answer,
            GetMessageClass(method.input_type).FromString,
            answer_type.SerializeToString,
        )


class GatewayWorld:
    """The gateway, its services, and ways to ask."""

    def __init__(self, directory: Path) -> None:
        self.keys_file = directory / "keys.json"
        self.keys_file.write_text(json.dumps(KEYS))
        self.services = {name: StandIn(name) for name in FORWARDED}
        self.registry = CollectorRegistry()
        self.gateway: Running
        self.channel: grpc.aio.Channel
        self.http: httpx.AsyncClient

    def forget(self) -> None:
        """Lets the services say nothing and have heard nothing, for the next test."""
        for service in self.services.values():
            service.says.clear()
            service.heard.clear()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gateway.server.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.web.port}"

    def config(self, **chosen: str) -> GatewayConfig:
        return GatewayConfig.from_env(
            peers=tuple(FORWARDED),
            environ={
                "RAPPORT_GRPC_ADDRESS": "127.0.0.1:0",
                "RAPPORT_HTTP_ADDRESS": "127.0.0.1:0",
                "RAPPORT_METRICS_ADDRESS": "127.0.0.1:0",
                "RAPPORT_INTERNAL_SECRET": SECRET.decode(),
                "RAPPORT_API_KEYS_FILE": str(self.keys_file),
                "RAPPORT_KEY_PEPPER": PEPPER.decode(),
                **{
                    f"RAPPORT_{name.upper()}_ADDRESS": f"127.0.0.1:{service.port}"
                    for name, service in self.services.items()
                },
                **chosen,
            },
        )

    async def call(
        self,
        path: str,
        body: Any = b"",
        *,
        key_id: str | None = "all",
        timeout: float = 5,
        **more: Any,
    ) -> Any:
        """Calls a unary method with bytes or a message, and returns bytes."""
        metadata = bearer(key_id, **more) if key_id else [*more.items()]
        body = body if isinstance(body, bytes) else body.SerializeToString()
        return await self.channel.unary_unary(path)(body, metadata=metadata, timeout=timeout)


@asynccontextmanager
async def gateway_world(directory: Path, **chosen: str) -> AsyncIterator[GatewayWorld]:
    world = GatewayWorld(directory)
    async with AsyncExitStack() as stack:
        for service in world.services.values():
            await service.start()
            stack.push_async_callback(service.stop)
        world.gateway = await stack.enter_async_context(
            running(world.config(**chosen), world.registry)
        )
        world.channel = await stack.enter_async_context(open_channel(world.address, []))
        world.http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=world.url, trust_env=False, timeout=15)
        )
        yield world


def error_infos(error: grpc.aio.AioRpcError) -> list[error_details_pb2.ErrorInfo]:
    """Returns every ErrorInfo of an error: there must be exactly one."""
    found = []
    for name, value in error.trailing_metadata() or ():
        if name != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                found.append(info)
    return found
