"""What the events service holds about people, and how it goes: the contract of `kernel.erasing`.

A customer event that names a person is found by a look at every message of the workspace, for a
person may be named anywhere in it; the look is taken in steps, while nobody is held up, and goes on
where it was left. What is found goes with its whole stream, and the stream gets another name, as a
message id may tell whose it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING
from uuid import UUID

from google.protobuf.json_format import MessageToJson

from rapport.common.v1.subjects_pb2 import SubjectRecord
from rapport.events.v1.events_pb2 import (
    CustomerEventQuarantined,
    CustomerEventRecorded,
    CustomerEventsErased,
)
from services.events.anonymised import PREFIX, anonymised
from services.events.naming import names
from services.events.projections import counts, erased, importing, sought
from services.events.projections.doors import RULES_AGE_S_MAX
from services.events.receipts import erased_stream_of, message_id_of, stream_of
from services.events.retention import MESSAGES
from services.events.upkeep.erasing_files import erase_in_files
from services.kernel.erasing import tombstones
from services.kernel.erasing.holdings import Gone
from services.kernel.erasing.subjects import hash_of
from services.kernel.errors import Aborted
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.recorded import short_type, timestamp_of, utc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from datetime import datetime

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from services.events.projections.sought import Stretch
    from services.kernel.erasing.subjects import Erasure, Subject
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx
    from services.kernel.process.runtime import Kernel

STEP_TIMEOUT_S = 20.0
# How long a look that must wait does so before it answers.
PAUSE_S = 0.25
# All doors know of an erasure by then, and no clock of ours is further behind.
DOORS_HEAR_S = RULES_AGE_S_MAX + 0.5

ANONYMISED = "anonymised customer events"
ROW_ERRORS, NAMES_TURNED_AWAY = "row errors of imports", "names of what was turned away"


class EventsHoldings:
    """Customer events and files that name people."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def seek(self, pool: Pool, erasure: Erasure) -> bool:
        """Looks at the next piece of the log; by age a rule has looked for itself before."""
        if erasure.is_by_age:
            return False
        now = self._kernel.clock.now()
        begun = await sought.begin(pool, erasure.workspace, erasure.name, _mark_of(erasure), now)
        # From then on all that comes is received later, and judged by who knows of the erasure.
        until = max(erasure.key.receive_time, heard(begun))
        if now > until:
            await tombstones.seal_received(pool, until)
            await sought.end(pool, erasure.workspace, erasure.name)
        stretches = await sought.left(pool, erasure.workspace, erasure.name)
        if stretches:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await self._look(pool, erasure, stretches[0])
        elif now <= until:
            await asyncio.sleep(PAUSE_S)
        return bool(stretches) or now <= until

    async def find(self, pool: Pool, erasure: Erasure, limit: int) -> Sequence[Envelope]:
        """The next messages that go, each with all that became of it."""
        if erasure.is_by_age:
            until = erasure.key.receive_time
            await sought.drop_younger(pool, erasure.workspace, look_of(erasure), until)
        return await sought.found_streams(pool, erasure.workspace, look_of(erasure), limit)

    async def forget(self, tx: Tx, erasure: Erasure, events: Sequence[Recorded]) -> Gone:
        """Takes messages out of all views, and says which facts are gone."""
        workspace = erasure.workspace
        streams = sorted({event.stream for event in events})
        known = {event.event_id for event in events}
        since = [
            envelope
            for envelope in await sought.read_streams(tx, workspace, streams)
            if UUID(envelope.event_id) not in known
        ]
        if since and erasure.is_by_age:
            raise Aborted.conflict("something came to a message that was old enough to go")
        events = [*events, *self._kernel.event_types.decode_all(since)]
        await erased.forget(tx, workspace, events)
        places = [(event.partition, event.position) for event in events]
        await sought.forget_places(tx, workspace, look_of(erasure), places)
        key = erasure.subject.hash_key
        gone = Gone(
            events=since,
            renamed={name: erased_stream_of(key, message_id_of(name)) for name in streams},
            counts=Counter({MESSAGES: len(streams)}),
        )
        gone.appends += self._told(erasure, events)
        if erasure.anonymises:
            left = list(self._left(erasure, events))
            gone.appends += left
            gone.counts[ANONYMISED] = len(left)
        return gone

    async def forget_rest(self, pool: Pool, erasure: Erasure) -> Gone | None:
        """Files of imports, what is said of their rows, and names that were turned away."""
        if erasure.is_by_age:
            return None
        gone = await erase_in_files(self._kernel, erasure)
        if gone is not None:
            return gone
        async with asyncio.timeout(STEP_TIMEOUT_S):
            found = {
                ROW_ERRORS: await importing.blank_errors(pool, erasure.workspace),
                NAMES_TURNED_AWAY: await counts.forget_names_turned_away(pool, erasure.workspace),
            }
            if any(found.values()):
                return Gone(counts=Counter(found))
            await sought.forget(pool, erasure.workspace, erasure.name)
        return None

    async def preview(self, pool: Pool, subject: Subject) -> Gone:
        """Counts the messages that name a person."""
        streams: set[str] = set()
        async for events in self._named(pool, subject):
            streams.update(event.stream for event in events)
        return Gone(counts=Counter({MESSAGES: len(streams)}))

    async def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[SubjectRecord]]:
        """Every customer event that names a person, whatever became of it."""
        async for events in self._named(pool, subject):
            yield [_record_of(event) for event in events]

    async def _look(self, pool: Pool, erasure: Erasure, stretch: Stretch) -> None:
        envelopes = await sought.read_stretch(pool, erasure.workspace, stretch)
        positions = await asyncio.to_thread(self._taken, erasure, envelopes)
        async with transaction(pool) as tx:
            await sought.keep(tx, erasure.workspace, erasure.name, stretch, positions)

    def _taken(self, erasure: Erasure, envelopes: Sequence[Envelope]) -> list[int]:
        return [
            event.position
            for event in self._kernel.event_types.decode_all(envelopes)
            if (said := said_in(event)) is not None
            and erasure.covers(utc(said.receive_time), event.event_id)
            and names(erasure.subject, said)
        ]

    def _told(self, erasure: Erasure, events: Sequence[Recorded]) -> Iterator[Append]:
        """The fact that says which are gone, once per partition: it comes behind all of them."""
        by_partition = attrgetter("partition")
        for partition, own in groupby(sorted(events, key=by_partition), by_partition):
            fact = CustomerEventsErased(
                cause=look_of(erasure), event_ids=[event.event_id.bytes for event in own]
            )
            stream = self._stream_in(erasure.workspace, partition)
            yield Append(_origin_of(erasure), stream, [NewEvent(fact)])

    def _left(self, erasure: Erasure, events: Sequence[Recorded]) -> Iterator[Append]:
        """What stays of recorded customer events without their person: the last word of each."""
        last = {event.stream: event for event in events}
        key = erasure.subject.hash_key
        for event in last.values():
            if not isinstance(event.event, CustomerEventRecorded):
                continue
            message_id = f"{PREFIX}{event.event_id}"
            left = anonymised(
                event.event.customer_event,
                erasure.subject,
                message_id,
                lambda text: hash_of(key, "order_id", text),
            )
            if left is not None:
                new = NewEvent(CustomerEventRecorded(customer_event=left), event.occur_time)
                yield Append(_origin_of(erasure), stream_of(message_id), [new])

    def _stream_in(self, workspace: str, partition: int) -> str:
        """A stream of its own that lies in a partition."""
        while True:
            stream = f"gone-{self._kernel.new_id()}"
            if self._kernel.log.partition_of(workspace, stream) == partition:
                return stream

    async def _named(self, pool: Pool, subject: Subject) -> AsyncIterator[list[Recorded]]:
        """Looks at all that the log has now, and keeps nothing of the look."""
        for stretch in await sought.whole_log(pool):
            envelopes = await sought.read_stretch(pool, subject.workspace, stretch)
            found = await asyncio.to_thread(self._naming, subject, envelopes)
            if found:
                yield found

    def _naming(self, subject: Subject, envelopes: Sequence[Envelope]) -> list[Recorded]:
        return [
            event
            for event in self._kernel.event_types.decode_all(envelopes)
            if (said := said_in(event)) is not None and names(subject, said)
        ]


def said_in(event: Recorded) -> CustomerEvent | None:
    """The customer event that a fact tells of, if it tells of one."""
    fact = event.event
    if isinstance(fact, CustomerEventRecorded | CustomerEventQuarantined):
        return fact.customer_event
    return None


def look_of(erasure: Erasure) -> str:
    """The name of the look by which an erasure finds: of a rule it is the rule's, run by run."""
    return erasure.name.partition("@")[0]


def heard(begun: datetime) -> datetime:
    """When every door knows of an erasure that began then."""
    return begun + timedelta(seconds=DOORS_HEAR_S)


def _mark_of(erasure: Erasure) -> str:
    """What an erasure looks for: another look is begun when it looks for more."""
    said = "/".join([f"{erasure.key}", *sorted(erasure.subject.hashes)])
    return hashlib.sha256(said.encode()).hexdigest()


def _origin_of(erasure: Erasure) -> Origin:
    name = look_of(erasure)
    return Origin(erasure.workspace, name, name, causation_id="")


def _record_of(event: Recorded) -> SubjectRecord:
    said = said_in(event)
    assert said is not None
    return SubjectRecord(
        system="log",
        resource=f"customerEvents/{said.message_id}",
        kind=short_type(event.type),
        occur_time=timestamp_of(event.occur_time),
        record_time=timestamp_of(event.record_time),
        content=MessageToJson(said, indent=None),
    )
