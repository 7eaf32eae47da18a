"""What segments hold about a person: memberships, those of before too, and the facts behind them.

Segments know profiles by name alone, so they are asked by the type `profile`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from asyncpg import Pool

from rapport.common.v1.subjects_pb2 import SubjectRecord
from rapport.segments.v1.events_pb2 import ProfileEnteredSegment, ProfileExitedSegment
from services.kernel.erasing.exports import facts_naming, told
from services.kernel.erasing.subjects import Subject
from services.kernel.log.recorded import Recorded
from services.kernel.process.runtime import Kernel

PROFILE = "profile"
ROWS_PER_PART = 500

# What is held of profiles: the system, what a row is, and the rows.
_HELD = (
    ("members", "Membership", "segments.members where profile_id = any($2)"),
    ("facts", "Trait", "profile_facts.traits where profile_id = any($2)"),
    (
        "facts",
        "Activity",
        """(
            select a.*, m.profile_id from profile_facts.activities a
            join profile_facts.atoms m using (workspace, atom)
        ) activities where profile_id = any($2)""",
    ),
    ("agenda", "Reminder", "agenda.due where profile_id = any($2)"),
    ("agenda", "Postponement", "agenda.parked where profile_id = any($2)"),
)
_ROWS = "select to_jsonb(held) - 'workspace' as content, profile_id from (select * from {}) held \
where workspace = $1"


class SegmentRecords:
    """What is held about the profiles of people."""

    def __init__(self, kernel: Kernel) -> None:
        self._event_types = kernel.event_types

    async def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[SubjectRecord]]:
        profiles = subject.forms_of(PROFILE)
        if not profiles:
            return
        for system, kind, rows in _HELD:
            async for part in _rows(pool, subject.workspace, profiles, system, kind, rows):
                yield part
        names = [f"profiles/{profile}" for profile in profiles]
        async for facts in facts_naming(pool, self._event_types, subject.workspace, names):
            yield [told(fact, _profile_of(fact)) for fact in facts]


def _profile_of(fact: Recorded) -> str:
    """Returns whose entry or exit a fact is."""
    assert isinstance(fact.event, ProfileEnteredSegment | ProfileExitedSegment)
    return fact.event.profile


async def _rows(
    pool: Pool, workspace: str, profiles: Sequence[str], system: str, kind: str, rows: str
) -> AsyncIterator[list[SubjectRecord]]:
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        part: list[SubjectRecord] = []
        held = connection.cursor(_ROWS.format(rows), workspace, profiles, prefetch=ROWS_PER_PART)
        async for row in held:
            name = f"profiles/{row['profile_id']}"
            content = row["content"]
            part.append(SubjectRecord(system=system, resource=name, kind=kind, content=content))
            if len(part) == ROWS_PER_PART:
                yield part
                part = []
        yield part
