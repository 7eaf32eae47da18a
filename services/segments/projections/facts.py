"""The view `profile_facts`: what rules look at, folded from identity's log.

Traits belong to a profile, activities to an atom for ever; which profile an atom is part of is one
row, so a merge or a split moves atoms and never activities. A trait that was taken back stays as a
row without value: when that was said tells since when a rule does not hold. All activities are
kept, since any future segment may ask for the last ten years, but for those that are retracted.

The order between a profile's facts matters, so identity's log is read as one partition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rapport.identity.v1.events_pb2 import (
    ProfileActivityRecorded,
    ProfileActivityRetracted,
    ProfileCreated,
    ProfileRemoved,
    ProfilesMerged,
    ProfileSplit,
    ProfileTraitsChanged,
)
from services.kernel.log.recorded import Recorded, utc
from services.kernel.log.sql import Tx, columns
from services.segments.projections.segments import id_of
from services.segments.rules import Facts, Trait

_TABLES = """
create table {schema}.profiles (
    workspace text not null,
    profile_id text collate "C" not null,
    primary key (workspace, profile_id)
);
create table {schema}.traits (
    workspace text not null,
    profile_id text collate "C" not null,
    trait text collate "C" not null,
    value text,
    occur_time timestamptz not null,
    primary key (workspace, profile_id, trait)
);
create table {schema}.atoms (
    workspace text not null,
    atom text collate "C" not null,
    profile_id text collate "C" not null,
    primary key (workspace, atom)
);
create index atoms_by_profile on {schema}.atoms (workspace, profile_id, atom);
create table {schema}.activities (
    workspace text not null,
    atom text collate "C" not null,
    activity text collate "C" not null,
    occur_time timestamptz not null,
    activity_id text collate "C" not null,
    primary key (workspace, atom, activity, occur_time, activity_id)
);
"""

_ADD_PROFILES = """
insert into {schema}.profiles (workspace, profile_id)
select * from unnest($1::text[], $2::text[]) on conflict do nothing
"""

_DROP_PROFILES = """
delete from {schema}.profiles p using unnest($1::text[], $2::text[]) gone (workspace, profile_id)
where (p.workspace, p.profile_id) = (gone.workspace, gone.profile_id)
"""

_DROP_TRAITS = """
delete from {schema}.traits t using unnest($1::text[], $2::text[]) gone (workspace, profile_id)
where (t.workspace, t.profile_id) = (gone.workspace, gone.profile_id)
"""

_SAVE_TRAITS = """
insert into {schema}.traits (workspace, profile_id, trait, value, occur_time)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
on conflict (workspace, profile_id, trait)
do update set value = excluded.value, occur_time = excluded.occur_time
"""

_SAVE_ATOMS = """
insert into {schema}.atoms (workspace, atom, profile_id)
select * from unnest($1::text[], $2::text[], $3::text[])
on conflict (workspace, atom) do update set profile_id = excluded.profile_id
where atoms.profile_id <> excluded.profile_id
"""

_ADD_ACTIVITIES = """
insert into {schema}.activities (workspace, atom, activity, occur_time, activity_id)
select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
on conflict do nothing
"""

_DROP_ACTIVITIES = """
delete from {schema}.activities f
using unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
    gone (workspace, atom, activity, occur_time, activity_id)
where (f.workspace, f.atom, f.activity, f.occur_time, f.activity_id)
    = (gone.workspace, gone.atom, gone.activity, gone.occur_time, gone.activity_id)
"""

_DROP_EMPTY_ATOMS = """
delete from {schema}.atoms a using unnest($1::text[], $2::text[]) lost (workspace, atom)
where (a.workspace, a.atom) = (lost.workspace, lost.atom) and not exists (
    select from {schema}.activities f where (f.workspace, f.atom) = (a.workspace, a.atom)
)
"""

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

ProfileKey = tuple[str, str]
"""Workspace and profile id."""

Activity = tuple[str, str, str, datetime, str]
"""Workspace, atom, name, time and id."""


@dataclass(slots=True)
class Touch:
    """What changed about a profile: some traits and activities, or which atoms it has at all."""

    cause: Recorded
    traits: set[str] = field(default_factory=set)
    activities: set[str] = field(default_factory=set)
    is_regrouped: bool = False


@dataclass(slots=True)
class _Changes:
    """A batch of events folded in memory: what is to be written, and what they touched."""

    profiles: dict[ProfileKey, bool] = field(default_factory=dict)
    emptied: set[ProfileKey] = field(default_factory=set)
    traits: dict[ProfileKey, dict[str, tuple[str | None, datetime]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    atoms: dict[tuple[str, str], str] = field(default_factory=dict)
    activities: set[Activity] = field(default_factory=set)
    retracted: set[Activity] = field(default_factory=set)
    touched: dict[ProfileKey, Touch] = field(default_factory=dict)

    def add(self, event: Recorded) -> None:
        """Fold the next event."""
        match event.event:
            case ProfileCreated() as fact:
                self.profiles[event.workspace, id_of(fact.profile)] = True
            case ProfileActivityRecorded() as fact:
                profile = self._exists(event, fact.profile)
                self.atoms[event.workspace, fact.atom] = profile[1]
                self.activities.add(_activity(event, fact))
                self._touch(profile, event).activities.add(fact.activity)
            case ProfileActivityRetracted() as fact:
                # An id is never told again, so it is gone whatever else the batch says.
                self.retracted.add(_activity(event, fact))
                profile = event.workspace, id_of(fact.profile)
                self._touch(profile, event).activities.add(fact.activity)
            case ProfileRemoved() as fact:
                self._end(event, fact.profile)
            case ProfileTraitsChanged() as fact:
                profile = self._exists(event, fact.profile)
                touch = self._touch(profile, event)
                for change in fact.changes:
                    # A trait that nobody says any longer carries no time of its own.
                    is_timed = change.HasField("occur_time")
                    said_time = utc(change.occur_time) if is_timed else event.occur_time
                    self.traits[profile][change.trait] = change.value or None, said_time
                    touch.traits.add(change.trait)
            case ProfilesMerged() as fact:
                survivor = self._exists(event, fact.survivor)
                self._move(event, fact.atoms, survivor[1])
                self._touch(survivor, event).is_regrouped = True
                self._end(event, fact.absorbed)
            case ProfileSplit() as fact:
                split_off = self._exists(event, fact.split_off)
                self._move(event, fact.atoms, split_off[1])
                self._touch(split_off, event).is_regrouped = True
                self._touch(self._exists(event, fact.profile), event).is_regrouped = True

    def _exists(self, event: Recorded, name: str) -> ProfileKey:
        profile = event.workspace, id_of(name)
        self.profiles[profile] = True
        return profile

    def _end(self, event: Recorded, name: str) -> None:
        profile = event.workspace, id_of(name)
        self._touch(profile, event).is_regrouped = True
        self.profiles[profile] = False
        self.traits.pop(profile, None)
        self.emptied.add(profile)

    def _move(self, event: Recorded, atoms: Iterable[str], profile_id: str) -> None:
        self.atoms.update({(event.workspace, atom): profile_id for atom in atoms})

    def _touch(self, profile: ProfileKey, event: Recorded) -> Touch:
        touch = self.touched.setdefault(profile, Touch(event))
        touch.cause = event
        return touch


def _activity(
    event: Recorded, fact: ProfileActivityRecorded | ProfileActivityRetracted
) -> Activity:
    return event.workspace, fact.atom, fact.activity, utc(fact.occur_time), fact.activity_id


class ProfileFactsView:
    """Keeps the facts; applying answers what was touched, for the policy behind it."""

    name = "profile_facts"
    shape = 2

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(
        self, tx: Tx, schema: str, events: Sequence[Recorded]
    ) -> Mapping[ProfileKey, Touch]:
        """Folds events: one statement per kind of change, however many they are."""
        changes = _Changes()
        for event in events:
            changes.add(event)
        traits = [
            (*profile, trait, *said)
            for profile, of_profile in changes.traits.items()
            for trait, said in of_profile.items()
        ]
        present = [profile for profile, exists in changes.profiles.items() if exists]
        absent = [profile for profile, exists in changes.profiles.items() if not exists]
        writes: Sequence[tuple[str, Sequence[tuple[object, ...]]]] = (
            (_DROP_PROFILES, absent),
            (_ADD_PROFILES, present),
            (_DROP_TRAITS, sorted(changes.emptied)),
            (_SAVE_TRAITS, traits),
            (_SAVE_ATOMS, [(*atom, profile) for atom, profile in changes.atoms.items()]),
            (_ADD_ACTIVITIES, sorted(changes.activities - changes.retracted)),
            (_DROP_ACTIVITIES, sorted(changes.retracted)),
            (_DROP_EMPTY_ATOMS, sorted({activity[:2] for activity in changes.retracted})),
        )
        for statement, rows in writes:
            if rows:
                await tx.execute(statement.format(schema=schema), *columns(rows))
        return changes.touched


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
