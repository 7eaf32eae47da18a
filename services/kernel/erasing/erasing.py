"""Erasing: the steps of an erasure in one service, each of them safe to be repeated.

First the register says whom it is about, so that whatever comes in from then on can be held against
it. Then the log and all that was made of it, in transactions of some hundred events; then what the
service holds beside it; then the feed, message by message; then the bytes. A crash at whatever line
loses at most a step, which is taken again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from rapport.common.v1 import subjects_pb2 as pb
from services.kernel.erasing import register, tombstones
from services.kernel.erasing.holdings import Seeker
from services.kernel.errors import NotFound
from services.kernel.feed.feed import FeedUnavailableError
from services.kernel.log.database import transaction
from services.kernel.views.as_of import seal
from services.kernel.views.view import append_with_views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.erasing.holdings import Holdings
    from services.kernel.erasing.register import Progress
    from services.kernel.erasing.subjects import Erasure
    from services.kernel.feed.feed import Feed
    from services.kernel.log.log import Log
    from services.kernel.log.recorded import EventTypes
    from services.kernel.log.sql import Tx
    from services.kernel.views.view import AnyView

EVENTS_PER_STEP = 500
# By how much a step that was cut, because it took too long, grows again with each success.
EVENTS_MORE = 10
MESSAGES_PER_STEP = 64
MESSAGES_AT_ONCE = 8
STEP_TIMEOUT_S = 30.0
# How long one call goes on with steps.
TURN_S = 3.0

RAFT_KEEPS_A_COPY = (
    "the raft logs of the NATS servers: they keep a copy of the feed's messages until they are "
    "compacted, which each server does by itself as the feed goes on"
)

LOG, FEED, RESPONSES, GENERATIONS = "log", "feed", "remembered responses", "old generations"

_ERASED = """
select partition, position from kernel.events
where workspace = $1 and erasure = $2 and (partition, position) > ($3, $4)
order by partition, position limit $5
"""

_log = structlog.get_logger(__name__)


class Erasing:
    """Takes steps of erasures in one service."""

    def __init__(
        self,
        pool: Pool,
        log: Log,
        holdings: Holdings,
        *,
        event_types: EventTypes,
        views: Sequence[AnyView],
        all_views: Sequence[AnyView],
        feeds: Mapping[int, Feed],
        wake_compactor: Callable[[], None],
    ) -> None:
        """`views` are those read at once, `all_views` the consumers', too; feeds by partition."""
        self._pool = pool
        self._log = log
        self._holdings = holdings
        self._event_types = event_types
        self._views = views
        self._all_views = all_views
        self._feeds = feeds
        self._wake_compactor = wake_compactor
        self._events_per_step = EVENTS_PER_STEP

    async def take_steps(self, erasure: Erasure, turn_s: float = TURN_S) -> Progress:
        """Goes on with an erasure for a while, and tells how far it has got."""
        async with asyncio.timeout(STEP_TIMEOUT_S), transaction(self._pool) as tx:
            await register.begin(tx, erasure)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + turn_s
        while True:
            progress = await self.progress(erasure)
            if not await self._step(erasure, progress) or loop.time() >= ends_at:
                return await self.progress(erasure)

    async def progress(self, erasure: Erasure) -> Progress:
        """How far an erasure has got; raises NotFound for one that was not begun."""
        progress = await register.read(self._pool, erasure.workspace, erasure.name)
        if progress is None:
            raise NotFound(erasure.name)
        return progress

    async def _step(self, erasure: Erasure, progress: Progress) -> bool:
        """Takes one step; tells whether it is worth taking the next at once."""
        match progress.stage:
            case pb.ERASURE_STAGE_LOG:
                if not await self._seek(erasure):
                    await self._erase_events(erasure)
            case pb.ERASURE_STAGE_REST:
                await self._erase_rest(erasure)
            case pb.ERASURE_STAGE_FEED:
                return await self._erase_messages(erasure, progress)
            case pb.ERASURE_STAGE_BYTES:
                self._wake_compactor()
                return False
            case _:
                return False
        return True

    async def _seek(self, erasure: Erasure) -> bool:
        """Looks on for what goes, where nothing tells at once; whether there is more to see."""
        return isinstance(self._holdings, Seeker) and await self._holdings.seek(self._pool, erasure)

    async def _erase_events(self, erasure: Erasure) -> None:
        """Overwrites the next events, with all that was made of them."""
        await seal(self._pool, erasure.key.receive_time)
        found = await self._holdings.find(self._pool, erasure, self._events_per_step)
        try:
            await self._overwrite(erasure, found)
        except TimeoutError:  # perhaps it was too much at once
            self._events_per_step = max(1, min(self._events_per_step, len(found)) // 2)
            raise
        self._events_per_step = min(self._events_per_step + EVENTS_MORE, EVENTS_PER_STEP)

    async def _overwrite(self, erasure: Erasure, found: Sequence[Envelope]) -> None:
        """Overwrites what was found, in one transaction; without any the log is done with."""
        async with self._step_in(erasure, pb.ERASURE_STAGE_LOG) as (tx, progress):
            if progress is None:
                return
            if not found:
                dropped = await tombstones.drop_old_generations(tx, self._all_views)
                progress.counts += Counter({GENERATIONS: dropped})
                progress.enter_next()
                return
            await tombstones.hold_everything(tx, self._log)
            # Another replica may have been faster.
            own = await tombstones.not_yet_erased(tx, found)
            gone = await self._holdings.forget(tx, erasure, self._event_types.decode_all(own))
            own += gone.events
            responses = await tombstones.overwrite(
                tx, self._log, erasure.name, own, left=gone.left, renamed=gone.renamed
            )
            await tombstones.release_claims(tx, erasure.workspace, gone.ended)
            gone.counts += Counter({LOG: len(own), RESPONSES: responses})
            progress.add(gone)
            await append_with_views(tx, self._log, self._views, gone.appends)
        self._log.recent.forget()

    async def _erase_rest(self, erasure: Erasure) -> None:
        """Takes the next step in what is neither log nor view."""
        gone = await self._holdings.forget_rest(self._pool, erasure)
        async with self._step_in(erasure, pb.ERASURE_STAGE_REST) as (_, progress):
            if progress is None:
                return
            if gone is not None:
                progress.add(gone)
            else:
                progress.enter_next()

    async def _erase_messages(self, erasure: Erasure, progress: Progress) -> bool:
        """Deletes the next messages of the feed; False while the feed is away or behind."""
        places = await self._pool.fetch(
            _ERASED,
            erasure.workspace,
            erasure.name,
            progress.feed_partition,
            progress.feed_position,
            MESSAGES_PER_STEP,
        )
        problem = ""
        try:
            for start in range(0, len(places), MESSAGES_AT_ONCE):
                some = places[start : start + MESSAGES_AT_ONCE]
                await self._reached({row["partition"]: row["position"] for row in some})
                await asyncio.gather(
                    *(self._feeds[row["partition"]].erase(row["position"]) for row in some)
                )
        except FeedUnavailableError as error:
            problem = f"the feed: {error}"
        async with self._step_in(erasure, pb.ERASURE_STAGE_FEED) as (_, known):
            if known is not None:
                known.problem = problem
                if places and not problem:
                    known.feed_partition, known.feed_position = places[-1]
                    known.counts += Counter({FEED: len(places)})
                elif not problem:
                    if known.counts[FEED] and any(
                        feed.replicas > 1 for feed in self._feeds.values()
                    ):
                        known.notes = sorted({*known.notes, RAFT_KEEPS_A_COPY})
                    known.enter_next()
                    if erasure.is_by_age:
                        known.enter_next()
        return not problem

    async def _reached(self, positions: Mapping[int, int]) -> None:
        """Raises FeedUnavailableError unless the feed has got to positions, by partition.

        Behind its tip nothing can be published any more, whatever a relay holds in memory.
        """
        for partition, position in positions.items():
            feed = self._feeds[partition]
            if await feed.last_position() < position:
                raise FeedUnavailableError(f"{feed.name} has not got to {position} yet")

    @asynccontextmanager
    async def _step_in(
        self, erasure: Erasure, stage: pb.ErasureStage.ValueType
    ) -> AsyncIterator[tuple[Tx, Progress | None]]:
        """One transaction of a stage, which nobody else takes at the same time.

        The progress is saved with it; None when somebody else has done with the stage.
        """
        async with asyncio.timeout(STEP_TIMEOUT_S), transaction(self._pool) as tx:
            progress = await register.lock(tx, erasure.workspace, erasure.name)
            if progress.stage != stage:
                yield tx, None
                return
            yield tx, progress
            await register.save(tx, progress)
