"""The peers that a service asks in the name of whoever it acts for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from services.kernel.rpc.caller import current_caller
from services.kernel.rpc.client import PeerChannel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.descriptor import ServiceDescriptor

    from services.kernel.rpc.caller import CallerSigner


class Peers:
    """Channels to peers by name, opened when they are first asked for; each speaks for the caller.

    Who acts by himself does so within `acting_as`.
    """

    def __init__(self, addresses: Mapping[str, str], signer: CallerSigner) -> None:
        self._addresses = addresses
        self._signer = signer
        self._channels: dict[tuple[str, str], PeerChannel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    def channel(self, peer: str, services: Iterable[ServiceDescriptor]) -> PeerChannel | None:
        """The channel to a peer's services; None where nobody said where it is."""
        address = self._addresses.get(peer)
        if address is None:
            return None
        asked = tuple(services)
        key = peer, ",".join(service.full_name for service in asked)
        if key not in self._channels:
            self._channels[key] = PeerChannel(
                peer, address, services=asked, signer=self._signer, speak_as=current_caller
            )
        return self._channels[key]
