"""The services behind the gateway, asked in the name of whoever asks us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.catalog import FORWARDED
from gateway.customer360 import Stubs
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from rapport.segments.v1.service_pb2_grpc import SegmentsServiceStub
from services.kernel.rpc.caller import CallerSigner, current_caller
from services.kernel.rpc.client import PeerChannel


class Peers:
    """A channel to every service; closed at the end of an `async with`."""

    def __init__(self, addresses: Mapping[str, str], signer: CallerSigner) -> None:
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
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
