"""What the events service answers about customer events: recorded, watched, read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from rapport.events.v1 import service_pb2 as pb
from rapport.events.v1.service_pb2_grpc import EventsServiceServicer
from services.events.projections.counts import list_counts
from services.events.projections.customer_events import VIEW, CustomerEvents, watched
from services.kernel.errors import InvalidArgument, NotFound, Unavailable
from services.kernel.log.log import Origin
from services.kernel.log.tokens import encode_write_token
from services.kernel.rpc.caller import current_caller, draining

if TYPE_CHECKING:
    from services.events.recording import Recorder
    from services.kernel.process.runtime import Kernel

    ServicerContext = grpc.aio.ServicerContext[Any, Any]

COLLECTION = "customerEvents"
SOURCES = "sources/"
# Batches of one stream that are on their way into the log; whoever sends more waits.
STREAM_BATCHES_IN_FLIGHT_MAX = 4
# As many customer events of the largest size as fit into one response.
TOLD_AT_ONCE_MAX = 100


class EventsService(EventsServiceServicer):
    """Records customer events and hands them out again."""

    def __init__(self, kernel: Kernel, recorder: Recorder) -> None:
        self._kernel = kernel
        self._recorder = recorder
        self._customer_events = CustomerEvents(kernel.pool, kernel.log, kernel.event_types)

    async def RecordCustomerEvents(
        self, request: pb.RecordCustomerEventsRequest, _: ServicerContext
    ) -> pb.RecordCustomerEventsResponse:
        """Records what is valid and new; answers when it is durable."""
        return await self._record(request, current_caller().correlation_id)

    async def StreamCustomerEvents(
        self, requests: AsyncIterator[pb.StreamCustomerEventsRequest], _: ServicerContext
    ) -> AsyncIterator[pb.StreamCustomerEventsResponse]:
        """Records batch after batch, a few at once, and answers in their order."""
        flow = _Flow()
        reading = asyncio.create_task(flow.read(requests, self._record))
        ending = asyncio.create_task(draining().wait())
        ending.add_done_callback(lambda _: reading.cancel())
        try:
            while (task := await flow.tasks.get()) is not None:
                response = await task
                yield pb.StreamCustomerEventsResponse(
                    receipts=response.receipts, write_token=response.write_token
                )
                flow.room.release()
            if draining().is_set():
                raise Unavailable(self._kernel.log.service, message="this server is about to stop")
            await reading
        finally:
            ending.cancel()
            reading.cancel()
            await flow.abandon()

    async def WatchCustomerEvents(
        self, request: pb.WatchCustomerEventsRequest, _: ServicerContext
    ) -> AsyncIterator[pb.WatchCustomerEventsResponse]:
        """Tells customer events as the log grows; what does not match the filter is not told."""
        matches = watched(request.filter)
        workspace = current_caller().workspace
        after = await self._kernel.follower.begin(self._kernel.log.service, request.resume_token)
        token = encode_write_token(self._kernel.log.service, after)
        # Tells at once where the watch begins, so that who loses it early can resume, too.
        yield pb.WatchCustomerEventsResponse(resume_token=token)
        async for events, reached in self._kernel.follower.follow(workspace, after):
            found = matches(events)
            for start in range(0, len(found), TOLD_AT_ONCE_MAX):
                told = found[start : start + TOLD_AT_ONCE_MAX]
                if told[-1] is found[-1]:
                    token = encode_write_token(self._kernel.log.service, reached)
                yield pb.WatchCustomerEventsResponse(customer_events=told, resume_token=token)

    async def GetCustomerEvent(
        self, request: pb.GetCustomerEventRequest, _: ServicerContext
    ) -> pb.GetCustomerEventResponse:
        """Gets a customer event from the log: one that was acknowledged is there."""
        message_id = message_id_in(request.name, COLLECTION)
        found = await self._customer_events.get(current_caller().workspace, message_id)
        if found is None:
            raise NotFound(request.name)
        return pb.GetCustomerEventResponse(customer_event=found)

    async def ListCustomerEvents(
        self, request: pb.ListCustomerEventsRequest, _: ServicerContext
    ) -> pb.ListCustomerEventsResponse:
        """Lists customer events from the view, at least as fresh as the read token."""
        await self._kernel.freshness.wait(VIEW.name, request.read_token)
        found, token = await self._customer_events.list(current_caller().workspace, request)
        return pb.ListCustomerEventsResponse(customer_events=found, next_page_token=token)

    async def ListCustomerEventCounts(
        self, request: pb.ListCustomerEventCountsRequest, _: ServicerContext
    ) -> pb.ListCustomerEventCountsResponse:
        """Lists what came and what became of it."""
        await self._kernel.freshness.wait(VIEW.name, request.read_token)
        workspace = current_caller().workspace
        counts, token = await list_counts(self._kernel.pool, workspace, request)
        return pb.ListCustomerEventCountsResponse(counts=counts, next_page_token=token)

    async def _record(
        self, request: pb.RecordCustomerEventsRequest | pb.StreamCustomerEventsRequest, call: str
    ) -> pb.RecordCustomerEventsResponse:
        caller = current_caller()
        return await self._recorder.record(
            Origin(caller.workspace, caller.actor, call, causation_id=""),
            request.customer_events,
            source=source_of(caller.actor, request.source),
        )


Record = Callable[
    [pb.RecordCustomerEventsRequest | pb.StreamCustomerEventsRequest, str],
    Awaitable[pb.RecordCustomerEventsResponse],
]


class _Flow:
    """The batches of one stream on their way: few at once, answered in their order."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(STREAM_BATCHES_IN_FLIGHT_MAX)
        self.tasks: asyncio.Queue[asyncio.Future[pb.RecordCustomerEventsResponse] | None] = (
            asyncio.Queue()
        )

    async def read(
        self, requests: AsyncIterator[pb.StreamCustomerEventsRequest], record: Record
    ) -> None:
        """Takes the next batch when there is room, until the stream ends; None says that it did."""
        call = current_caller().correlation_id
        number = 0
        try:
            await self.room.acquire()
            async for request in requests:
                number += 1
                # A batch's place is part of the ids made up in it: no two batches share them.
                self.tasks.put_nowait(asyncio.ensure_future(record(request, f"{call}/{number}")))
                await self.room.acquire()
        finally:
            self.tasks.put_nowait(None)

    async def abandon(self) -> None:
        """Gives up what nobody waits for any more."""
        while not self.tasks.empty():
            task = self.tasks.get_nowait()
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def source_of(actor: str, named: str) -> str:
    """The source that customer events come from: the caller itself, or the one a caller names."""
    if actor.startswith(SOURCES):
        if named not in ("", actor):
            raise InvalidArgument.of("source", f"this write key sends for {actor} only")
        return actor
    return named


def message_id_in(name: str, collection: str, field: str = "name") -> str:
    """The message id inside a name: all that follows the collection, slashes included."""
    message_id = name.removeprefix(f"{collection}/")
    if message_id in ("", name) or "\0" in message_id:
        raise InvalidArgument.of(field, f"must look like {collection}/{{message_id}}")
    return message_id
