"""The owner's side of the log over gRPC, and the other side: reading a hole from the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from rapport.common.v1 import log_service_pb2 as pb
from rapport.common.v1.log_service_pb2_grpc import LogServiceServicer
from services.kernel.errors import NotFound, Unavailable
from services.kernel.log.log import READ_BATCH_SIZE, read_heads, read_partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from rapport.common.v1.log_service_pb2_grpc import LogServiceStub
    from services.kernel.feed.reader import HoleReader

    ServicerContext = grpc.aio.ServicerContext[Any, Any]

RESPONSE_BYTES_MAX = 1024 * 1024
FIRST_READ_SIZE = 200
READ_HOLE_TIMEOUT_S = 10.0


class LogServicer(LogServiceServicer):
    """Lets the other services read this one's log."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def ReadLog(
        self, request: pb.ReadLogRequest, _: ServicerContext
    ) -> AsyncIterator[pb.ReadLogResponse]:
        """Streams the log up to where it ends now."""
        head = (await read_heads(self._pool)).get(request.partition)
        if head is None:
            raise NotFound(f"partitions/{request.partition}")
        until = head if request.limit == 0 else min(head, request.after_position + request.limit)
        after, size = request.after_position, FIRST_READ_SIZE
        while after < until:
            events = await read_partition(
                self._pool, request.partition, after=after, limit=min(size, until - after)
            )
            if not events:
                return
            after = events[-1].position
            read_bytes = sum(event.ByteSize() for event in events)
            # The next read is about one response, however large the events are.
            size = max(
                1, min(READ_BATCH_SIZE, len(events) * RESPONSE_BYTES_MAX // (read_bytes + 1))
            )
            for part in _responses(events):
                yield part

    async def GetHeads(
        self, _request: pb.GetHeadsRequest, _: ServicerContext
    ) -> pb.GetHeadsResponse:
        """Tells how far each partition has got."""
        heads = await read_heads(self._pool)
        return pb.GetHeadsResponse(
            heads=[pb.Head(partition=p, position=position) for p, position in heads.items()]
        )


def hole_reader(stub: LogServiceStub, service: str) -> HoleReader:
    """Reads holes through the owner's LogService; raises Unavailable without an answer."""

    async def read(partition: int, after_position: int, limit: int) -> Sequence[Envelope]:
        request = pb.ReadLogRequest(partition=partition, after_position=after_position, limit=limit)
        events: list[Envelope] = []
        try:
            async for response in stub.ReadLog(request, timeout=READ_HOLE_TIMEOUT_S):
                events.extend(response.events)
        except grpc.RpcError as error:
            raise Unavailable(service) from error
        return events

    return read


def _responses(events: Sequence[Envelope]) -> Iterator[pb.ReadLogResponse]:
    """Cuts events into responses of about RESPONSE_BYTES_MAX."""
    response, size = pb.ReadLogResponse(), 0
    for event in events:
        response.events.append(event)
        size += event.ByteSize()
        if size >= RESPONSE_BYTES_MAX:
            yield response
            response, size = pb.ReadLogResponse(), 0
    if response.events:
        yield response
