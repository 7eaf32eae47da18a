"""The services behind the gateway, asked in the name of whoever asks us, or in our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.catalog import FORWARDED
from gateway.customer360 import Stubs
from gateway.write_keys import Resolve
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from rapport.events.v1 import webhook_deliveries_pb2, write_keys_pb2
from rapport.events.v1.webhook_deliveries_pb2 import DeliverWebhookRequest, DeliverWebhookResponse
from rapport.events.v1.webhook_deliveries_pb2_grpc import WebhookDeliveriesServiceStub
from rapport.events.v1.write_keys_pb2_grpc import WriteKeysServiceStub
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from rapport.segments.v1.service_pb2_grpc import SegmentsServiceStub
from services.kernel.clock import Clock
from services.kernel.rpc.caller import INTERNAL_SCOPE, CallerSigner, current_caller, own_caller
from services.kernel.rpc.client import PeerChannel

RESOLVE_WITHIN_S: Final = 2.0

Deliver = Callable[[DeliverWebhookRequest], Awaitable[DeliverWebhookResponse]]


class Peers:
    """A channel to every service; closed at the end of an `async with`."""

    def __init__(self, addresses: Mapping[str, str], signer: CallerSigner, clock: Clock) -> None:
        self._channels = {
            name: PeerChannel(
                name,
                addresses[name],
                services=descriptors,
                signer=signer,
                speak_as=current_caller,
            )
            for name, descriptors in FORWARDED.items()
        }
        # Before we know who asks, there is nobody else in whose name to ask.
        self._own = PeerChannel(
            "events",
            addresses["events"],
            services=[write_keys_pb2.DESCRIPTOR.services_by_name["WriteKeysService"]],
            signer=signer,
            speak_as=lambda: own_caller(
                "services/gateway", clock=clock, scopes=frozenset({INTERNAL_SCOPE})
            ),
            unary_deadline_s=RESOLVE_WITHIN_S,
        )
        self._deliveries = PeerChannel(
            "events",
            addresses["events"],
            services=[
                webhook_deliveries_pb2.DESCRIPTOR.services_by_name["WebhookDeliveriesService"]
            ],
            signer=signer,
            speak_as=current_caller,
        )
        self._names = {
            descriptor.full_name: name
            for name, descriptors in FORWARDED.items()
            for descriptor in descriptors
        }

    @property
    def stubs(self) -> Stubs:
        """What Customer 360 asks."""
        return Stubs(
            contacts=ContactsServiceStub(self._channels["contacts"]),
            deals=DealsServiceStub(self._channels["deals"]),
            identity=IdentityServiceStub(self._channels["identity"]),
            segments=SegmentsServiceStub(self._channels["segments"]),
        )

    @property
    def resolve_write_key(self) -> Resolve:
        """What says whose a write key is."""
        resolve: Resolve = WriteKeysServiceStub(self._own).ResolveWriteKey
        return resolve

    @property
    def deliver_webhook(self) -> Deliver:
        """What takes a delivery to a webhook."""
        deliver: Deliver = WebhookDeliveriesServiceStub(self._deliveries).DeliverWebhook
        return deliver

    def answers(self, descriptor: ServiceDescriptor) -> bool:
        """Tells whether one of the services answers this."""
        return descriptor.full_name in self._names

    def callable(self, method: MethodDescriptor) -> Callable[[Message], Any]:
        """Returns what calls a unary method."""
        service = method.containing_service
        call: Callable[[Message], Any] = self._channels[self._names[service.full_name]].unary_unary(
            f"/{service.full_name}/{method.name}",
            GetMessageClass(method.input_type).SerializeToString,
            GetMessageClass(method.output_type).FromString,
        )
        return call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        channels = [*self._channels.values(), self._own, self._deliveries]
        await asyncio.gather(*(channel.close() for channel in channels))
