"""Whenever customer events are older than a rule of retention lets them be, then they go.

A rule looks at each place of the log once, as soon as what is there is old enough, and keeps how
far it is. What it finds goes as erased people's customer events do, in runs; their bytes go with
the next compaction, or when PostgreSQL needs the room. Of a message the last word counts: one that
was recorded anew is as old as that.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.events.projections import sought
from services.events.projections.retention_rules import enabled_rules, halted_rules
from services.events.retention import MESSAGES, anonymises, before, takes
from services.events.upkeep.holdings import DOORS_HEAR_S, heard, said_in
from services.kernel.erasing import register, tombstones
from services.kernel.erasing.subjects import Erasure, FactKey, Subject, hash_key_of
from services.kernel.errors import RapportError
from services.kernel.log.database import DATABASE_FAILURES, transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rapport.common.v1.envelope_pb2 import Envelope
    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from rapport.events.v1.events_pb2 import RetentionSettings
    from services.events.projections.sought import Stretch
    from services.kernel.erasing.erasing import Erasing
    from services.kernel.process.runtime import Kernel

PAUSE_S = 3_600.0
RETRY_PAUSE_S = 60.0
STEP_TIMEOUT_S = 30.0
# What a rule looks at before the next one has its turn.
STRETCHES_PER_TURN_MAX = 50
TURN_S = 30.0
LAST_ID = UUID(int=2**128 - 1)

_log = structlog.get_logger(__name__)


class RetentionMetrics:
    """Counts what rules take."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.taken = Counter(
            "rapport_retention_taken",
            "Customer events that were old enough by a rule of retention, and went",
            registry=registry,
        )


class RetentionUpkeep:
    """Applies the enabled rules of all workspaces. `run` it as a task."""

    def __init__(self, kernel: Kernel, erasing: Erasing, metrics: RetentionMetrics) -> None:
        self._kernel = kernel
        self._erasing = erasing
        self._metrics = metrics

    async def run(self) -> None:
        """Looks every PAUSE_S; while there is more to do, at once."""
        while True:
            pause_s = PAUSE_S
            try:
                while await self.step():
                    pass
            except (RapportError, *DATABASE_FAILURES) as failure:
                _log.warning("retention.waits", problem=repr(failure))
                pause_s = RETRY_PAUSE_S
            # At another time than other replicas.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def step(self) -> bool:
        """Gives each rule its turn; tells whether one has more to do."""
        has_more = False
        for workspace, name, settings in await enabled_rules(self._kernel.pool):
            has_more |= await self._apply(workspace, name, settings)
        for workspace, name, settings in await halted_rules(self._kernel.pool):
            has_more |= not await self._wind_up(workspace, name, settings)
        return has_more

    async def _apply(self, workspace: str, name: str, settings: RetentionSettings) -> bool:
        """Finishes what a rule has begun, looks on, and takes what was found."""
        pool, now = self._kernel.pool, self._kernel.clock.now()
        if not await self._finish(workspace, name, settings):
            return True
        await sought.begin(pool, workspace, name, "", now)
        has_more = await self._look(workspace, name, settings, now)
        key = FactKey(before(settings, now), LAST_ID)
        await sought.drop_younger(pool, workspace, name, key.receive_time)
        if await sought.has_found(pool, workspace, name):
            run = self._erasure(workspace, f"{name}@{now.isoformat()}", key, settings)
            has_more |= not await self._take(run)
        return has_more

    async def _wind_up(self, workspace: str, name: str, settings: RetentionSettings) -> bool:
        """Brings to its end what a rule has overwritten that was disabled since; takes no more.

        It looks anew when it is enabled again.
        """
        await sought.forget(self._kernel.pool, workspace, name)
        return await self._finish(workspace, name, settings)

    async def _finish(self, workspace: str, name: str, settings: RetentionSettings) -> bool:
        """Goes on with the runs that a rule has begun; tells whether nothing is left of them."""
        for begun in await register.unfinished(self._kernel.pool, workspace, f"{name}@"):
            if not await self._take(self._erasure(workspace, begun.name, begun.key, settings)):
                return False
        return True

    async def _look(
        self, workspace: str, name: str, settings: RetentionSettings, now: datetime
    ) -> bool:
        """Looks at the next pieces that are old enough; tells whether there are more."""
        pool, until = self._kernel.pool, before(settings, now)
        for _ in range(STRETCHES_PER_TURN_MAX):
            left = [
                await sought.older_part(pool, stretch, until)
                for stretch in await sought.left(pool, workspace, name)
            ]
            stretches = [stretch for stretch in left if stretch.until > stretch.after]
            if not stretches:
                return False
            async with asyncio.timeout(STEP_TIMEOUT_S):
                positions = await self._old(workspace, settings, stretches[0], now)
                async with transaction(pool) as tx:
                    await sought.keep(tx, workspace, name, stretches[0], positions)
        return True

    async def _old(
        self, workspace: str, settings: RetentionSettings, stretch: Stretch, now: datetime
    ) -> list[int]:
        """Where in a piece of the log the last word on a message is that a rule takes."""
        pool = self._kernel.pool
        last = await sought.read_last_words(pool, workspace, stretch)
        whole = await sought.read_streams(pool, workspace, [event.stream for event in last])
        said = await asyncio.to_thread(self._said, whole)
        return [
            event.position
            for event in last
            if (own := said.get(event.stream)) is not None and takes(settings, own, now)
        ]

    def _said(self, envelopes: Sequence[Envelope]) -> Mapping[str, CustomerEvent]:
        """What each stream says last of what was sent."""
        return {
            event.stream: said
            for event in self._kernel.event_types.decode_all(envelopes)
            if (said := said_in(event)) is not None
        }

    async def _take(self, erasure: Erasure) -> bool:
        """Erases what was found, for a while; tells whether nothing of it is left but bytes."""
        pool = self._kernel.pool
        async with asyncio.timeout(STEP_TIMEOUT_S), transaction(pool) as tx:
            await register.begin(tx, erasure)
            begun = await register.lock(tx, erasure.workspace, erasure.name)
        # Till then a door may not know that messages are kept elsewhere.
        now = self._kernel.clock.now()
        await asyncio.sleep(DOORS_HEAR_S)
        await tombstones.seal_received(pool, heard(now))
        progress = await self._erasing.take_steps(erasure, turn_s=TURN_S)
        count = progress.counts[MESSAGES] - begun.counts[MESSAGES]
        self._metrics.taken.inc(count)
        _log.info("retention.taken", erasure=erasure.name, count=count)
        return progress.is_finished

    def _erasure(
        self, workspace: str, name: str, key: FactKey, settings: RetentionSettings
    ) -> Erasure:
        hash_key = hash_key_of(self._kernel.derive_key, workspace)
        return Erasure(
            name,
            Subject.of(workspace, hash_key, ()),
            key,
            anonymises=anonymises(settings),
            is_by_age=True,
        )
