"""Whenever time has passed, or a segment is new or archived, then members enter and exit.

One loop per process, any number of them. What fails on its own account is parked with its reason in
`agenda.parked`, alarmed and tried again ever more rarely; all else goes on. The kinds of work take
turns, and so do the segments that are to be filled, so none waits for ever behind a busy one.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.kernel.log.bell import heard_within
from services.kernel.log.database import is_conflict, is_passing, transaction
from services.kernel.log.log import Append
from services.kernel.log.sql import Tx
from services.kernel.views.projection import reason_of
from services.kernel.views.view import append_with_views
from services.segments.policies import Cause, Question, Transition, appends_of, judge
from services.segments.projections import agenda
from services.segments.projections.agenda import ITSELF, MemberKey, Work
from services.segments.projections.facts import ProfileKey
from services.segments.projections.known_facts import next_candidates

if TYPE_CHECKING:
    from services.kernel.process.runtime import Kernel

DUES_PER_STEP_MAX = 1_000
PROFILES_PER_FILL_MAX = 2_000
EXITS_PER_STEP_MAX = 2_000
STEP_TIMEOUT_S = 30.0
# The bell may be missed while the listening connection is away, and the clock may be set.
SAFETY_POLL_S = 5.0
RETRY_PAUSE_S = 0.2
RETRY_PAUSE_MAX_S = 5.0

_log = structlog.get_logger(__name__)


class UpkeepMetrics:
    """Counts what had to be parked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.parked = Counter(
            "rapport_upkeep_parked",
            "Failed attempts to look at a segment's members, parked with their reason",
            ("work",),
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of work: finds what is to be done, and does it while the heads are held."""

    work: Work
    find: Callable[[Tx, datetime], Awaitable[Sequence[MemberKey]]]
    do: Callable[[Tx, datetime, Sequence[MemberKey]], Awaitable[Sequence[Append]]]


class Upkeep:
    """Keeps members true as time goes by and as segments come and go. `run` it as a task."""

    def __init__(self, kernel: Kernel, metrics: UpkeepMetrics) -> None:
        self._kernel = kernel
        self._metrics = metrics
        self._turns = deque(
            (
                _Kind(Work.LOOK_AGAIN, self._dues, self._look_again),
                _Kind(Work.EMPTY, self._archived, self._empty),
                _Kind(Work.FILL, self._unfilled, self._fill),
            )
        )
        self._filled_last = ("", "")

    async def run(self) -> None:
        """Takes a step whenever there is one: a due time came, or the bell told of a change."""
        pause_s = RETRY_PAUSE_S
        with self._kernel.bell.listening() as heard:
            while True:
                heard.clear()
                try:
                    async with asyncio.timeout(STEP_TIMEOUT_S):
                        wait_s = await self._wait_s()
                        if wait_s <= 0:
                            await self.step()
                    pause_s = RETRY_PAUSE_S
                except Exception as error:  # noqa: BLE001, whatever it was, members must stay true
                    _log.warning("upkeep.waits", error=repr(error))
                    wait_s = pause_s * random.uniform(0.5, 1.0)
                    pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
                    heard.clear()
                if wait_s > 0:
                    await heard_within(heard, min(wait_s, SAFETY_POLL_S))

    async def step(self) -> bool:
        """Does a bounded part of what is to be done; tells whether there was anything."""
        for _ in range(len(self._turns)):
            kind = self._turns[0]
            self._turns.rotate(-1)
            if await self._take(kind):
                return True
        return False

    async def _take(self, kind: _Kind, keys: Sequence[MemberKey] | None = None) -> bool:
        """Does what is found, or just these; parks the single one that fails."""
        log = self._kernel.log
        try:
            async with transaction(self._kernel.pool) as tx:
                await log.lock_heads(tx, set(range(log.partitions)))
                now = await agenda.advance_moment(tx, self._kernel.clock.now())
                keys = await kind.find(tx, now) if keys is None else keys
                if not keys:
                    return False
                appends = await kind.do(tx, now, keys)
                await append_with_views(tx, log, self._kernel.views, appends)
                await agenda.unpark(tx, kind.work, keys)
        except Exception as error:
            if not keys or is_passing(error) or is_conflict(error):
                raise
            if len(keys) > 1:
                middle = len(keys) // 2
                await self._take(kind, keys[:middle])
                await self._take(kind, keys[middle:])
            else:
                await self._park(kind.work, keys[0], error)
        return True

    async def _park(self, work: Work, key: MemberKey, error: Exception) -> None:
        workspace, profile_id, segment_id = key
        _log.exception(
            "upkeep.poison",
            work=work,
            workspace=workspace,
            segment=segment_id,
            profile=profile_id,
        )
        now = self._kernel.clock.now()
        await agenda.park(self._kernel.pool, work, key, reason_of(error), now)
        self._metrics.parked.labels(work).inc()

    async def _wait_s(self) -> float:
        """How long there is nothing to do; asked without holding anybody up."""
        pool, now = self._kernel.pool, self._kernel.clock.now()
        if await agenda.next_fill(pool, now) or await agenda.next_left_behind(pool, now):
            return 0.0
        due_time = await agenda.next_due(pool, now)
        if due_time is None:
            return SAFETY_POLL_S
        return (due_time - now).total_seconds()

    async def _dues(self, tx: Tx, now: datetime) -> Sequence[MemberKey]:
        return await agenda.take_dues(tx, now, DUES_PER_STEP_MAX)

    async def _look_again(
        self, tx: Tx, now: datetime, dues: Sequence[MemberKey]
    ) -> Sequence[Append]:
        """Whenever a due time comes then look at the rule."""
        segments = sorted({(workspace, segment_id) for workspace, _, segment_id in dues})
        definitions = {
            (definition.workspace, definition.segment_id): definition
            for definition in await agenda.definitions_of(tx, segments)
        }
        questions: dict[ProfileKey, Question] = {}
        archived: dict[MemberKey, datetime | None] = {}
        for workspace, profile_id, segment_id in dues:
            definition = definitions.get((workspace, segment_id))
            if definition is None:
                archived[workspace, profile_id, segment_id] = None
                continue
            question = questions.setdefault((workspace, profile_id), Question(Cause(now)))
            question.definitions.append(definition)
        await agenda.save_dues(tx, archived)
        return await judge(tx, now, questions)

    async def _archived(self, tx: Tx, now: datetime) -> Sequence[MemberKey]:
        return _just(await agenda.next_left_behind(tx, now))

    async def _empty(self, tx: Tx, _now: datetime, keys: Sequence[MemberKey]) -> Sequence[Append]:
        """Whenever a segment is archived then its members exit."""
        [(workspace, _, segment_id)] = keys
        return appends_of(
            (
                Transition(
                    member.definition, member.profile, Cause(member.archive_time), member.enter_time
                ),
                member.archive_time,
            )
            for member in await agenda.left_behind(tx, workspace, segment_id, EXITS_PER_STEP_MAX)
        )

    async def _unfilled(self, tx: Tx, now: datetime) -> Sequence[MemberKey]:
        found = await agenda.next_fill(tx, now, after=self._filled_last)
        self._filled_last = found or self._filled_last
        return _just(found)

    async def _fill(self, tx: Tx, now: datetime, keys: Sequence[MemberKey]) -> Sequence[Append]:
        """Whenever a segment is created then profiles that match enter, a page at a time.

        Profiles that change meanwhile are looked at by the policy, so a page need not be exact.
        """
        [(workspace, _, segment_id)] = keys
        [definition] = await agenda.definitions_of(tx, [(workspace, segment_id)])
        candidates, after = await next_candidates(
            tx,
            workspace,
            await agenda.filled_until(tx, definition),
            PROFILES_PER_FILL_MAX,
            sorted({condition.trait for condition in definition.rule.traits}),
            sorted({condition.activity for condition in definition.rule.activities}),
        )
        await agenda.save_fill(tx, definition, after)
        question = Question(Cause(now), [definition])
        return await judge(tx, now, {(workspace, p): question for p in candidates})


def _just(segment: tuple[str, str] | None) -> Sequence[MemberKey]:
    """The one piece of work that concerns a segment itself, if there is one."""
    if segment is None:
        return []
    workspace, segment_id = segment
    return [(workspace, ITSELF, segment_id)]
