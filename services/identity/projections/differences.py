"""What lies between two generations of the view: the way from the profiles of one to the other's.

It is told as if something had led from one to the other: first what nobody did, then what came to
be, then what moved, then what was done, and how much that is, then what is known. It is read in
parts, in order, so that no difference is too large; of the older generation it reads only what all
shapes since 4 have.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.identity.changes import (
    Change,
    Done,
    created,
    departures,
    recounted,
    renamed,
    trait_changes,
)
from services.identity.facts import Activity
from services.identity.projections import deal_words
from services.identity.projections.account_differences import AccountDifference
from services.identity.projections.consent_statuses import Told, consent_changed
from services.identity.rules import CONTACT_ID
from services.identity.stakes import Stake, computed
from services.identity.traits import Said, is_computed, later
from services.kernel.log.log import Origin
from services.kernel.log.sql import Tx, columns
from services.kernel.views.view import DIGEST_TIMEOUT_S

CHANGES_PER_PART_MAX = 5_000
ROWS_PER_FETCH = 5_000
PROFILES_PER_FETCH = 500

# Each of them asks about one workspace, or about all of them.
_GONE = """
select a.workspace, n.profile, a.node, a.activity_id, a.activity, a.occur_time{also}
from {one}.timeline a join {one}.nodes n using (workspace, node)
where ($1::text is null or a.workspace = $1) and not exists (
    select from {other}.timeline b
    where (b.workspace, b.node, b.occur_time, b.activity_id, b.activity)
        = (a.workspace, a.node, a.occur_time, a.activity_id, a.activity)
)
order by a.workspace, a.node, a.occur_time, a.activity_id
"""

_COMING = ", a.kind, a.source, a.resource, a.receive_time, a.account"
# An older shape does not say in which accounts things were done.
_GOING = ", null::text as account"

_CREATED = """
select b.workspace, b.profile, b.create_time from {built}.profiles b
where ($1::text is null or b.workspace = $1) and not exists (
    select from {live}.profiles l where (l.workspace, l.profile) = (b.workspace, b.profile)
)
order by b.workspace, b.profile
"""

_RENAMED = """
with moved as (
    select workspace, node, type, l.profile as before, b.profile as after
    from {live}.nodes l full join {built}.nodes b using (workspace, node, type)
    where ($1::text is null or workspace = $1) and l.profile is distinct from b.profile
)
select workspace, after as profile, node, type, true as is_added from moved
where after is not null
union all
select workspace, before, node, type, false from moved where before is not null
order by workspace, profile
"""

# An atom that shares no activity with what it was is another: that one is gone, and this one new.
_MOVED = """
with moved as (
    select l.workspace, l.profile, l.node, b.profile as goal
    from {live}.nodes l
    join {live}.atoms using (workspace, node)
    join {built}.atoms using (workspace, node)
    join {built}.nodes b using (workspace, node)
    where ($1::text is null or l.workspace = $1) and l.profile <> b.profile and exists (
        select from {live}.timeline a join {built}.timeline c
            using (workspace, node, occur_time, activity_id, activity)
        where a.workspace = l.workspace and a.node = l.node
    )
), ended as (
    select workspace, profile from {live}.profiles l
    where ($1::text is null or l.workspace = $1) and not exists (
        select from {built}.profiles b where (b.workspace, b.profile) = (l.workspace, l.profile)
    )
)
select p.workspace, p.profile, p.is_ended, n.profile as survivor, p.node, p.goal
from (
    select workspace, profile, e.profile is not null as is_ended, m.node, m.goal
    from moved m full join ended e using (workspace, profile)
) p
left join {built}.nodes n on n.workspace = p.workspace and n.node = p.profile
order by p.workspace, p.profile, p.node
"""

# An activity left those of $2 and $3, or came to them: who counts on may count otherwise.
_RECOUNTED = """
with counted as (
    select n.workspace, n.profile, sum(a.activities)::bigint as activities
    from {live}.nodes n join {live}.atoms a using (workspace, node)
    where $1::text is null or n.workspace = $1
    group by n.workspace, n.profile
)
select b.workspace, b.profile, b.create_time, b.last_activity_time, b.activity_count
from {built}.profiles b
left join {live}.profiles l using (workspace, profile)
left join counted c using (workspace, profile)
where ($1::text is null or b.workspace = $1)
    and ((b.create_time, b.last_activity_time, b.activity_count)
            is distinct from (l.create_time, l.last_activity_time, c.activities)
        or (b.workspace, b.profile) in (select * from unnest($2::text[], $3::text[])))
order by b.workspace, b.profile
"""

_OTHER_TRAITS = """
select b.workspace, b.profile, coalesce(l.traits, '{{}}'::jsonb) as before
from {built}.profiles b left join {live}.profiles l using (workspace, profile)
where ($1::text is null or b.workspace = $1)
    and b.traits::text <> coalesce(l.traits, '{{}}'::jsonb)::text
order by b.workspace, b.profile
"""

_OTHER_CONSENTS = """
select workspace, profile, purpose_id, b.status, b.occur_time, b.expire_time
from {built}.consent_statuses b full join {live} l using (workspace, profile, purpose_id)
join {built}.profiles p using (workspace, profile)
where ($1::text is null or workspace = $1)
    and (b.status, b.expire_time) is distinct from (l.status, l.expire_time)
order by workspace, profile, purpose_id
"""

_TRAITS = """
select n.workspace, n.profile, t.trait, t.value, t.occur_time, t.key
from unnest($1::text[], $2::text[]) asked (workspace, profile)
join {schema}.nodes n using (workspace, profile)
join {schema}.traits t using (workspace, node)
"""

_CONTACTS = """
select n.workspace, n.profile, n.node
from unnest($1::text[], $2::text[]) asked (workspace, profile)
join {schema}.nodes n using (workspace, profile)
where n.type = $3
"""

_NEVER = datetime(1, 1, 1, tzinfo=UTC), b""

ProfilePlace = tuple[str, str]  # workspace, profile
TraitsOfProfiles = dict[ProfilePlace, dict[str, Said]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What lies between two schemas, in one workspace or in all; `origin` says why it is so."""

    tx: Tx
    live: str
    built: str
    origin: Callable[[str], Origin]
    workspace: str | None = None

    async def parts(self) -> AsyncIterator[list[Change]]:
        """Tells the way from one to the other, at most CHANGES_PER_PART_MAX at a time."""
        part: list[Change] = []
        async for change in self.changes():
            part.append(change)
            if len(part) == CHANGES_PER_PART_MAX:
                yield part
                part = []
        if part:
            yield part

    async def changes(self) -> AsyncIterator[Change]:
        """Tells the way from one to the other, change by change."""
        stirred: set[ProfilePlace] = set()
        async for row in self._rows(_GONE, one=self.live, other=self.built, also=_GOING):
            stirred.add(_place(row))
            yield _done(row).retracted(self.origin(row["workspace"]))
        async for row in self._rows(_CREATED):
            yield created(row["profile"], row["create_time"], self.origin(row["workspace"]))
        async for change in self._by_profile(_RENAMED, self._renamed):
            yield change
        async for change in self._by_profile(_MOVED, self._departures):
            yield change
        async for row in self._rows(_GONE, one=self.built, other=self.live, also=_COMING):
            stirred.add(_place(row))
            told = row["kind"], row["activity"], row["source"], row["resource"]
            activity = Activity(*told, details="", account=row["account"] or "")
            origin = self.origin(row["workspace"])
            yield _done(row).recorded(origin, activity, row["receive_time"])
        places = [list(column) for column in zip(*sorted(stirred), strict=True)] or [[], []]
        async for row in self._rows(_RECOUNTED, *places):
            whole = row["create_time"], row["last_activity_time"], row["activity_count"]
            yield recounted(row["profile"], whole, self.origin(row["workspace"]))
        async for change in self._trait_changes():
            yield change
        accounts = AccountDifference(self.tx, self.live, self.built, self.origin, self.workspace)
        async for change in accounts.changes():
            yield change
        async for change in self._consent_changes():
            yield change

    async def shifts(self) -> AsyncIterator[Change]:
        """Tells only which profiles come to be, part, merge and end."""
        async for row in self._rows(_CREATED):
            yield created(row["profile"], row["create_time"], self.origin(row["workspace"]))
        async for change in self._by_profile(_MOVED, self._departures):
            yield change

    async def _by_profile(
        self, statement: str, tell: Callable[[Sequence[Any]], Iterable[Change]]
    ) -> AsyncIterator[Change]:
        """Tells what rows say of profiles, one profile after the other."""
        of_one: list[Any] = []
        async for row in self._rows(statement):
            if of_one and _place(of_one[0]) != _place(row):
                for change in tell(of_one):
                    yield change
                of_one = []
            of_one.append(row)
        if of_one:
            for change in tell(of_one):
                yield change

    def _renamed(self, rows: Sequence[Any]) -> Iterable[Change]:
        """Tells which identifiers came to one profile, and which left it."""
        came, left = (
            [(row["node"], row["type"]) for row in rows if row["is_added"] is is_added]
            for is_added in (True, False)
        )
        workspace, profile = _place(rows[0])
        yield renamed(profile, came, left, self.origin(workspace))

    def _departures(self, leaving: Sequence[Any]) -> Iterable[Change]:
        """Tells how atoms left one profile."""
        goals: dict[str, list[str]] = defaultdict(list)
        for row in leaving:
            if row["node"] is not None:
                goals[row["goal"]].append(row["node"])
        workspace, profile = _place(leaving[0])
        is_ended, origin = leaving[0]["is_ended"], self.origin(workspace)
        survivor = leaving[0]["survivor"] if is_ended else None
        return departures(profile, goals, survivor, lambda _: origin, is_ended=is_ended)

    async def _trait_changes(self) -> AsyncIterator[Change]:
        """Tells which values are others, some profiles at a time."""
        some: dict[ProfilePlace, str] = {}
        async for row in self._rows(_OTHER_TRAITS):
            some[_place(row)] = row["before"]
            if len(some) == PROFILES_PER_FETCH:
                for change in await self._traits_told(some):
                    yield change
                some = {}
        for change in await self._traits_told(some):
            yield change

    async def _consent_changes(self) -> AsyncIterator[Change]:
        """Tells whose consent is another; a generation of before that was kept has none."""
        known = f"{self.live}.consent_statuses"
        if await self.tx.fetchval("select to_regclass($1)", known) is None:
            known = f"(select * from {self.built}.consent_statuses where false)"
        async for row in self._rows(_OTHER_CONSENTS, live=known, built=self.built):
            stands = Told() if row["status"] is None else Told(*list(row)[3:])
            yield consent_changed(
                row["profile"], row["purpose_id"], stands, self.origin(row["workspace"])
            )

    async def _traits_told(self, some: Mapping[ProfilePlace, str]) -> list[Change]:
        if not some:
            return []
        before = await _said(self.tx, self.live, list(some))
        after = await _said(self.tx, self.built, list(some))
        stakes = await _of_deals(self.tx, self.built, list(some))
        told: list[Change] = []
        for place, listed in some.items():
            workspace, profile = place
            old = before.get(place, {}) | _listed(listed)
            new = after.get(place, {}) | computed(stakes.get(place, []))
            told += trait_changes(profile, old, new, self.origin(workspace))
        return told

    def _rows(self, statement: str, *more: object, **named: str) -> AsyncIterator[Any]:
        names = named or {"live": self.live, "built": self.built}
        rows: AsyncIterator[Any] = aiter(
            self.tx.cursor(
                statement.format(**names),
                self.workspace,
                *more,
                prefetch=ROWS_PER_FETCH,
                timeout=DIGEST_TIMEOUT_S,
            )
        )
        return rows


def _place(row: Any) -> ProfilePlace:
    return row["workspace"], row["profile"]


def _done(row: Any) -> Done:
    return Done(
        profile=row["profile"],
        atom=row["node"],
        activity_id=row["activity_id"],
        activity=row["activity"],
        occur_time=row["occur_time"],
        account=row["account"] or "",
    )


async def _said(tx: Tx, schema: str, places: Sequence[ProfilePlace]) -> TraitsOfProfiles:
    """Returns what the atoms of profiles say together."""
    found: TraitsOfProfiles = defaultdict(dict)
    rows = await tx.fetch(_TRAITS.format(schema=schema), *columns(places))
    for workspace, profile, name, *said in rows:
        known = found[workspace, profile]
        known[name] = later(known.get(name), Said(*said))
    return found


async def _of_deals(
    tx: Tx, schema: str, places: Sequence[ProfilePlace]
) -> dict[ProfilePlace, list[Stake]]:
    """Returns what deals are to the contacts of profiles."""
    rows = await tx.fetch(_CONTACTS.format(schema=schema), *columns(places), CONTACT_ID)
    contacts = [(row["workspace"], row["node"]) for row in rows]
    _, stakes = await deal_words.load_stakes(tx, schema, contacts)
    found: dict[ProfilePlace, list[Stake]] = defaultdict(list)
    for row in rows:
        found[_place(row)] += stakes.get(row["node"], [])
    return found


def _listed(traits: str) -> dict[str, Said]:
    """Returns the computed traits that a profile's row lists; since when is not to be known."""
    return {
        name: Said(_compact(value), *_NEVER)
        for name, value in json.loads(traits).items()
        if is_computed(name)
    }


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
