"""What lies between the accounts and memberships of two generations of the view.

A generation of a shape that knew no accounts had none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from services.identity.accounts import account_traits_changes, membership_changes
from services.identity.changes import Change
from services.identity.projections.memberships import read_periods
from services.identity.traits import Said
from services.kernel.log.log import Origin
from services.kernel.log.sql import Tx
from services.kernel.views.view import DIGEST_TIMEOUT_S

ROWS_PER_FETCH = 5_000
PROFILES_PER_FETCH = 500

_KNOWS_ACCOUNTS = "select to_regclass($1) is not null"

_TRAITS = """
select coalesce(b.workspace, l.workspace) as workspace, coalesce(b.account, l.account) as account,
    trait, l.value as before, b.value as value, b.occur_time, b.key
from (select * from {built}.account_traits where $1::text is null or workspace = $1) b
full join (select * from {live} where $1::text is null or workspace = $1) l
    using (workspace, account, trait)
where b.value is distinct from l.value
order by 1, 2, 3
"""
_NO_TRAITS = "(select * from {built}.account_traits where false) none"

_PROFILES = """
select distinct m.workspace, m.profile
from (
    (select * from {built}.memberships except select * from {live})
    union all
    (select * from {live} except select * from {built}.memberships)
) m
join {built}.profiles using (workspace, profile)
where $1::text is null or m.workspace = $1
order by 1, 2
"""
_NO_MEMBERSHIPS = "(select * from {built}.memberships where false) none"


@dataclass(frozen=True, slots=True)
class AccountDifference:
    """What lies between two schemas, in one workspace or in all; `origin` says why it is so."""

    tx: Tx
    live: str
    built: str
    origin: Callable[[str], Origin]
    workspace: str | None = None

    async def changes(self) -> AsyncIterator[Change]:
        """Tells the way from one to the other, change by change."""
        knows: bool = await self.tx.fetchval(_KNOWS_ACCOUNTS, f"{self.live}.memberships")
        async for change in self._trait_changes(knows=knows):
            yield change
        async for change in self._membership_changes(knows=knows):
            yield change

    async def _trait_changes(self, *, knows: bool) -> AsyncIterator[Change]:
        """Tells which values are others, one account after the other."""
        live = f"{self.live}.account_traits" if knows else _NO_TRAITS
        some: list[Any] = []
        async for row in self._rows(_TRAITS, live):
            if some and _place(some[0]) != _place(row):
                for change in self._traits_told(some):
                    yield change
                some = []
            some.append(row)
        if some:
            for change in self._traits_told(some):
                yield change

    def _traits_told(self, rows: list[Any]) -> list[Change]:
        workspace, account = _place(rows[0])
        before, after = {}, {}
        for row in rows:
            if row["before"] is not None:
                before[row["trait"]] = Said(row["before"], row["occur_time"], b"")
            if row["value"] is not None:
                after[row["trait"]] = Said(row["value"], row["occur_time"], row["key"])
        return list(account_traits_changes(account, before, after, self.origin(workspace)))

    async def _membership_changes(self, *, knows: bool) -> AsyncIterator[Change]:
        """Tells who is or was in accounts at other times, some profiles at a time."""
        live = f"{self.live}.memberships" if knows else _NO_MEMBERSHIPS
        some: list[tuple[str, str]] = []
        async for row in self._rows(_PROFILES, live):
            some.append((row["workspace"], row["profile"]))
            if len(some) == PROFILES_PER_FETCH:
                for change in await self._memberships_told(some, knows=knows):
                    yield change
                some = []
        for change in await self._memberships_told(some, knows=knows):
            yield change

    async def _memberships_told(
        self, places: list[tuple[str, str]], *, knows: bool
    ) -> list[Change]:
        if not places:
            return []
        before = await read_periods(self.tx, self.live, places) if knows else {}
        after = await read_periods(self.tx, self.built, places)
        return [
            change
            for place in places
            for change in membership_changes(
                place[1], before.get(place, {}), after.get(place, {}), self.origin(place[0])
            )
        ]

    def _rows(self, statement: str, live: str) -> AsyncIterator[Any]:
        named = live.format(built=self.built)
        rows: AsyncIterator[Any] = aiter(
            self.tx.cursor(
                statement.format(live=named, built=self.built),
                self.workspace,
                prefetch=ROWS_PER_FETCH,
                timeout=DIGEST_TIMEOUT_S,
            )
        )
        return rows


def _place(row: Any) -> tuple[str, str]:
    return row["workspace"], row["account"]
