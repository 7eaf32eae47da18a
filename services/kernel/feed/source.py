"""Sources: the logs that a service's consumers read, its own among them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rapport.common.v1 import log_service_pb2, log_service_pb2_grpc
from services.kernel.clock import SystemClock
from services.kernel.feed.log_service import hole_reader
from services.kernel.feed.reader import HoleReader
from services.kernel.log.log import read_heads, read_partition
from services.kernel.rpc.caller import INTERNAL_SCOPE, CallerSigner, own_caller
from services.kernel.rpc.client import PeerChannel

if TYPE_CHECKING:
    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.process.config import ServiceConfig


@dataclass(frozen=True, slots=True)
class Source:
    """A log: `read` answers the events after a position, `heads` where each partition ends."""

    read: HoleReader
    heads: Callable[[], Awaitable[Mapping[int, int]]]


def own_source(pool: Pool) -> Source:
    """The service's own log, from its database."""

    async def read(partition: int, after_position: int, limit: int) -> Sequence[Envelope]:
        return await read_partition(pool, partition, after=after_position, limit=limit)

    async def heads() -> Mapping[int, int]:
        return await read_heads(pool)

    return Source(read, heads)


@asynccontextmanager
async def open_sources(
    names: Iterable[str], config: ServiceConfig, pool: Pool
) -> AsyncIterator[Mapping[str, Source]]:
    """The sources by name; other services' logs through their LogService."""
    signer = CallerSigner(config.internal_secret, SystemClock())
    speak_as = partial(
        own_caller,
        f"services/{config.name}",
        clock=SystemClock(),
        scopes=frozenset({INTERNAL_SCOPE}),
    )
    async with AsyncExitStack() as stack:
        sources = {}
        for name in sorted(set(names)):
            if name == config.name:
                sources[name] = own_source(pool)
                continue
            channel = await stack.enter_async_context(
                PeerChannel(
                    name,
                    config.peers[name],
                    services=[log_service_pb2.DESCRIPTOR.services_by_name["LogService"]],
                    signer=signer,
                    speak_as=speak_as,
                )
            )
            sources[name] = _peer_source(log_service_pb2_grpc.LogServiceStub(channel), name)
        yield sources


def _peer_source(stub: log_service_pb2_grpc.LogServiceStub, name: str) -> Source:
    async def heads() -> Mapping[int, int]:
        answer = await stub.GetHeads(log_service_pb2.GetHeadsRequest())
        return {head.partition: head.position for head in answer.heads}

    return Source(hole_reader(stub, name), heads)
