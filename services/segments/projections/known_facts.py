"""What rules look at, as the view `profile_facts` has it: facts of profiles, and who has any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.kernel.log.sql import Tx, columns
from services.segments.projections.facts import ProfileKey
from services.segments.rules import Facts, Trait

_TRAITS = """
select workspace, profile_id, trait, value, occur_time
from profile_facts.traits
join unnest($1::text[], $2::text[]) asked (workspace, profile_id) using (workspace, profile_id)
where trait = any($3::text[])
"""

# The newest of each atom hold the newest of the profile; what lies in the future comes with them.
_TIMES = """
select asked.workspace, asked.profile_id, asked.activity, found.occur_time
from unnest($1::text[], $2::text[], $3::text[], $4::int[])
    asked (workspace, profile_id, activity, count_max)
join profile_facts.atoms using (workspace, profile_id)
cross join lateral (
    (
        select occur_time from profile_facts.activities f
        where (f.workspace, f.atom, f.activity) = (asked.workspace, atoms.atom, asked.activity)
          and f.occur_time <= $5
        order by f.occur_time desc limit asked.count_max
    )
    union all
    select occur_time from profile_facts.activities f
    where (f.workspace, f.atom, f.activity) = (asked.workspace, atoms.atom, asked.activity)
      and f.occur_time > $5
) found
"""

# A bounded page of profiles, and which of them have every trait and activity a rule looks at.
_CANDIDATES = """
select page.profile_id,
    (
        select count(*) from profile_facts.traits t
        where t.workspace = $1 and t.profile_id = page.profile_id and t.trait = any($4::text[])
    ) = cardinality($4::text[])
    and not exists (
        select from unnest($5::text[]) asked (activity)
        where not exists (
            select
            from profile_facts.atoms a join profile_facts.activities f using (workspace, atom)
            where a.workspace = $1 and a.profile_id = page.profile_id
              and f.activity = asked.activity
        )
    ) as is_candidate
from (
    select profile_id from profile_facts.profiles
    where workspace = $1 and profile_id > $2 order by profile_id limit $3
) page
order by page.profile_id
"""


@dataclass(slots=True)
class Wanted:
    """What to load of a profile: traits, and how many of an activity's newest (None: all)."""

    traits: set[str] = field(default_factory=set)
    activities: dict[str, int | None] = field(default_factory=dict)


async def load_facts(
    tx: Tx, wanted: Mapping[ProfileKey, Wanted], now: datetime
) -> dict[ProfileKey, Facts]:
    """Returns the facts of several profiles; one without any has empty ones."""
    traits: dict[ProfileKey, dict[str, Trait]] = {profile: {} for profile in wanted}
    times: dict[ProfileKey, dict[str, list[datetime]]] = {profile: {} for profile in wanted}
    names = sorted({trait for asked in wanted.values() for trait in asked.traits})
    profiles = [profile for profile, asked in wanted.items() if asked.traits]
    if profiles:
        for row in await tx.fetch(_TRAITS, *columns(profiles), names):
            found = Trait(row["value"], row["occur_time"])
            traits[row["workspace"], row["profile_id"]][row["trait"]] = found
    counted = [
        (*profile, activity, count)
        for profile, asked in wanted.items()
        for activity, count in asked.activities.items()
    ]
    if counted:
        for workspace, profile_id, activity, time in await tx.fetch(_TIMES, *columns(counted), now):
            times[workspace, profile_id].setdefault(activity, []).append(time)
    for of_profile in times.values():
        for found_times in of_profile.values():
            found_times.sort()
    return {profile: Facts(traits[profile], times[profile]) for profile in wanted}


async def next_candidates(
    tx: Tx, workspace: str, after: str, limit: int, traits: Sequence[str], activities: Sequence[str]
) -> tuple[list[str], str]:
    """Returns who, of the next profiles, has facts of every name, and where the next page begins.

    An empty text says that there is none.
    """
    rows = await tx.fetch(_CANDIDATES, workspace, after, limit, list(traits), list(activities))
    candidates = [row["profile_id"] for row in rows if row["is_candidate"]]
    return candidates, rows[-1]["profile_id"] if len(rows) == limit else ""
