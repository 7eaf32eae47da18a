"""The agenda: when to look at a profile again, and which segments are still to be filled.

An index of future work, no view: it is written where memberships are decided, and can be made again
by filling each segment again. Whoever writes it holds the heads of the own log, so its readers see
it at rest. Only `agenda.parked` is written beside that: which of this work failed, why, and when it
is tried again; who deletes a row there has it tried at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from asyncpg import Pool

from rapport.segments.v1.service_pb2 import SEGMENT_STATE_ACTIVE, SEGMENT_STATE_ARCHIVED
from services.kernel.log.sql import Tx, columns
from services.segments.projections.facts import ProfileKey
from services.segments.rules import Rule, parsed_rule

TABLES = """
create schema if not exists agenda;
create table if not exists agenda.due (
    workspace text not null,
    segment_id text collate "C" not null,
    profile_id text collate "C" not null,
    due_time timestamptz not null,
    primary key (workspace, profile_id, segment_id)
);
create index if not exists due_by_time on agenda.due (due_time);
create table if not exists agenda.fills (
    workspace text not null,
    segment_id text collate "C" not null,
    after_profile_id text collate "C" not null,
    is_done boolean not null,
    primary key (workspace, segment_id)
);
create table if not exists agenda.parked (
    work text not null,
    workspace text not null,
    profile_id text collate "C" not null,
    segment_id text collate "C" not null,
    reason text not null,
    attempts int not null,
    park_time timestamptz not null,
    retry_time timestamptz not null,
    primary key (work, workspace, profile_id, segment_id)
);
create table if not exists agenda.moment (
    one boolean primary key default true check (one),
    moment timestamptz not null
);
"""


class Work(StrEnum):
    """What there is to be done, as it is called where it is parked."""

    LOOK_AGAIN = "look_again"
    EMPTY = "empty"
    FILL = "fill"


ITSELF = ""
"""In place of a profile: the work concerns the segment itself."""

# Replicas' clocks differ a little; a moment that is far ahead came from a wrong one.
_MOMENT = """
insert into agenda.moment as m (moment) values ($1)
on conflict (one) do update set moment = case
    when m.moment > $1 + interval '1 minute' then $1 else greatest(m.moment, $1) end
returning moment
"""

_ACTIVE = f"""
select workspace, segment_id, rule from segments.segments
where state = {SEGMENT_STATE_ACTIVE} and workspace = any($1::text[])
"""

_DEFINITIONS = f"""
select workspace, segment_id, rule from segments.segments
join unnest($1::text[], $2::text[]) asked (workspace, segment_id) using (workspace, segment_id)
where state = {SEGMENT_STATE_ACTIVE}
"""

_MEMBERS = """
select workspace, profile_id, segment_id, enter_time from segments.members
join unnest($1::text[], $2::text[]) asked (workspace, profile_id) using (workspace, profile_id)
"""

_DUES = """
select workspace, profile_id, segment_id, due_time from agenda.due
join unnest($1::text[], $2::text[]) asked (workspace, profile_id) using (workspace, profile_id)
"""

_SET_DUES = """
insert into agenda.due (workspace, profile_id, segment_id, due_time)
select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
on conflict (workspace, profile_id, segment_id) do update set due_time = excluded.due_time
"""

_DROP_DUES = """
delete from agenda.due d
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, profile_id, segment_id)
where (d.workspace, d.profile_id, d.segment_id)
    = (gone.workspace, gone.profile_id, gone.segment_id)
"""

_TAKE_DUES = f"""
select workspace, profile_id, segment_id from agenda.due
where due_time <= $1 and not exists (
    select from agenda.parked p
    where (p.workspace, p.profile_id, p.segment_id)
        = (due.workspace, due.profile_id, due.segment_id)
      and p.work = '{Work.LOOK_AGAIN}' and p.retry_time > $1)
order by due_time limit $2
"""

_NEXT_DUE = f"""
select due_time from agenda.due
where not exists (
    select from agenda.parked p
    where (p.workspace, p.profile_id, p.segment_id)
        = (due.workspace, due.profile_id, due.segment_id)
      and p.work = '{Work.LOOK_AGAIN}' and p.retry_time > $1)
order by due_time limit 1
"""

# The segment behind the one that had its turn last, and from the first again.
_UNFILLED = f"""
select workspace, segment_id
from segments.segments s left join agenda.fills using (workspace, segment_id)
where state = {SEGMENT_STATE_ACTIVE} and is_done is distinct from true and not exists (
    select from agenda.parked p
    where (p.workspace, p.segment_id) = (s.workspace, s.segment_id)
      and p.work = '{Work.FILL}' and p.retry_time > $1)
order by (workspace, segment_id) <= ($2, $3), workspace, segment_id limit 1
"""

_PARK = """
insert into agenda.parked as p
    (work, workspace, profile_id, segment_id, reason, attempts, park_time, retry_time)
values ($1, $2, $3, $4, $5, 1, $6, $6::timestamptz + interval '1 minute')
on conflict (work, workspace, profile_id, segment_id) do update
set attempts = p.attempts + 1, reason = excluded.reason,
    retry_time = $6::timestamptz
        + least(interval '1 minute' * 2 ^ least(p.attempts, 6), interval '1 hour')
"""

_UNPARK = """
delete from agenda.parked p
using unnest($2::text[], $3::text[], $4::text[]) done (workspace, profile_id, segment_id)
where p.work = $1
  and (p.workspace, p.profile_id, p.segment_id)
    = (done.workspace, done.profile_id, done.segment_id)
"""

_FORGET_PARKED = """
delete from agenda.parked where workspace = $1 and profile_id = any($2::text[])
"""

_FILLED_UNTIL = """
select after_profile_id from agenda.fills where workspace = $1 and segment_id = $2
"""

_SET_FILL = """
insert into agenda.fills (workspace, segment_id, after_profile_id, is_done)
values ($1, $2, $3, $4)
on conflict (workspace, segment_id)
do update set after_profile_id = excluded.after_profile_id, is_done = excluded.is_done
"""

_IS_FILLED = "select is_done from agenda.fills where workspace = $1 and segment_id = $2"

_NEXT_LEFT_BEHIND = f"""
select workspace, segment_id from segments.segments s
where state = {SEGMENT_STATE_ARCHIVED} and exists (
    select from segments.members m where (m.workspace, m.segment_id) = (s.workspace, s.segment_id)
) and not exists (
    select from agenda.parked p
    where (p.workspace, p.segment_id) = (s.workspace, s.segment_id)
      and p.work = '{Work.EMPTY}' and p.retry_time > $1)
limit 1
"""

_LEFT_BEHIND = f"""
select s.workspace, s.segment_id, s.rule, m.profile_id, m.enter_time, s.update_time
from segments.segments s join segments.members m using (workspace, segment_id)
where s.state = {SEGMENT_STATE_ARCHIVED} and workspace = $1 and segment_id = $2 limit $3
"""

MemberKey = tuple[str, str, str]
"""Workspace, profile id and segment id."""


@dataclass(frozen=True, slots=True)
class Definition:
    """An active segment as it is evaluated."""

    workspace: str
    segment_id: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A member of an archived segment."""

    definition: Definition
    profile: ProfileKey
    enter_time: datetime
    archive_time: datetime


async def advance_moment(tx: Tx, now: datetime) -> datetime:
    """Returns now as all replicas agree on it.

    It never goes back, so a member that one sent off by time is not fetched back by another.
    """
    moment: datetime = await tx.fetchval(_MOMENT, now)
    return moment


async def active_definitions(tx: Tx, workspaces: Sequence[str]) -> list[Definition]:
    """Returns the segments that are evaluated."""
    return [
        Definition(row["workspace"], row["segment_id"], parsed_rule(row["rule"]))
        for row in await tx.fetch(_ACTIVE, list(workspaces))
    ]


async def definitions_of(tx: Tx, segments: Sequence[tuple[str, str]]) -> list[Definition]:
    """Returns those of the segments, by workspace and id, that are evaluated."""
    return [
        Definition(row["workspace"], row["segment_id"], parsed_rule(row["rule"]))
        for row in await tx.fetch(_DEFINITIONS, *columns(segments))
    ]


async def memberships(tx: Tx, profiles: Sequence[ProfileKey]) -> dict[MemberKey, datetime]:
    """Returns since when profiles are members of which segments."""
    rows = await tx.fetch(_MEMBERS, *columns(profiles))
    return {(row[0], row[1], row[2]): row["enter_time"] for row in rows}


async def dues(tx: Tx, profiles: Sequence[ProfileKey]) -> dict[MemberKey, datetime]:
    """Returns when profiles are to be looked at again."""
    rows = await tx.fetch(_DUES, *columns(profiles))
    return {(row[0], row[1], row[2]): row["due_time"] for row in rows}


async def save_dues(tx: Tx, changed: dict[MemberKey, datetime | None]) -> None:
    """Writes when to look again; None says never. Who was looked at is parked no longer."""
    kept = [(*key, due_time) for key, due_time in changed.items() if due_time is not None]
    dropped = [key for key, due_time in changed.items() if due_time is None]
    if kept:
        await tx.execute(_SET_DUES, *columns(kept))
    if dropped:
        await tx.execute(_DROP_DUES, *columns(dropped))
    await unpark(tx, Work.LOOK_AGAIN, list(changed))


async def take_dues(tx: Tx, now: datetime, limit: int) -> list[MemberKey]:
    """Returns whose time has come, the longest waiting first."""
    return [tuple(row) for row in await tx.fetch(_TAKE_DUES, now, limit)]


async def next_due(connection: Tx | Pool, now: datetime) -> datetime | None:
    """Returns when the next time comes."""
    due_time: datetime | None = await connection.fetchval(_NEXT_DUE, now)
    return due_time


async def park(pool: Pool, work: Work, key: MemberKey, reason: str, now: datetime) -> None:
    """Sets aside what failed, for a minute at first and never for more than an hour."""
    await pool.execute(_PARK, work, *key, reason, now)


async def unpark(tx: Tx, work: Work, keys: Sequence[MemberKey]) -> None:
    """Forgets that work was parked, because it has been done."""
    if keys:
        await tx.execute(_UNPARK, work, *columns(keys))


async def forget_parked(pool: Pool, workspace: str, profiles: Sequence[str]) -> None:
    """Forgets that work about profiles was parked, and why; it is tried at once."""
    await pool.execute(_FORGET_PARKED, workspace, list(profiles))


async def next_fill(
    connection: Tx | Pool, now: datetime, *, after: tuple[str, str] = ("", "")
) -> tuple[str, str] | None:
    """Returns a segment that is to be filled, by workspace and id: the next in turn."""
    row = await connection.fetchrow(_UNFILLED, now, *after)
    return None if row is None else (row["workspace"], row["segment_id"])


async def filled_until(tx: Tx, definition: Definition) -> str:
    """Returns how far a segment is filled: the last profile, or an empty text."""
    key = definition.workspace, definition.segment_id
    return await tx.fetchval(_FILLED_UNTIL, *key) or ""


async def save_fill(tx: Tx, definition: Definition, after_profile_id: str) -> None:
    """Remembers how far a segment is filled; an empty text says to the end."""
    key = definition.workspace, definition.segment_id
    await tx.execute(_SET_FILL, *key, after_profile_id, after_profile_id == "")


async def is_filled(pool: Pool, workspace: str, segment_id: str) -> bool:
    """Tells whether every profile there was when the segment was created has been evaluated."""
    return bool(await pool.fetchval(_IS_FILLED, workspace, segment_id))


async def next_left_behind(connection: Tx | Pool, now: datetime) -> tuple[str, str] | None:
    """Returns an archived segment that has members, by workspace and id."""
    row = await connection.fetchrow(_NEXT_LEFT_BEHIND, now)
    return None if row is None else (row["workspace"], row["segment_id"])


async def left_behind(tx: Tx, workspace: str, segment_id: str, limit: int) -> list[LeftBehind]:
    """Returns members of an archived segment."""
    return [
        LeftBehind(
            Definition(row["workspace"], row["segment_id"], parsed_rule(row["rule"])),
            (row["workspace"], row["profile_id"]),
            row["enter_time"],
            row["update_time"],
        )
        for row in await tx.fetch(_LEFT_BEHIND, workspace, segment_id, limit)
    ]
