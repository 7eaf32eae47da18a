"""What deals hold about people, and how it goes.

Deals, quotes and contracts are records of business: they stay, without who the person is (see
`redaction`). A person is known here by their contact alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToJson

from rapport.common.v1.subjects_pb2 import SubjectRecord
from rapport.deals.v1.events_pb2 import QuoteCreated
from services.deals.deciders import contract, deal, quote
from services.deals.projections.folded_anew import fold_anew
from services.deals.redaction import CONTACTS, contacts_of, is_made_with, redacted
from services.kernel.erasing.holdings import Gone
from services.kernel.log.log import READ_BATCH_SIZE, read_stream
from services.kernel.log.recorded import is_erased, short_type, timestamp_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.erasing.subjects import Erasure, Subject
    from services.kernel.log.recorded import EventTypes, Recorded
    from services.kernel.log.sql import Tx
    from services.kernel.process.runtime import Kernel

LOG: Final = "log"
# Every fact of a workspace is looked at.
SEARCH_TIMEOUT_S: Final = 600.0
SYSTEMS: Final = {
    deal.DECIDER.stream(""): "deals",
    quote.DECIDER.stream(""): "quotes",
    contract.DECIDER.stream(""): "contracts",
}
_DECIDERS: Final[tuple[Any, ...]] = (deal.DECIDER, quote.DECIDER, contract.DECIDER)

# Bytes are shown as text, whatever is no plain letter escaped; a name has plain letters only.
_NAMING: Final = """
select distinct stream from kernel.events
where workspace = $1 and exists (
    select from unnest($2::text[]) name where strpos(encode(data, 'escape'), name) > 0
)
order by stream
"""

_QUOTES_OF: Final = """
select quote_id from quotes.quotes where workspace = $1 and deal = any($2::text[])
order by quote_id
"""

_CONTRACTS_OF: Final = """
select contract_id from contracts.contracts where workspace = $1 and deal = any($2::text[])
order by contract_id
"""


@dataclass(frozen=True, slots=True)
class History:
    """The facts of one deal, quote or contract, and whether it was ever made with the person."""

    envelopes: Sequence[Envelope]
    events: Sequence[Recorded]
    is_about: bool

    @property
    def stream(self) -> str:
        """The stream they are of."""
        return self.events[0].stream


class DealHoldings:
    """Deals, quotes and contracts that name a person's contact."""

    def __init__(self, kernel: Kernel) -> None:
        self._event_types: EventTypes = kernel.event_types

    async def find(self, pool: Pool, erasure: Erasure, limit: int) -> Sequence[Envelope]:
        """The facts that say who the person is; of a deal and its quotes all, or none would do."""
        found: list[Envelope] = []
        async for own in self._cases(pool, erasure.subject):
            found += [
                envelope
                for history in own
                for envelope, event in zip(history.envelopes, history.events, strict=True)
                if _left_of(event, erasure, history) != event.event
            ]
            if len(found) >= limit:
                break
        return found

    async def forget(self, tx: Tx, erasure: Erasure, events: Sequence[Recorded]) -> Gone:
        gone = Gone()
        known = {(event.partition, event.position) for event in events}
        streams = sorted({event.stream for event in events})
        histories = await self._histories(tx, erasure.subject, streams)
        for history in histories:
            kept = []
            for envelope, event in zip(history.envelopes, history.events, strict=True):
                left = _left_of(event, erasure, history)
                place = event.partition, event.position
                if left != event.event:
                    gone.left[place] = left.SerializeToString()
                    if place not in known:
                        gone.events.append(envelope)
                kept.append(event._replace(event=left))
            gone.counts[_system_of(history.stream)] += 1
            await fold_anew(tx, [kept])
        return gone

    async def forget_rest(self, _pool: Pool, _erasure: Erasure) -> None:
        """There is nothing beside log and views."""

    async def preview(self, pool: Pool, subject: Subject) -> Gone:
        gone = Gone()
        async for own in self._cases(pool, subject):
            for history in own:
                gone.counts += Counter({_system_of(history.stream): 1, LOG: len(history.events)})
        return gone

    async def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[SubjectRecord]]:
        async for own in self._cases(pool, subject):
            for history in own:
                yield [_record(event) for event in history.events]

    async def _cases(self, pool: Pool, subject: Subject) -> AsyncIterator[list[History]]:
        """The histories that name the person, each deal with its quotes and contracts.

        These come before it, so that a deal that names nobody any more has none that does.
        """
        streams = await self._streams_naming(pool, subject)
        seen: set[str] = set()
        deals = [stream for stream in streams if stream.startswith(deal.DECIDER.stream(""))]
        for stream in deals:
            own = [*await _papers_of(pool, subject.workspace, stream), stream]
            seen.update(own)
            yield await self._histories(pool, subject, own)
        for stream in streams:
            if stream not in seen:
                yield await self._histories(pool, subject, [stream])

    async def _streams_naming(self, pool: Pool, subject: Subject) -> list[str]:
        names = [CONTACTS + contact_id for contact_id in subject.forms_of("contact_id")]
        if not subject.is_by_value:
            # Whom only hashes tell of may be anybody who is named.
            names.append(CONTACTS)
        if not names:
            return []
        rows = await pool.fetch(_NAMING, subject.workspace, names, timeout=SEARCH_TIMEOUT_S)
        found = []
        for row in rows:
            if not row["stream"].startswith(tuple(SYSTEMS)):
                continue
            events = self._event_types.decode_all(
                await _envelopes(pool, subject.workspace, row["stream"])
            )
            if any(_is_theirs(subject, name) for e in events for name in contacts_of(e.event)):
                found.append(row["stream"])
        return found

    async def _histories(
        self, connection: Tx | Pool, subject: Subject, streams: Sequence[str]
    ) -> list[History]:
        """The histories of streams; what has no partner of its own is with that of its deal."""
        found: list[tuple[list[Envelope], list[Recorded]]] = []
        for stream in streams:
            envelopes = await _envelopes(connection, subject.workspace, stream)
            found.append((envelopes, self._event_types.decode_all(envelopes)))
        theirs: dict[str, bool] = defaultdict(bool)
        for _, events in found:
            theirs[_name_of(events[0].stream)] = _is_with(subject, events)
        return [
            History(
                envelopes,
                events,
                theirs[_name_of(events[0].stream)] or theirs[_deal_of(events[0].event)],
            )
            for envelopes, events in found
        ]


def _left_of(event: Recorded, erasure: Erasure, history: History) -> Any:
    def is_theirs(name: str) -> bool:
        return _is_theirs(erasure.subject, name)

    return redacted(event.event, erasure.name, is_theirs, is_about=history.is_about)


def _is_with(subject: Subject, events: Iterable[Recorded]) -> bool:
    return is_made_with((event.event for event in events), lambda name: _is_theirs(subject, name))


def _is_theirs(subject: Subject, name: str) -> bool:
    return subject.has("contact_id", name.removeprefix(CONTACTS))


async def _papers_of(pool: Pool, workspace: str, stream: str) -> list[str]:
    """The streams of a deal's quotes and contracts."""
    name = deal.DECIDER.resource_name(stream)
    quotes = await pool.fetch(_QUOTES_OF, workspace, [name])
    contracts = await pool.fetch(_CONTRACTS_OF, workspace, [name])
    return [
        *(quote.DECIDER.stream(row["quote_id"]) for row in quotes),
        *(contract.DECIDER.stream(row["contract_id"]) for row in contracts),
    ]


async def _envelopes(connection: Tx | Pool, workspace: str, stream: str) -> list[Envelope]:
    found: list[Envelope] = []
    while batch := await read_stream(
        connection, workspace, stream, after_version=found[-1].version if found else 0
    ):
        found += batch
        if len(batch) < READ_BATCH_SIZE:
            break
    return [envelope for envelope in found if not is_erased(envelope)]


def _deal_of(event: Any) -> str:
    """The deal that a quote or contract is for, by its first fact; empty for none."""
    if isinstance(event, QuoteCreated):
        return event.deal
    names = event.DESCRIPTOR.fields_by_name
    return str(event.terms.deal) if "terms" in names else ""


def _system_of(stream: str) -> str:
    return next(name for prefix, name in SYSTEMS.items() if stream.startswith(prefix))


def _name_of(stream: str) -> str:
    decider = next(known for known in _DECIDERS if stream.startswith(known.stream("")))
    return str(decider.resource_name(stream))


def _record(event: Recorded) -> SubjectRecord:
    record = SubjectRecord(
        system=LOG,
        resource=_name_of(event.stream),
        kind=short_type(event.type),
        content=MessageToJson(event.event, indent=None),
    )
    record.occur_time.CopyFrom(timestamp_of(event.occur_time))
    record.record_time.CopyFrom(timestamp_of(event.record_time))
    return record
