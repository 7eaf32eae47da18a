"""What identity's own log says of people: it is looked through for the nodes of somebody erased.

Profiles that ever shared an atom were told together, in each other's streams. So all of these are
found, from one to the next, and nothing that is told elsewhere leads to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from asyncpg import Pool

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.identity.v1 import events_pb2 as pb
from services.identity.changes import id_of
from services.identity.identifiers import account_name
from services.kernel.erasing.exports import SEARCH_TIMEOUT_S
from services.kernel.log.log import READ_BATCH_SIZE, read_stream
from services.kernel.log.recorded import EventTypes, Recorded
from services.kernel.log.sql import Tx

PROFILE, ACCOUNT = "profile-", "account-"

_NAMING = """
select distinct stream from kernel.events
where workspace = $1 and erasure is null and starts_with(stream, $2) and exists (
    select from unnest($3::text[]) said where position(convert_to(said, 'UTF8') in data) > 0
)
order by stream
"""

# What was said of somebody amid what others said is told in their streams, which name him nowhere;
# but when it was taken out, that was told there because of the erasure.
_CAUSED = """
select distinct stream from kernel.events
where workspace = $1 and correlation_id = $2 and erasure is null
    and (starts_with(stream, $3) or starts_with(stream, $4))
order by stream
"""

_ERASED = (pb.ProfileErased, pb.AccountErased)


@dataclass(slots=True)
class Telling:
    """What was told of profiles that ever had to do with somebody, and of their accounts.

    `atoms` are all that these profiles ever had, `events` what there is to erase of each stream.
    """

    atoms: set[str] = field(default_factory=set)
    events: dict[str, list[Envelope]] = field(default_factory=dict)

    def concerns(self, envelope: Envelope) -> bool:
        """Tells whether an event is told of one of them, or may be."""
        if envelope.stream in self.events:
            return True
        return envelope.stream.startswith(PROFILE) and any(
            atom.encode() in envelope.data for atom in self.atoms
        )


async def telling_of(
    pool: Pool,
    event_types: EventTypes,
    workspace: str,
    nodes: Collection[str],
    erasure: str = "",
) -> Telling:
    """Looks for what was told; what an erasure has told anew is passed by. It takes long."""
    found = Telling()
    asked = set(nodes)
    streams = await _streams_caused(pool, workspace, erasure) if erasure else []
    accounts = {account_name(s.removeprefix(ACCOUNT)) for s in streams if s.startswith(ACCOUNT)}
    streams = [stream for stream in streams if stream.startswith(PROFILE)]
    while asked:
        found.atoms |= asked
        streams += await streams_naming(pool, workspace, PROFILE, asked)
        asked = set()
        for stream in streams:
            if stream in found.events:
                continue
            envelopes = await whole_stream(pool, workspace, stream)
            events = list(event_types.decode_all(envelopes))
            if _is_done(events, erasure, len(nodes)):
                continue
            found.events[stream] = envelopes
            accounts |= {name for event in events for name in _accounts_in(event)}
            asked |= {atom for event in events for atom in _atoms_in(event)} - found.atoms
        streams = []
    for account in sorted(accounts):
        stream = ACCOUNT + id_of(account)
        envelopes = await whole_stream(pool, workspace, stream)
        if envelopes and not _is_done(event_types.decode_all(envelopes), erasure, len(nodes)):
            found.events[stream] = envelopes
    return found


async def _streams_caused(pool: Pool, workspace: str, erasure: str) -> list[str]:
    """Returns the streams in which something was told because of an erasure."""
    asked = workspace, erasure, PROFILE, ACCOUNT
    rows = await pool.fetch(_CAUSED, *asked, timeout=SEARCH_TIMEOUT_S)
    return [row["stream"] for row in rows]


async def streams_naming(
    pool: Pool, workspace: str, category: str, nodes: Iterable[str]
) -> list[str]:
    """Returns the streams of a category in which an event names one of some nodes."""
    rows = await pool.fetch(_NAMING, workspace, category, sorted(nodes), timeout=SEARCH_TIMEOUT_S)
    return [row["stream"] for row in rows]


async def whole_stream(connection: Pool | Tx, workspace: str, stream: str) -> list[Envelope]:
    """Returns what is left of a stream."""
    found: list[Envelope] = []
    version = 0
    while batch := await read_stream(connection, workspace, stream, after_version=version):
        version = batch[-1].version
        found += [envelope for envelope in batch if not envelope.erasure]
        if len(batch) < READ_BATCH_SIZE:
            break
    return found


def _is_done(events: Iterable[Recorded], erasure: str, identifier_count: int) -> bool:
    """Tells whether an erasure has told anew what is left, with all that it is about by now."""
    return any(
        isinstance(event.event, _ERASED)
        and event.event.erasure == erasure
        and event.event.identifier_count >= identifier_count
        for event in events
    )


def _atoms_in(event: Recorded) -> Sequence[str]:
    match event.event:
        case pb.ProfileActivityRecorded() | pb.ProfileActivityRetracted() as fact:
            return (fact.atom,)
        case pb.ProfilesMerged() | pb.ProfileSplit() as fact:
            return fact.atoms
    return ()


def _accounts_in(event: Recorded) -> Iterator[str]:
    match event.event:
        case pb.ProfileActivityRecorded() | pb.ProfileActivityRetracted() as fact:
            if fact.account:
                yield fact.account
