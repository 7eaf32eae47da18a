"""What each profile consented to or refused, as it was told last; and what is told of it.

It is brought up to date wherever words came or went, or the identifiers they were said under. So
merges and splits tell it in the same transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rapport.identity.v1.consents_pb2 import ConsentStatus
from rapport.identity.v1.events_pb2 import (
    ProfileConsentChanged,
    ProfileIdentifiersChanged,
    ProfileRemoved,
    ProfilesMerged,
)
from services.identity.changes import Change, id_of, name_of
from services.identity.consents import FOR_EVER, NOTHING_SAID, Standing, standings
from services.identity.erasures import Place
from services.identity.projections.consents import WORD_COLUMNS, words_by_profile
from services.identity.projections.purposes import load_purposes
from services.kernel.log.log import Origin
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.log.sql import Tx, columns
from services.kernel.views.bulk import BULK_STATEMENT_TIMEOUT_S

TABLES = """
create table {schema}.consent_statuses (
    workspace text not null,
    profile text collate "C" not null,
    purpose_id text collate "C" not null,
    status smallint not null,
    occur_time timestamptz not null,
    expire_time timestamptz,
    primary key (workspace, profile, purpose_id)
) with (fillfactor = 80);
"""

_SPOKEN_OF = """
select workspace from unnest($1::text[]) asked (workspace)
where exists (select from {schema}.consents c where c.workspace = asked.workspace)
"""

_PROFILES = """
select n.workspace, n.node, n.profile
from unnest($1::text[], $2::text[]) asked (workspace, node)
join {schema}.nodes n using (workspace, node)
where n.profile is not null
"""

_KNOWN = """
select profile, purpose_id, status, occur_time, expire_time from {schema}.consent_statuses
where workspace = $1 and profile = any($2::text[])
"""

_WORDS = f"""
select n.profile, c.node, {WORD_COLUMNS}
from {{schema}}.nodes n
join {{schema}}.consents c using (workspace, node)
join {{schema}}.consent_words w
    on w.workspace = c.workspace and w.atom = c.atom and w.occur_time = c.occur_time
    and w.key = c.key
where n.workspace = $1 and n.profile = any($2::text[])
"""

_MEMBERS = """
select profile, node from {schema}.nodes where workspace = $1 and profile = any($2::text[])
"""

_SAVE = """
insert into {schema}.consent_statuses
    (workspace, profile, purpose_id, status, occur_time, expire_time)
select * from unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::timestamptz[],
                     $6::timestamptz[])
on conflict (workspace, profile, purpose_id) do update set
    status = excluded.status, occur_time = excluded.occur_time, expire_time = excluded.expire_time
"""

_DROP = """
delete from {schema}.consent_statuses s
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, profile, purpose_id)
where s.workspace = gone.workspace and s.profile = gone.profile and s.purpose_id = gone.purpose_id
"""

_SPEAKING = """
select distinct n.workspace, n.profile
from {schema}.consents c join {schema}.nodes n using (workspace, node)
where n.profile is not null
order by n.workspace, n.profile
"""

PROFILES_PER_FETCH = 500

_MOVES = frozenset({ProfileIdentifiersChanged, ProfileRemoved, ProfilesMerged})

ConsentPlace = tuple[str, str]  # profile, purpose id


@dataclass(frozen=True, slots=True)
class Told:
    """A profile's consent as it was told last."""

    status: int = NOTHING_SAID.status
    occur_time: datetime | None = None
    expire_time: datetime | None = None

    @classmethod
    def of(cls, stands: Standing) -> Told:
        """What there is to tell of a consent."""
        occur_time = None if stands.word is None else stands.word.occur_time
        expire_time = None if stands.expire_time == FOR_EVER else stands.expire_time
        return cls(stands.status, occur_time, expire_time)

    @property
    def news(self) -> tuple[int, datetime | None]:
        """What is worth telling when it is another."""
        return self.status, self.expire_time


async def tell_consents(
    tx: Tx, schema: str, told: Sequence[Change], said: Mapping[Place, Recorded]
) -> list[Change]:
    """Tells whose consent is another: by what was told of profiles, and said under nodes.

    `said` is what was said from now on, or no longer.
    """
    moved = {
        (change.cause.workspace, profile): change.cause
        for change in told
        if type(change.event) in _MOVES
        for profile in _profiles_in(change)
    }
    workspaces = {workspace for workspace, _ in (*moved, *said)}
    if not said and workspaces:
        spoken = await tx.fetch(_SPOKEN_OF.format(schema=schema), sorted(workspaces))
        workspaces = {row["workspace"] for row in spoken}
    causes = {place: cause for place, cause in moved.items() if place[0] in workspaces}
    if said:
        found = await tx.fetch(_PROFILES.format(schema=schema), *columns(sorted(said)))
        causes |= {(row[0], row[2]): said[row[0], row[1]] for row in found}
    ended = {(change.cause.workspace, profile) for change in told for profile in _ended_by(change)}
    changes: list[Change] = []
    for workspace in sorted({workspace for workspace, _ in causes}):
        own = {profile: cause for (of, profile), cause in causes.items() if of == workspace}
        gone = {profile for of, profile in ended if of == workspace}
        changes += await _tell(tx, schema, workspace, own, gone)
    return changes


async def derive_statuses(
    tx: Tx, schema: str, workspace: str, profiles: Collection[str]
) -> dict[ConsentPlace, Told]:
    """Returns what profiles consented to or refused, from all that was said."""
    asked = sorted(profiles)
    words = words_by_profile(await tx.fetch(_WORDS.format(schema=schema), workspace, asked))
    if not words:
        return {}
    members: dict[str, set[str]] = {profile: set() for profile in words}
    for row in await tx.fetch(_MEMBERS.format(schema=schema), workspace, sorted(words)):
        members[row["profile"]].add(row["node"])
    purposes = await load_purposes(tx, workspace)
    return {place: Told.of(stands) for place, stands in standings(members, words, purposes).items()}


async def save_all_statuses(tx: Tx, schema: str) -> None:
    """Saves what all profiles consent to, where nothing was saved yet."""
    statement = _SPEAKING.format(schema=schema)
    found = await tx.fetch(statement, timeout=BULK_STATEMENT_TIMEOUT_S)
    speaking: dict[str, list[str]] = defaultdict(list)
    for row in found:
        speaking[row["workspace"]].append(row["profile"])
    for workspace, profiles in speaking.items():
        for start in range(0, len(profiles), PROFILES_PER_FETCH):
            some = profiles[start : start + PROFILES_PER_FETCH]
            await _save(
                tx, schema, workspace, {}, await derive_statuses(tx, schema, workspace, some)
            )


async def _tell(
    tx: Tx,
    schema: str,
    workspace: str,
    causes: Mapping[str, Recorded | Origin],
    ended: Collection[str],
) -> list[Change]:
    """Tells what is another with some profiles, and saves it.

    Of those that ended in between nothing is known any more to whoever was told so.
    """
    profiles = sorted(causes)
    rows = await tx.fetch(_KNOWN.format(schema=schema), workspace, profiles)
    before = {(row[0], row[1]): Told(*row[2:]) for row in rows}
    after = await derive_statuses(tx, schema, workspace, profiles)
    await _save(tx, schema, workspace, before, after)
    gone = {profile for profile, _ in before.keys() - after.keys()}
    alive = {profile for profile, _ in after}
    if gone - alive:
        rows = await tx.fetch(_MEMBERS.format(schema=schema), workspace, sorted(gone - alive))
        alive |= {row["profile"] for row in rows}
    changes = []
    for place in sorted(before.keys() | after.keys()):
        profile, purpose_id = place
        stands = after.get(place, Told())
        known = Told() if profile in ended else before.get(place, Told())
        if profile in alive and stands.news != known.news:
            changes.append(consent_changed(profile, purpose_id, stands, causes[profile]))
    return changes


async def _save(
    tx: Tx,
    schema: str,
    workspace: str,
    before: Mapping[ConsentPlace, Told],
    after: Mapping[ConsentPlace, Told],
) -> None:
    rows = [
        (workspace, *place, stands.status, stands.occur_time, stands.expire_time)
        for place, stands in sorted(after.items())
        if stands != before.get(place)
    ]
    if rows:
        await tx.execute(_SAVE.format(schema=schema), *columns(rows))
    gone = [(workspace, *place) for place in sorted(before.keys() - after.keys())]
    if gone:
        await tx.execute(_DROP.format(schema=schema), *columns(gone))


def _profiles_in(change: Change) -> Collection[str]:
    """Returns the profiles whose identifiers a change concerns."""
    match change.event:
        case ProfilesMerged(absorbed=absorbed):
            return change.profile, id_of(absorbed)
    return (change.profile,)


def _ended_by(change: Change) -> Collection[str]:
    """Returns the profiles that are no more because of a change."""
    match change.event:
        case ProfilesMerged(absorbed=absorbed):
            return (id_of(absorbed),)
        case ProfileRemoved():
            return (change.profile,)
    return ()


def consent_changed(
    profile: str, purpose_id: str, stands: Told, cause: Recorded | Origin
) -> Change:
    """Tells that a profile's consent to a purpose is another."""
    event = ProfileConsentChanged(
        profile=name_of(profile),
        purpose=f"purposes/{purpose_id}",
        status=ConsentStatus.ValueType(stands.status),
    )
    if stands.occur_time is not None:
        event.occur_time.CopyFrom(timestamp_of(stands.occur_time))
    if stands.expire_time is not None:
        event.expire_time.CopyFrom(timestamp_of(stands.expire_time))
    return Change(profile, event, cause)
