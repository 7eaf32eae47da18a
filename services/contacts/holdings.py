"""What contacts hold about people, and how it goes.

A contact that ever had an identifier of a person is that person's record, and goes as a whole: what
was left of it would say less than what happened. `ContactErased` tells so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

from asyncpg import Pool
from google.protobuf.json_format import MessageToJson

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.common.v1.subjects_pb2 import SubjectRecord
from rapport.contacts.v1.events_pb2 import (
    ContactArchived,
    ContactCreated,
    ContactEmailChanged,
    ContactErased,
    ContactRenamed,
)
from services.contacts.decider import DECIDER
from services.contacts.projections import CONTACT_ROWS, contact_of
from services.kernel.erasing.holdings import Gone
from services.kernel.erasing.subjects import Erasure, Subject
from services.kernel.errors import NotFound
from services.kernel.log.log import (
    READ_BATCH_SIZE,
    Append,
    NewEvent,
    Origin,
    read_all,
    read_heads,
    read_stream,
)
from services.kernel.log.recorded import EventTypes, Recorded, is_erased, short_type, timestamp_of
from services.kernel.log.sql import Tx
from services.kernel.process.runtime import Kernel

ACTOR = "services/contacts"
CONTACTS, LOG = "contacts", "log"
# Every fact that names somebody is looked at.
SEARCH_TIMEOUT_S = 600.0

_FACTS = (ContactCreated, ContactRenamed, ContactEmailChanged, ContactArchived)
# Only these say by what somebody can be recognised.
_NAMING = [fact.DESCRIPTOR.full_name for fact in (ContactCreated, ContactEmailChanged)]

# More than are theirs, but few: bytes are shown as text, whatever is no plain letter escaped.
_CANDIDATES = """
select distinct stream from kernel.events
where workspace = $1 and type = any($2::text[]) and erasure is null and (
    exists (select from unnest($3::text[]) part
            where strpos(lower(encode(data, 'escape')), part) > 0)
    or exists (select from unnest($4::text[]) digits
               where strpos(regexp_replace(encode(data, 'escape'), '[^0-9]+', '', 'g'), digits) > 0)
)
order by stream
"""


class ContactHoldings:
    """Contacts of people, found by id, e-mail address and phone number, those of before too."""

    def __init__(self, kernel: Kernel) -> None:
        self._event_types = kernel.event_types

    async def find(self, pool: Pool, erasure: Erasure, limit: int) -> Sequence[Envelope]:
        """Whole contacts, also when they are more than asked for: a part would not be found."""
        found: list[Envelope] = []
        async for history in self._contacts(pool, erasure.subject, erasure):
            found += history
            if len(found) >= limit:
                break
        return found

    async def forget(self, tx: Tx, erasure: Erasure, events: Sequence[Recorded]) -> Gone:
        gone = Gone()
        last = {event.stream: event.version for event in events}
        for stream, version in last.items():
            since = await read_stream(tx, erasure.workspace, stream, after_version=version)
            gone.events += [envelope for envelope in since if _is_theirs(envelope)]
            gone.also.add(("contact_id", DECIDER.id_of(stream)))
            gone.ended.add(stream)
            origin = Origin(erasure.workspace, ACTOR, "", erasure.name)
            gone.appends.append(
                Append(origin, stream, [NewEvent(ContactErased(erasure=erasure.name))])
            )
        gone.counts[CONTACTS] = len(last)
        return gone

    async def forget_rest(self, _pool: Pool, _erasure: Erasure) -> None:
        """There is nothing beside log and view."""

    async def preview(self, pool: Pool, subject: Subject) -> Gone:
        gone = Gone()
        async for history in self._contacts(pool, subject):
            gone.counts += Counter({CONTACTS: 1, LOG: len(history)})
            gone.also.add(("contact_id", DECIDER.id_of(history[0].stream)))
        return gone

    async def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[SubjectRecord]]:
        async for history in self._contacts(pool, subject):
            name = DECIDER.resource_name(history[0].stream)
            records = [_record(name, event) for event in self._event_types.decode_all(history)]
            try:
                row = await CONTACT_ROWS.existing(pool, subject.workspace, name)
            except NotFound:  # it was erased since
                yield records
                continue
            content = MessageToJson(contact_of(row.aggregate_id, row), indent=None)
            contact = SubjectRecord(system=CONTACTS, resource=name, kind="Contact", content=content)
            contact.record_time.CopyFrom(timestamp_of(row.update_time))
            yield [contact, *records]

    async def _contacts(
        self, pool: Pool, subject: Subject, erasure: Erasure | None = None
    ) -> AsyncIterator[list[Envelope]]:
        """The histories of a person's contacts, as far as nothing was erased from them.

        Those of an erasure are named by facts that came early enough to go.
        """
        for stream in await self._candidates(pool, subject):
            history = await _history(pool, subject.workspace, stream)
            facts = self._event_types.decode_all(history)
            if any(
                subject.is_named(identifiers_of(event))
                for event in facts
                if erasure is None or erasure.covers(event.record_time, event.event_id)
            ):
                yield history

    async def _candidates(self, pool: Pool, subject: Subject) -> list[str]:
        """The streams of contacts that may be a person's."""
        if not subject.is_by_value:
            return await _streams_naming(pool, subject, self._event_types)
        rows = await pool.fetch(
            _CANDIDATES,
            subject.workspace,
            _NAMING,
            [_plain_part(form) for form in subject.forms_of("email")],
            subject.forms_of("phone"),
            timeout=SEARCH_TIMEOUT_S,
        )
        by_id = {DECIDER.stream(contact_id) for contact_id in subject.forms_of("contact_id")}
        return sorted(by_id.union(row["stream"] for row in rows))


def identifiers_of(event: Recorded) -> Iterator[tuple[str, str]]:
    """Whom an event of a contact names, by type and value."""
    yield "contact_id", DECIDER.id_of(event.stream)
    match event.event:
        case ContactCreated(email=email, phone=phone):
            yield "email", email
            yield "phone", phone
        case ContactEmailChanged(email=email, previous_email=previous):
            yield "email", email
            yield "email", previous


async def _streams_naming(pool: Pool, subject: Subject, event_types: EventTypes) -> list[str]:
    """The streams that name a person of whom only hashes are known: it takes the whole log."""
    found: set[str] = set()
    for partition, head in (await read_heads(pool)).items():
        async for batch in read_all(pool, partition, after=0, until=head):
            own = [envelope for envelope in batch if envelope.workspace == subject.workspace]
            found |= {
                event.stream
                for event in event_types.decode_all(own)
                if subject.is_named(identifiers_of(event))
            }
    return sorted(found)


async def _history(pool: Pool, workspace: str, stream: str) -> list[Envelope]:
    """What is left to be erased of a contact."""
    history: list[Envelope] = []
    version = 0
    while batch := await read_stream(pool, workspace, stream, after_version=version):
        version = batch[-1].version
        history += [envelope for envelope in batch if _is_theirs(envelope)]
        if len(batch) < READ_BATCH_SIZE:
            break
    return history


def _is_theirs(envelope: Envelope) -> bool:
    """Whether an event says anything of a person."""
    return not is_erased(envelope) and envelope.type != ContactErased.DESCRIPTOR.full_name


def _record(name: str, event: Recorded) -> SubjectRecord:
    record = SubjectRecord(
        system=LOG,
        resource=name,
        kind=short_type(event.type),
        content=MessageToJson(event.event, indent=None),
    )
    record.occur_time.CopyFrom(timestamp_of(event.occur_time))
    record.record_time.CopyFrom(timestamp_of(event.record_time))
    return record


def _plain_part(email: str) -> str:
    """What is in the bytes of every spelling of an address, in small letters."""
    name = email.rpartition("@")[0]
    return f"{name}@" if name.isascii() and "\\" not in name else "@"
