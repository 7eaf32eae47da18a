"""The one way in which customer events get into the log, whoever brings them.

A batch is judged at the door of its source, and what may be recorded goes into the log under the
head lock, where it is seen what was there before. Everything accepted or quarantined is on disk
when the receipts are answered.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from rapport.events.v1.events_pb2 import CustomerEventRetracted
from rapport.events.v1.service_pb2 import RecordCustomerEventsResponse
from services.events.projections.counts import count_turned_away
from services.events.projections.erased import erased_until
from services.events.projections.suppressions import suppressed_among, suppression_key
from services.events.receipts import (
    Batch,
    Fresh,
    Inlet,
    Place,
    erased_stream_of,
    message_id_of,
)
from services.kernel.command.stream_state import probe_streams
from services.kernel.command.work import Change, Outcome, StreamState, Work
from services.kernel.erasing.subjects import hash_key_of
from services.kernel.errors import Aborted, FailedPrecondition, ResourceExhausted
from services.kernel.log.log import NO_STREAM, Append, NewEvent, Origin
from services.kernel.log.tokens import encode_write_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from rapport.events.v1.service_pb2 import Receipt
    from services.events.projections.doors import Doors
    from services.kernel.process.runtime import Kernel

# What may wait to be recorded; whoever comes then is told to come again.
IN_FLIGHT_BYTES_MAX = 64 * 1024 * 1024
# How long a batch is judged before others are served: rules may take their time with each.
JUDGING_S_MAX = 0.02

_NOWHERE = Place(0, 0)
_RETRACTED = CustomerEventRetracted.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True)
class Fence:
    """A stream of the same workspace that must still be at a version, or nothing is recorded."""

    stream: str
    version: int


@dataclass(slots=True)
class Recorder:
    """Records customer events; one per process, so that it knows what is on its way."""

    kernel: Kernel
    doors: Doors
    _in_flight_bytes: int = field(default=0, init=False)

    async def record(
        self,
        origin: Origin,
        customer_events: Sequence[CustomerEvent],
        *,
        source: str,
        import_name: str = "",
        fence: Fence | None = None,
    ) -> RecordCustomerEventsResponse:
        """Records what is valid and new; answers when it is durable.

        `source` is `sources/{id}` or empty. Raises FailedPrecondition when it is disabled, Aborted
        when the fence has moved, ResourceExhausted when too much waits, and what the group commit
        raises.
        """
        size_bytes = sum(sent.ByteSize() for sent in customer_events)
        with self._in_flight(size_bytes):
            batch = await self._judged(origin, customer_events, source, import_name)
            response = await self._commit(_Recording(self.kernel, origin, batch, fence))
        await count_turned_away(self.kernel, origin.workspace, source, batch.turned_away())
        return response

    async def preview(
        self, origin: Origin, customer_events: Sequence[CustomerEvent], *, source: str
    ) -> Sequence[Receipt]:
        """Tells what would become of customer events, as of now; records nothing.

        Raises FailedPrecondition when the source is disabled.
        """
        batch = await self._judged(origin, customer_events, source, "")
        erased = _erased_streams(self.kernel, origin.workspace, batch)
        keys = [(origin.workspace, stream) for stream in (*batch.fresh, *erased.values())]
        async with self.kernel.pool.acquire() as connection:
            states = await probe_streams(connection, keys)
        present = {key[1] for key, state in states.items() if state.last_type != _RETRACTED}
        gone = {key[1] for key in states}
        known = {
            stream for stream in batch.fresh if stream in present or erased.get(stream) in gone
        }
        return batch.receipts(
            recorded=dict.fromkeys(batch.fresh.keys() - known, _NOWHERE),
            known=dict.fromkeys(known, _NOWHERE),
        )

    async def _judged(
        self,
        origin: Origin,
        customer_events: Sequence[CustomerEvent],
        source: str,
        import_name: str,
    ) -> Batch:
        """The customer events as the door lets them in."""
        door = await self.doors.of(origin.workspace, source)
        if door.is_disabled:
            message = f"{source} is disabled: nothing it sends is taken"
            raise FailedPrecondition(message, resource=source, state="DISABLED")
        batch = Batch(
            (),
            Inlet(
                door=door,
                receive_time=self.kernel.clock.now(),
                call=origin.correlation_id,
                import_name=import_name,
                suppression_key=suppression_key(self.kernel.derive_key, origin.workspace),
                erasure_key=hash_key_of(self.kernel.derive_key, origin.workspace),
            ),
        )
        await _judge(batch, customer_events)
        suspects, traces = batch.suspects, batch.traces
        if suspects or traces:
            pool, workspace = self.kernel.pool, origin.workspace
            batch.refuse(
                await suppressed_among(pool, workspace, suspects),
                await erased_until(pool, workspace, traces),
            )
        return batch

    async def _commit(self, recording: _Recording) -> RecordCustomerEventsResponse:
        if not recording.batch.fresh:
            return recording.response({})
        answer = await self.kernel.group_commit.submit(recording.work())
        return cast("RecordCustomerEventsResponse", answer)

    @contextmanager
    def _in_flight(self, size_bytes: int) -> Iterator[None]:
        if self._in_flight_bytes + size_bytes > IN_FLIGHT_BYTES_MAX:
            raise ResourceExhausted("IN_FLIGHT_BYTES_MAX", IN_FLIGHT_BYTES_MAX)
        self._in_flight_bytes += size_bytes
        try:
            yield
        finally:
            self._in_flight_bytes -= size_bytes


async def _judge(batch: Batch, customer_events: Sequence[CustomerEvent]) -> None:
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + JUDGING_S_MAX
    for customer_event in customer_events:
        batch.add(customer_event)
        if loop.time() >= ends_at:
            await asyncio.sleep(0)
            ends_at = loop.time() + JUDGING_S_MAX


def _erased_streams(kernel: Kernel, workspace: str, batch: Batch) -> dict[str, str]:
    """By stream, where its message is kept if it was erased; none where nobody ever was."""
    if not batch.has_erased_messages:
        return {}
    key = hash_key_of(kernel.derive_key, workspace)
    return {stream: erased_stream_of(key, message_id_of(stream)) for stream in batch.fresh}


class _Recording:
    """One batch on its way through a group commit: what its message ids met in the log."""

    def __init__(
        self, kernel: Kernel, origin: Origin, batch: Batch, fence: Fence | None = None
    ) -> None:
        self.batch = batch
        self._fence = fence
        self._log = kernel.log
        self._origin = origin
        self._known: dict[str, Place] = {}
        self._erased_streams = _erased_streams(kernel, origin.workspace, batch)

    def work(self) -> Work:
        """What the group commit shall do."""
        return Work(
            origin=self._origin,
            decide=self._decide,
            respond=self._respond,
            probed=[
                *self.batch.fresh,
                *self._erased_streams.values(),
                *([self._fence.stream] if self._fence else []),
            ],
            receive_time=self.batch.receive_time,
        )

    def response(self, recorded: Mapping[str, Place]) -> RecordCustomerEventsResponse:
        """Receipts, and a token that covers duplicates, too: a retry must read its own write."""
        reached: dict[int, int] = {}
        for place in (*self._known.values(), *recorded.values()):
            reached[place.partition] = max(place.position, reached.get(place.partition, 0))
        return RecordCustomerEventsResponse(
            receipts=self.batch.receipts(recorded=recorded, known=self._known),
            write_token=encode_write_token(self._log.service, reached),
        )

    def _decide(self, states: Mapping[str, StreamState]) -> list[Change]:
        """What was never received, or was retracted, goes into the log; the rest is known."""
        workspace = self._origin.workspace
        if self._fence is not None:
            fenced = states.get(self._fence.stream, StreamState())
            if fenced.version != self._fence.version:
                raise Aborted.conflict(f"{self._fence.stream} has changed meanwhile")
        self._known = {
            stream: Place(self._log.partition_of(workspace, stream), state.last_position)
            for stream in self.batch.fresh
            if (state := self._last_of(stream, states)) is not None
        }
        return [
            self._append(stream, fresh, states.get(stream))
            for stream, fresh in self.batch.fresh.items()
            if stream not in self._known
        ]

    def _last_of(self, stream: str, states: Mapping[str, StreamState]) -> StreamState | None:
        """What a message has come to, if it is known: what was erased stays known for ever."""
        state = states.get(stream)
        if state is not None and state.last_type != _RETRACTED:
            return state
        return states.get(self._erased_streams.get(stream, ""))

    def _append(self, stream: str, fresh: Fresh, state: StreamState | None) -> Change:
        version = NO_STREAM if state is None else state.version
        new = NewEvent(fresh.fact, fresh.occur_time)
        return Change(Append(self._origin, stream, [new], version))

    def _respond(self, outcome: Outcome) -> RecordCustomerEventsResponse:
        return self.response(
            {event.stream: Place(event.partition, event.position) for event in outcome.events}
        )
