"""What segments hold about people, and how it goes.

Segments know profiles by name alone, and each name is a node. What was folded of a profile goes as
identity tells that it is erased; so an erasure begins here when that was heard. What is left is in
the own log: who entered and exited. A profile that goes on enters anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from asyncpg import Pool

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.common.v1.subjects_pb2 import SubjectRecord
from rapport.segments.v1.events_pb2 import ProfileEnteredSegment, ProfileExitedSegment
from services.kernel.erasing.exports import SEARCH_TIMEOUT_S
from services.kernel.erasing.holdings import Gone
from services.kernel.erasing.subjects import Erasure, Subject
from services.kernel.erasing.tombstones import schemas_of
from services.kernel.errors import Unavailable
from services.kernel.log.database import transaction
from services.kernel.log.log import envelope_of, read_heads, read_partition
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx
from services.kernel.process.runtime import Kernel
from services.segments.decider import MEMBERSHIP
from services.segments.policies import Cause, Question, judge
from services.segments.projections import agenda
from services.segments.projections.facts import ProfileFactsView, is_told_anew
from services.segments.projections.person_records import PROFILE, SegmentRecords
from services.segments.projections.segments import SegmentsView, forget_members, id_of

LOG, MEMBERS = "log", "members"

_NAMING = """
select * from kernel.events
where workspace = $1 and erasure is null and starts_with(stream, $2) and exists (
    select from unnest($3::text[]) said where position(convert_to(said, 'UTF8') in data) > 0
)
order by partition, position
"""


class SegmentHoldings:
    """Who entered and exited segments, by the names of profiles."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._heads: dict[tuple[str, str], dict[int, int]] = {}

    async def find(self, pool: Pool, erasure: Erasure, _limit: int) -> Sequence[Envelope]:
        """All at once, whatever the limit: who goes on enters anew by the same step."""
        profiles = {*erasure.nodes, *erasure.subject.forms_of(PROFILE)}
        if not profiles:
            return []
        await _have_heard(pool, erasure)
        heads = await read_heads(pool)
        found = await self._naming(pool, erasure.workspace, profiles)
        early = {
            profile_of(event)
            for _, event in found
            if erasure.covers(event.record_time, event.event_id)
        }
        self._heads[erasure.workspace, erasure.name] = heads
        return [envelope for envelope, event in found if profile_of(event) in early]

    async def forget(self, tx: Tx, erasure: Erasure, events: Sequence[Recorded]) -> Gone:
        workspace = erasure.workspace
        profiles = {profile_of(event) for event in events}
        heads = self._heads.pop((workspace, erasure.name), None)
        if heads is None or await _have_moved_on(tx, heads, profiles):
            raise Unavailable("segments", message="the profiles changed meanwhile; ask again")
        for schema in await schemas_of(tx, SegmentsView()):
            await forget_members(tx, schema, workspace, profiles)
        now = await agenda.advance_moment(tx, self._kernel.clock.now())
        definitions = await agenda.active_definitions(tx, [workspace])
        question = Question(Cause(now, erasure.name), definitions)
        asked = {(workspace, profile): question for profile in sorted(profiles)}
        return Gone(
            counts=Counter({MEMBERS: len(events)}), appends=list(await judge(tx, now, asked))
        )

    async def forget_rest(self, pool: Pool, erasure: Erasure) -> None:
        """Work that failed is tried anew: why it did is said beside it."""
        await agenda.forget_parked(pool, erasure.workspace, erasure.nodes)

    async def preview(self, pool: Pool, subject: Subject) -> Gone:
        found = await self._naming(pool, subject.workspace, subject.forms_of(PROFILE))
        return Gone(counts=Counter({LOG: len(found)}) if found else Counter())

    async def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[SubjectRecord]]:
        async for records in SegmentRecords(self._kernel).export(pool, subject):
            yield records

    async def _naming(
        self, pool: Pool, workspace: str, profiles: Iterable[str]
    ) -> list[tuple[Envelope, Recorded]]:
        """The transitions of profiles, with what they say."""
        names = sorted(profiles)
        if not names:
            return []
        rows = await pool.fetch(
            _NAMING, workspace, f"{MEMBERSHIP}-", names, timeout=SEARCH_TIMEOUT_S
        )
        envelopes = [envelope_of(row) for row in rows]
        events = self._kernel.event_types.decode_all(envelopes)
        return list(zip(envelopes, events, strict=True))


def profile_of(event: Recorded) -> str:
    """The id of the profile that a transition is of."""
    assert isinstance(event.event, ProfileEnteredSegment | ProfileExitedSegment)
    return id_of(event.event.profile)


async def _have_heard(pool: Pool, erasure: Erasure) -> None:
    """Raises Unavailable until identity has told that the profiles are erased."""
    async with transaction(pool) as tx:
        for schema in await schemas_of(tx, ProfileFactsView()):
            args = erasure.workspace, erasure.name, len(erasure.nodes)
            if not await is_told_anew(tx, schema, *args):
                raise Unavailable("segments", message="identity has not erased the profiles yet")


async def _have_moved_on(tx: Tx, heads: dict[int, int], profiles: Collection[str]) -> bool:
    """Tells whether one of the profiles entered or exited since."""
    for partition, position in heads.items():
        after = position
        while batch := await read_partition(tx, partition, after=after):
            if any(name.encode() in envelope.data for envelope in batch for name in profiles):
                return True
            after = batch[-1].position
    return False
