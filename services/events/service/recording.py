"""The RPCs of the events service."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc

from rapport.events.v1 import service_pb2 as pb
from rapport.events.v1.service_pb2_grpc import EventsServiceServicer
from services.events.projections import VIEW, CustomerEvents
from services.events.receipts import Batch, Place
from services.kernel.command.work import Change, Outcome, StreamState, Work
from services.kernel.errors import InvalidArgument, NotFound, ResourceExhausted
from services.kernel.log.log import NO_STREAM, Append, NewEvent, Origin
from services.kernel.log.tokens import encode_write_token
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from services.kernel.process.runtime import Kernel

    ServicerContext = grpc.aio.ServicerContext[Any, Any]

COLLECTION = "customerEvents"
# What may wait to be recorded; whoever comes then is told to come again.
IN_FLIGHT_BYTES_MAX = 64 * 1024 * 1024


class EventsService(EventsServiceServicer):
    """Records customer events and hands them out again."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._customer_events = CustomerEvents(kernel.pool, kernel.log, kernel.event_types)
        self._in_flight_bytes = 0

    async def RecordCustomerEvents(
        self, request: pb.RecordCustomerEventsRequest, _: ServicerContext
    ) -> pb.RecordCustomerEventsResponse:
        """Records what is valid and new; answers when it is durable."""
        caller = current_caller()
        call = caller.correlation_id
        origin = Origin(caller.workspace, caller.actor, call, causation_id="")
        batch = Batch(request.customer_events, receive_time=self._kernel.clock.now(), call=call)
        recording = _Recording(self._kernel, origin, batch)
        if not batch.fresh:
            return recording.response({})
        with self._in_flight(request.ByteSize()):
            answer = await self._kernel.group_commit.submit(recording.work())
        return cast("pb.RecordCustomerEventsResponse", answer)

    async def GetCustomerEvent(
        self, request: pb.GetCustomerEventRequest, _: ServicerContext
    ) -> pb.GetCustomerEventResponse:
        """Gets a customer event from the log: one that was acknowledged is there."""
        message_id = request.name.removeprefix(f"{COLLECTION}/")
        if message_id in ("", request.name) or "\0" in message_id:
            raise InvalidArgument.of("name", f"must look like {COLLECTION}/{{message_id}}")
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

    @contextmanager
    def _in_flight(self, size_bytes: int) -> Iterator[None]:
        if self._in_flight_bytes + size_bytes > IN_FLIGHT_BYTES_MAX:
            raise ResourceExhausted("IN_FLIGHT_BYTES_MAX", IN_FLIGHT_BYTES_MAX)
        self._in_flight_bytes += size_bytes
        try:
            yield
        finally:
            self._in_flight_bytes -= size_bytes


class _Recording:
    """One batch on its way through a group commit: what its message ids met in the log."""

    def __init__(self, kernel: Kernel, origin: Origin, batch: Batch) -> None:
        self._log = kernel.log
        self._origin = origin
        self._batch = batch
        self._known: dict[str, Place] = {}

    def work(self) -> Work:
        """What the group commit shall do."""
        return Work(
            origin=self._origin,
            decide=self._decide,
            respond=self._respond,
            probed=list(self._batch.fresh),
        )

    def response(self, recorded: Mapping[str, Place]) -> pb.RecordCustomerEventsResponse:
        """Receipts, and a token that covers duplicates, too: a retry must read its own write."""
        reached: dict[int, int] = {}
        for place in (*self._known.values(), *recorded.values()):
            reached[place.partition] = max(place.position, reached.get(place.partition, 0))
        return pb.RecordCustomerEventsResponse(
            receipts=self._batch.receipts(recorded=recorded, known=self._known),
            write_token=encode_write_token(self._log.service, reached),
        )

    def _decide(self, states: Mapping[str, StreamState]) -> list[Change]:
        workspace = self._origin.workspace
        self._known = {
            stream: Place(self._log.partition_of(workspace, stream), state.first_position)
            for stream, state in states.items()
        }
        return [
            Change(Append(self._origin, stream, [NewEvent(fact, occur_time)], NO_STREAM))
            for stream, (fact, occur_time) in self._batch.fresh.items()
            if stream not in self._known
        ]

    def _respond(self, outcome: Outcome) -> pb.RecordCustomerEventsResponse:
        return self.response(
            {event.stream: Place(event.partition, event.position) for event in outcome.events}
        )
