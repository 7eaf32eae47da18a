"""Profiles of one workspace by other rules, built beside the live ones and kept level with them.

They are read from the same logs: other rules make other identifiers of the same facts. All at once
at first, in one transaction; what comes later is folded as the live view folds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.identity.projections import ProfilesView
from services.identity.projections.differences import Difference
from services.identity.rule_sets import Shift
from services.identity.rules import Rules
from services.kernel.errors import Unavailable
from services.kernel.log.database import DATABASE_FAILURES, transaction
from services.kernel.log.log import Origin, read_of_types
from services.kernel.views.bulk import TooMuchForBulkError
from services.kernel.views.checkpoint import FencedError, read_positions

if TYPE_CHECKING:
    from services.identity.projections.rule_builds import Build, Positions
    from services.kernel.log.recorded import EventTypes, Recorded
    from services.kernel.log.sql import Tx
    from services.kernel.process.runtime import Kernel
    from services.kernel.views.bulk import Bulk

LEASE_S = 30.0
READ_TIMEOUT_S = 10.0
# So few that others who are served by this process hardly wait while they are decoded.
EVENTS_PER_READ = 500
# More events of a workspace are folded batch by batch: this process has others to serve.
EVENTS_AT_ONCE_MAX = 1_000_000
# So few are left to fold while the live view is held.
LEVEL_EVENTS_MAX = 1_000

_HOLD = """
select source, partition, position from kernel.checkpoints
where consumer = $1 and generation = 0 order by source, partition for update
"""

_COUNT = 'select count(*) from "{schema}".profiles where workspace = $1'


@dataclass(frozen=True, slots=True)
class _Folding:
    """Profiles that are folded batch by batch, where all at once are too many."""

    view: ProfilesView
    tx: Tx
    schema: str

    @property
    def heeds(self) -> frozenset[str]:
        return self.view.heeds

    async def add(self, events: Sequence[Recorded]) -> None:
        await self.view.apply(self.tx, self.schema, events)

    async def finish(self) -> None:
        """There is nothing left to do."""


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds what was claimed, by the rules of a rule set."""

    kernel: Kernel
    event_types: EventTypes
    claimed: Build
    rules: Rules

    @property
    def view(self) -> ProfilesView:
        """The view by these rules."""
        return ProfilesView(self._by_these, events_in_bulk_max=EVENTS_AT_ONCE_MAX)

    async def level(self) -> None:
        """Builds what is missing until nearly where the live view is; holds nobody up."""
        if self.claimed.positions is None:
            try:
                await self._build(self.view.bulk)
            except TooMuchForBulkError:
                await self._build(lambda tx, schema: _Folding(self.view, tx, schema))
        while True:
            behind = self._behind(await read_positions(self.kernel.pool, ProfilesView.name))
            if sum(until - self._reached(place) for place, until in behind) <= LEVEL_EVENTS_MAX:
                return
            place, until = behind[0]
            async with transaction(self.kernel.pool) as tx:
                await self._catch_up(
                    tx, {place: min(until, self._reached(place) + EVENTS_PER_READ)}
                )

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Tx]:
        """A transaction in which the live view stands still, and this one is where it is."""
        async with transaction(self.kernel.pool) as tx:
            await self._catch_up(tx, await _hold(tx))
            yield tx

    @asynccontextmanager
    async def both(self) -> AsyncIterator[Tx]:
        """A moment of both, live and built, at the same positions; everybody goes on meanwhile."""
        async with self.kernel.pool.acquire() as reading:
            moment = reading.transaction(isolation="repeatable_read", readonly=True)
            async with transaction(self.kernel.pool) as holding:
                live = await _hold(holding)
                async with transaction(self.kernel.pool) as tx:
                    await self._catch_up(tx, live)
                await moment.start()
                await reading.fetchval("select 1")
            try:
                yield reading
            finally:
                await moment.rollback()

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """Keeps the lease, and tells how far it is, while something takes long."""
        task = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def shift(self, tx: Tx) -> Shift:
        """Finds out how the profiles built differ from the live ones."""
        shift = Shift()
        async for change in self.difference(tx, _no_origin).shifts():
            shift.add(change)
        shift.counts.profile_count_before = await self._count(tx, ProfilesView.name)
        shift.counts.profile_count_after = await self._count(tx, self.claimed.schema)
        return shift

    def difference(self, tx: Tx, origin: Callable[[str], Origin]) -> Difference:
        """The way from the live profiles to those built."""
        return Difference(
            tx, ProfilesView.name, self.claimed.schema, origin, self.claimed.workspace
        )

    async def _catch_up(self, tx: Tx, live: Positions) -> None:
        """Folds what comes next in each log, and says how far it is with what got it there."""
        reached = dict(self.claimed.positions or {})
        for place, until in self._behind(live):
            while reached.get(place, 0) < until:
                own, reached[place] = await self._read(place, reached.get(place, 0), until)
                await self.view.apply(tx, self.claimed.schema, own)
        await self.claimed.reach(tx, reached)
        self.claimed.positions = reached

    async def _build(self, begin: Callable[[Tx, str], Bulk]) -> None:
        """Builds all of it up to where the live view is now."""
        live = await read_positions(self.kernel.pool, ProfilesView.name)
        claimed = self.claimed
        claimed.done, claimed.total = 0, sum(live.values())
        async with transaction(self.kernel.pool) as tx:
            await claimed.clear(tx)
        async with transaction(self.kernel.pool) as tx:
            await claimed.begin(tx, self.view)
            building = begin(tx, claimed.schema)
            for place, until in sorted(live.items()):
                after = 0
                while after < until:
                    own, reached = await self._read(place, after, until)
                    await building.add(own)
                    claimed.done += reached - after
                    after = reached
            await building.finish()
            await claimed.reach(tx, live)
        claimed.positions = dict(live)

    async def _read(
        self, place: tuple[str, int], after: int, until: int
    ) -> tuple[list[Recorded], int]:
        """Reads what is heeded of the workspace in the next events of a log, and until where."""
        source, partition = place
        heeds, workspace = self.view.heeds, self.claimed.workspace
        limit = min(until - after, EVENTS_PER_READ)
        async with asyncio.timeout(READ_TIMEOUT_S):
            if source == self.kernel.log.service:
                found, reached = await read_of_types(
                    self.kernel.pool,
                    partition,
                    heeds,
                    after=after,
                    until=until,
                    limit=limit,
                    workspace=workspace,
                )
                return self.event_types.decode_all(found), reached
            batch = await self.kernel.sources[source].read(partition, after, limit)
        if not batch or batch[0].position != after + 1:
            raise Unavailable(source)
        own = [each for each in batch if each.workspace == workspace and each.type in heeds]
        return self.event_types.decode_all(own), batch[-1].position

    def _behind(self, live: Positions) -> list[tuple[tuple[str, int], int]]:
        """Returns the places that it is not at yet, each with where it has to be."""
        return [
            (place, until) for place, until in sorted(live.items()) if self._reached(place) < until
        ]

    def _reached(self, place: tuple[str, int]) -> int:
        return (self.claimed.positions or {}).get(place, 0)

    async def _by_these(
        self, _tx: Any, _schema: str, workspaces: Iterable[str]
    ) -> Mapping[str, Rules]:
        return dict.fromkeys(workspaces, self.rules)

    async def _count(self, tx: Tx, schema: str) -> int:
        return int(await tx.fetchval(_COUNT.format(schema=schema), self.claimed.workspace))

    async def _renew(self) -> None:
        """Renews the lease until it is lost: then the next step says so."""
        while True:
            with suppress(*DATABASE_FAILURES):
                try:
                    await self.claimed.renew(self.kernel.pool, LEASE_S)
                except FencedError:
                    return
            await asyncio.sleep(LEASE_S / 6)


async def _hold(tx: Tx) -> Positions:
    """Lets no worker move the live view on; returns where it is."""
    rows = await tx.fetch(_HOLD, ProfilesView.name)
    return {(row["source"], row["partition"]): row["position"] for row in rows}


def _no_origin(_workspace: str) -> Origin:
    """Of what is only looked at, nobody asks why it is so."""
    return Origin("", "", "", "")
