"""What those who watch are told: profiles as they are now, and what came to a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asyncpg import Pool

from rapport.identity.v1.events_pb2 import ProfileActivityRecorded
from rapport.identity.v1.service_pb2 import ProfileChange, ProfileChangeKind, TimelineEntry
from services.identity.changes import id_of, name_of
from services.identity.projections.profile_answers import filled
from services.identity.projections.profiles import LISTING
from services.identity.projections.timeline import SHOWN, entry
from services.kernel.lists.filter import Arguments, Filter
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import utc
from services.kernel.log.sql import Tx

_MATCHING = f"""
select {LISTING.columns}, ({{wanted}}) is true as matches from {LISTING.table.name}
where workspace = $1 and profile = any($2::text[])
"""

_SURVIVORS = """
select node, profile from profiles.nodes
where workspace = $1 and node = any($2::text[]) and profile is not null
"""

_CAME = f"""
select {SHOWN}
from unnest($3::text[], $4::timestamptz[], $5::uuid[])
    with ordinality came (node, occur_time, activity_id, place)
join profiles.timeline using (node, occur_time, activity_id)
where workspace = $1 and {{wanted}} and exists (
    select from profiles.nodes n
    where n.workspace = $1 and n.node = came.node and n.profile = $2
)
order by place
"""


async def changes_now(
    pool: Pool, workspace: str, names: Sequence[str], wanted: Filter
) -> list[ProfileChange]:
    """Returns what became of profiles that changed, as of one moment, in the order of their ids."""
    profiles = [id_of(name) for name in names]
    arguments = Arguments((workspace, profiles))
    statement = _MATCHING.format(wanted=wanted.sql(arguments))
    async with one_moment(pool) as connection:
        rows = await connection.fetch(statement, *arguments.values)
        matching = [row for row in rows if row["matches"]]
        shown = await filled(connection, workspace, matching)
        gone = set(profiles) - {row["profile"] for row in rows}
        changes = await _gone(connection, workspace, gone)
    changes += [
        ProfileChange(
            name=name_of(row["profile"]), kind=ProfileChangeKind.PROFILE_CHANGE_KIND_UNMATCHED
        )
        for row in rows
        if not row["matches"]
    ]
    changes += [
        ProfileChange(
            name=profile.name, kind=ProfileChangeKind.PROFILE_CHANGE_KIND_CHANGED, profile=profile
        )
        for profile in shown
    ]
    return sorted(changes, key=lambda change: change.name)


async def _gone(connection: Tx, workspace: str, profiles: Iterable[str]) -> list[ProfileChange]:
    """Returns where the names of profiles that are no more lead to."""
    asked = sorted(profiles)
    if not asked:
        return []
    rows = await connection.fetch(_SURVIVORS, workspace, asked)
    survivors = {row["node"]: row["profile"] for row in rows}
    return [
        ProfileChange(
            name=name_of(profile),
            kind=ProfileChangeKind.PROFILE_CHANGE_KIND_ABSORBED,
            absorbed_by=name_of(survivors[profile]),
        )
        if profile in survivors
        else ProfileChange(
            name=name_of(profile), kind=ProfileChangeKind.PROFILE_CHANGE_KIND_REMOVED
        )
        for profile in asked
    ]


async def entries_that_came(
    pool: Pool,
    workspace: str,
    name: str,
    recorded: Sequence[ProfileActivityRecorded],
    wanted: Filter,
) -> list[TimelineEntry]:
    """Returns those of the activities that are a profile's now, and still there."""
    if not (recorded and name):
        return []
    columns = (
        [fact.atom for fact in recorded],
        [utc(fact.occur_time) for fact in recorded],
        [fact.activity_id for fact in recorded],
    )
    arguments = Arguments((workspace, id_of(name), *columns))
    statement = _CAME.format(wanted=wanted.sql(arguments))
    return [entry(row) for row in await pool.fetch(statement, *arguments.values)]
