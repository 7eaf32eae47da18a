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
    ProfileErased,
    ProfileRemoved,
    ProfilesMerged,
    ProfileSplit,
    ProfileTraitsChanged,
    TellingErased,
)
from services.kernel.log.recorded import Recorded, parts_behind, utc
from services.kernel.log.sql import Tx, columns
from services.segments.projections.segments import id_of

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
create table {schema}.erasures (
    workspace text not null,
    erasure text collate "C" not null,
    identifier_count int not null,
    primary key (workspace, erasure)
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

_FORGET = (
    """
    delete from {schema}.activities f
    using {schema}.atoms a, unnest($1::text[], $2::text[]) gone (workspace, profile_id)
    where (a.workspace, a.profile_id) = (gone.workspace, gone.profile_id)
      and (f.workspace, f.atom) = (a.workspace, a.atom)
    """,
    """
    delete from {schema}.atoms a using unnest($1::text[], $2::text[]) gone (workspace, profile_id)
    where (a.workspace, a.profile_id) = (gone.workspace, gone.profile_id)
    """,
    _DROP_TRAITS,
    _DROP_PROFILES,
)

_ADD_TELLINGS = """
insert into {schema}.erasures as known (workspace, erasure, identifier_count)
select * from unnest($1::text[], $2::text[], $3::int[])
on conflict (workspace, erasure) do update
set identifier_count = greatest(known.identifier_count, excluded.identifier_count)
"""

_TOLD = """
select identifier_count from {schema}.erasures where workspace = $1 and erasure = $2
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
    tellings: list[tuple[str, str, int]] = field(default_factory=list)

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
            case ProfileRemoved() | ProfileErased() as fact:
                self._end(event, fact.profile)
            case TellingErased() as fact:
                self.tellings.append((event.workspace, fact.erasure, fact.identifier_count))
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
    shape = 3

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(
        self, tx: Tx, schema: str, events: Sequence[Recorded]
    ) -> Mapping[ProfileKey, Touch]:
        """Folds events: one statement per kind of change, however many they are."""
        touched: dict[ProfileKey, Touch] = {}
        for void, part in parts_behind(ProfileErased, events):
            await _forget(tx, schema, void)
            changes = _Changes(touched=touched)
            for event in (*void, *part):
                changes.add(event)
            await _write(tx, schema, changes)
        return touched


async def is_told_anew(tx: Tx, schema: str, workspace: str, erasure: str, count: int) -> bool:
    """Tells whether identity has told anew what an erasure has left, and all of it was heard."""
    told = await tx.fetchval(_TOLD.format(schema=schema), workspace, erasure)
    return told is not None and told >= count


async def _forget(tx: Tx, schema: str, void: Sequence[Recorded]) -> None:
    """Drops all that is known of profiles."""
    profiles = sorted(
        {
            (event.workspace, id_of(event.event.profile))
            for event in void
            if isinstance(event.event, ProfileErased)
        }
    )
    if profiles:
        for statement in _FORGET:
            await tx.execute(statement.format(schema=schema), *columns(profiles))


async def _write(tx: Tx, schema: str, changes: _Changes) -> None:
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
        (_ADD_TELLINGS, changes.tellings),
    )
    for statement, rows in writes:
        if rows:
            await tx.execute(statement.format(schema=schema), *columns(rows))
