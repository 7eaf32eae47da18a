"""Memberships: when profiles are and were in accounts, a row per period.

They follow from the words of a profile's atoms, and are folded from those whenever atoms or words
came or went. So they go with the atoms when profiles merge and split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from services.identity.accounts import Kind, Period, Turn, membership_changes, periods
from services.identity.changes import Change
from services.identity.projections.step import Step
from services.kernel.log.sql import Tx, columns

# The key of the fact that began a period is that of the row, in hexadecimal digits.
TABLES = """
create table {schema}.memberships (
    workspace text not null,
    profile text collate "C" not null,
    account text collate "C" not null,
    start_key text collate "C" not null,
    start_time timestamptz not null,
    end_key text collate "C",
    end_time timestamptz,
    primary key (workspace, start_key)
);
create index memberships_by_account on {schema}.memberships
    (workspace, account, start_time, start_key);
create index memberships_by_profile on {schema}.memberships
    (workspace, profile, start_time, start_key);
"""

_USING_ACCOUNTS = """
select workspace from unnest($1::text[]) asked (workspace)
where exists (select from {schema}.account_words w where w.workspace = asked.workspace)
    or exists (select from {schema}.memberships m where m.workspace = asked.workspace)
"""

_TURNS = """
select workspace, profile, account, kind, occur_time, key
from unnest($1::text[], $2::text[], $3::text[]) asked (workspace, node, profile)
join {schema}.account_words using (workspace, node)
"""

_OF_PROFILES = """
select m.workspace, m.profile, m.account, m.start_key, m.start_time, m.end_key, m.end_time
from unnest($1::text[], $2::text[]) asked (workspace, profile)
join {schema}.memberships m using (workspace, profile)
"""

_SAVE = """
insert into {schema}.memberships
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[],
                     $7::timestamptz[])
on conflict (workspace, start_key) do update set
    account = excluded.account, profile = excluded.profile, start_time = excluded.start_time,
    end_key = excluded.end_key, end_time = excluded.end_time
"""

_DROP = """
delete from {schema}.memberships m
using unnest($1::text[], $2::text[]) gone (workspace, start_key)
where m.workspace = gone.workspace and m.start_key = gone.start_key
"""

_KINDS = {int(kind): kind for kind in Kind}

Row = tuple[object, ...]
ProfilePlace = tuple[str, str]  # workspace, profile
PeriodsOfProfiles = dict[ProfilePlace, dict[str, list[Period]]]


async def settle_memberships(
    tx: Tx, schema: str, step: Step, spoken: Iterable[str | None] = ()
) -> list[Change]:
    """Brings memberships to where atoms are, and tells what changed.

    `spoken` are atoms of which words came or went.
    """
    moved = {atom for atom, old in step.before.items() if old != step.after.get(atom)}
    moved.update(atom for atom in spoken if atom is not None)
    sides = (step.before, step.after)
    shaken = {side[atom] for side in sides for atom in moved if atom in side}
    workspaces = step.touched.workspaces
    using = await _using_accounts(tx, schema, {workspaces[profile] for profile in shaken})
    places = sorted(
        (workspaces[profile], profile) for profile in shaken if workspaces[profile] in using
    )
    if not places:
        return []
    atoms = [
        (workspaces[atom], atom, profile)
        for atom, profile in step.after.items()
        if profile in shaken and workspaces[atom] in using
    ]
    before, after = await read_periods(tx, schema, places), await _fold(tx, schema, atoms)
    await _save(tx, schema, before, after)
    cause, alive = step.cause(), set(step.after.values())
    return [
        change
        for place in places
        if place[1] in alive
        for change in membership_changes(
            place[1], before.get(place, {}), after.get(place, {}), cause(place[1])
        )
    ]


async def _using_accounts(tx: Tx, schema: str, workspaces: Collection[str]) -> set[str]:
    """Returns the workspaces that ever heard of an account."""
    if not workspaces:
        return set()
    found = await tx.fetch(_USING_ACCOUNTS.format(schema=schema), sorted(workspaces))
    return {row["workspace"] for row in found}


async def read_periods(tx: Tx, schema: str, places: Sequence[ProfilePlace]) -> PeriodsOfProfiles:
    """Returns the memberships of profiles as they are kept."""
    found: PeriodsOfProfiles = defaultdict(lambda: defaultdict(list))
    rows = await tx.fetch(_OF_PROFILES.format(schema=schema), *columns(places))
    for workspace, profile, account, start_key, start_time, end_key, end_time in rows:
        end = None if end_key is None else bytes.fromhex(end_key)
        period = Period(bytes.fromhex(start_key), start_time, end, end_time)
        found[workspace, profile][account].append(period)
    for accounts in found.values():
        for kept in accounts.values():
            kept.sort(key=lambda period: (period.start_time, period.start_key))
    return found


async def _fold(tx: Tx, schema: str, atoms: Sequence[tuple[str, str, str]]) -> PeriodsOfProfiles:
    """Returns memberships as words make them, of atoms with their workspaces and profiles."""
    turns: dict[tuple[str, str, str], list[Turn]] = defaultdict(list)
    rows = await tx.fetch(_TURNS.format(schema=schema), *columns(sorted(atoms))) if atoms else []
    for workspace, profile, account, kind, *when in rows:
        turns[workspace, profile, account].append(Turn(_KINDS[kind], *when))
    found: PeriodsOfProfiles = defaultdict(dict)
    for (workspace, profile, account), told in turns.items():
        if made := periods(told):
            found[workspace, profile][account] = made
    return found


async def _save(tx: Tx, schema: str, before: PeriodsOfProfiles, after: PeriodsOfProfiles) -> None:
    old, new = set(_rows(before)), set(_rows(after))
    kept = {_key(row) for row in new}
    gone = sorted({_key(row) for row in old} - kept)
    if gone:
        await tx.execute(_DROP.format(schema=schema), *columns(gone))
    if new - old:
        await tx.execute(_SAVE.format(schema=schema), *columns(sorted(new - old, key=_key)))


def _rows(found: PeriodsOfProfiles) -> Iterable[Row]:
    for (workspace, profile), of_accounts in found.items():
        for account, made in of_accounts.items():
            for period in made:
                yield row_of(workspace, profile, account, period)


def row_of(workspace: str, profile: str, account: str, period: Period) -> Row:
    """Returns the row of a period, in the order of the table's columns."""
    end_key = None if period.end_key is None else period.end_key.hex()
    start = period.start_key.hex(), period.start_time
    return workspace, profile, account, *start, end_key, period.end_time


def _key(row: Sequence[object]) -> tuple[str, str]:
    return str(row[0]), str(row[3])
