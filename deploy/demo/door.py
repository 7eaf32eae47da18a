"""The gateway as a client sees it: gRPC with an API key, and HTTP with a source's write key.

Every call has a deadline and is repeated for a bounded time. That repeating is harmless is the
platform's promise, so it is used: reads change nothing, customer events are known by their message
ids, commands by a request id made of their own content.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc.aio
import httpx
from google.protobuf.message import Message

from deploy.demo.cargo import serialized
from gateway.catalog import PUBLIC
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.deals.v1.exports_pb2_grpc import DealExportsServiceStub
from rapport.deals.v1.imports_pb2_grpc import DealImportsServiceStub
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from rapport.events.v1.imports_pb2_grpc import ImportsServiceStub
from rapport.events.v1.orders_pb2_grpc import OrdersServiceStub
from rapport.events.v1.quarantine_pb2_grpc import QuarantineServiceStub
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from rapport.events.v1.suppressions_pb2_grpc import SuppressionsServiceStub
from rapport.events.v1.tracking_plans_pb2_grpc import TrackingPlansServiceStub
from rapport.gateway.v1.service_pb2_grpc import GatewayServiceStub
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from rapport.segments.v1.service_pb2_grpc import SegmentsServiceStub
from services.kernel.errors import DeadlineExceeded, RapportError, Reason, Unavailable
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.wire_errors import from_rpc_error

WITHIN_S: Final = 15.0
# A process that dies is back within seconds; on a machine with much to do within some more.
REPEAT_FOR_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0

# Made up once; what is asked decides the rest of a request id.
_REQUESTS: Final = uuid.UUID("5d0c2b7e-2f5c-5b0e-9a54-1c1f0b6f7d11")

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Door:
    """One open connection to the gateway."""

    contacts: ContactsServiceStub
    deals: DealsServiceStub
    pipelines: PipelinesServiceStub
    deal_imports: DealImportsServiceStub
    deal_exports: DealExportsServiceStub
    events: EventsServiceStub
    sources: SourcesServiceStub
    tracking_plans: TrackingPlansServiceStub
    quarantine: QuarantineServiceStub
    suppressions: SuppressionsServiceStub
    imports: ImportsServiceStub
    orders: OrdersServiceStub
    identity: IdentityServiceStub
    segments: SegmentsServiceStub
    gateway: GatewayServiceStub
    _api_key: str
    _write_key: str
    _http: httpx.AsyncClient

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What says who asks."""
        return (("authorization", f"Bearer {self._api_key}"),)

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[M, R],
        request: M,
        *,
        within_s: float = WITHIN_S,
    ) -> R:
        """Asks once, and again where that can help; raises a RapportError."""
        patience = _Patience()
        while True:
            try:
                return await method(request, timeout=within_s, metadata=self.metadata)
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc_error(error)
                if patience.is_over or not _may_pass(refusal):
                    raise refusal from error
            await patience.pause()

    async def track(
        self, batch: Sequence[Mapping[str, Any]], *, write_key: str | None = None
    ) -> dict[str, Any]:
        """Sends customer events as a website's tracker does: HTTP, JSON, the write key.

        With another source's write key they come from that source.
        """
        auth = httpx.BasicAuth(write_key or self._write_key, "")
        patience = _Patience()
        while True:
            try:
                answer = await self._http.post("/v1/batch", json={"batch": list(batch)}, auth=auth)
            except httpx.TransportError as error:
                if patience.is_over:
                    raise Unavailable("gateway") from error
            else:
                if not answer.is_server_error or patience.is_over:
                    return _answered(answer)
            await patience.pause()


@asynccontextmanager
async def open_door(dev: Mapping[str, Any]) -> AsyncIterator[Door]:
    """Connects to the gateway that dev.json describes."""
    channel = open_channel(dev["grpc"], PUBLIC)
    http = httpx.AsyncClient(base_url=dev["http"], timeout=WITHIN_S, trust_env=False)
    async with channel, http:
        yield Door(
            contacts=ContactsServiceStub(channel),
            deals=DealsServiceStub(channel),
            pipelines=PipelinesServiceStub(channel),
            deal_imports=DealImportsServiceStub(channel),
            deal_exports=DealExportsServiceStub(channel),
            events=EventsServiceStub(channel),
            sources=SourcesServiceStub(channel),
            tracking_plans=TrackingPlansServiceStub(channel),
            quarantine=QuarantineServiceStub(channel),
            suppressions=SuppressionsServiceStub(channel),
            imports=ImportsServiceStub(channel),
            orders=OrdersServiceStub(channel),
            identity=IdentityServiceStub(channel),
            segments=SegmentsServiceStub(channel),
            gateway=GatewayServiceStub(channel),
            _api_key=dev["api_key"],
            _write_key=dev["write_key"],
            _http=http,
        )


def with_request_id(request: M, *, story: str = "") -> M:
    """Returns the request with an id made of its content: the same request is the same command.

    What is asked twice on purpose differs by its `story`.
    """
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("request_id")
    content = f"{asked.DESCRIPTOR.full_name}/{story}/{serialized(asked).hex()}"
    setattr(asked, "request_id", str(uuid.uuid5(_REQUESTS, content)))  # noqa: B010, any command
    return asked


def reason_of(error: RapportError) -> str:
    """Returns the platform's reason as one line; rules that several fields break are told once."""
    rules: dict[str, list[str]] = {}
    for violation in error.violations:
        rules.setdefault(violation.description, []).append(violation.field)
    told = "; ".join(f"{', '.join(fields)}: {rule}" for rule, fields in rules.items())
    return f"{error.reason}: {told or error.message}"


def _may_pass(error: RapportError) -> bool:
    passing = isinstance(error, Unavailable | DeadlineExceeded)
    return passing or error.reason in {Reason.CONFLICT, Reason.LIMIT_REACHED}


def _answered(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_success:
        content: dict[str, Any] = answer.json()
        return content
    raise RapportError(
        f"HTTP_{answer.status_code}", f"the gateway answered {answer.status_code}: {answer.text}"
    )


class _Patience:
    """How long one question is repeated, in growing and uneven steps."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + REPEAT_FOR_S
        self._longest_s = FIRST_PAUSE_S

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends_at

    async def pause(self) -> None:
        await asyncio.sleep(self._longest_s * random.uniform(0.5, 1.0))
        self._longest_s = min(self._longest_s * 2, PAUSE_MAX_S)
