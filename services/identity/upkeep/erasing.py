"""Whenever somebody is to be erased then every system is asked, until each of them has ended.

One loop per process, in any number of processes: what two of them ask twice does no harm, and what
becomes of it is recorded by whoever saw the erasure as it is. A system that fails is asked again,
later each time, and given up after ATTEMPTS_MAX; the others do not wait for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, Counter

from rapport.common.v1 import subjects_pb2 as subjects
from rapport.identity.v1.erasure_state_pb2 import (
    ERASURE_STATE_FAILED,
    ERASURE_STATE_FINISHED,
    ERASURE_STATE_NOT_SUPPORTED,
    ErasureState,
)
from rapport.identity.v1.events_pb2 import SystemErasureEnded
from services.identity.asking import ACTOR, OWN, SUPPRESSION, Systems, nodes_of, said, told
from services.identity.deciders.erasure import DECIDER, extended
from services.identity.projections import erasure_work
from services.identity.projections.erasure_work import AtWork, Sealed
from services.identity.projections.erasures import Row, open_erasures
from services.identity.projections.rules_in_force import rules_of
from services.identity.projections.view import ProfilesView
from services.identity.upkeep.erasure_register import reconcile
from services.kernel.errors import Aborted, RapportError, Unimplemented
from services.kernel.log.bell import heard_within
from services.kernel.log.database import is_passing, transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import Kernel
from services.kernel.views.view import append_with_views

# How often in a row a system may fail before it is given up: about an hour.
ATTEMPTS_MAX = 20
PAUSE_S = 0.5
PAUSE_MAX_S = 300.0
# How soon a system that is at it is asked again.
ASK_AGAIN_S = 0.3
ERASURES_AT_ONCE_MAX = 20
SAVE_TIMEOUT_S = 10.0
SAFETY_POLL_S = 5.0
LOOK_PAUSE_S = 0.2
RETRY_PAUSE_S = 0.5
RETRY_PAUSE_MAX_S = 10.0
# What was kept of commands that came to nothing is forgotten after this.
STRAY_AGE = timedelta(hours=1)
# How often the registers of all systems are compared; never for more than a twentieth of the time.
RECONCILE_S = 60.0
RECONCILE_PAUSES = 20
# Every how many times also where nobody was erased, as far as we know.
RECONCILE_EVERYWHERE = 60

# Who tells what others are told of is asked when these have ended: what they erase takes facts from
# profiles, which tell that, and then tell anew what is left; segments are made of that.
_ASKED_AFTER: Mapping[str, frozenset[str]] = {
    OWN: frozenset({"contacts", "deals", "events"}),
    "segments": frozenset({OWN}),
}

_log = structlog.get_logger(__name__)


class ErasureMetrics:
    """Counts what went wrong with erasures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.troubled = Counter(
            "rapport_erasure_troubled",
            "Times a system failed to go on with an erasure",
            ("system",),
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class _Turn:
    """What became of asking one system: a fact, and what goes with the person's besides."""

    fact: Message | None = None
    also: frozenset[tuple[str, str]] = frozenset()


class ErasureUpkeep:
    """Goes on with erasures; `run` it as a task."""

    def __init__(self, kernel: Kernel, metrics: ErasureMetrics) -> None:
        self._kernel = kernel
        self._metrics = metrics
        self._systems = Systems(kernel)
        self._reconcile_at_s = 0.0
        self._reconciled = 0

    async def run(self) -> None:
        """Works whenever there is something to do."""
        pause_s = RETRY_PAUSE_S
        with self._kernel.bell.listening() as heard:
            while True:
                heard.clear()
                try:
                    wait_s = ASK_AGAIN_S if await self.step() else SAFETY_POLL_S
                    await self._look_around()
                    pause_s = RETRY_PAUSE_S
                except Exception as error:  # noqa: BLE001, whatever it was, others must go on
                    _log.warning("erasure.waits", error=repr(error))
                    wait_s = pause_s * random.uniform(0.5, 1.0)
                    pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
                    heard.clear()
                await asyncio.sleep(min(LOOK_PAUSE_S, wait_s))
                await heard_within(heard, wait_s)

    async def step(self) -> bool:
        """Asks every system that has something to do; tells whether there was any."""
        rows = await open_erasures(self._kernel.pool, ERASURES_AT_ONCE_MAX)
        done = await asyncio.gather(*(self._go_on(row) for row in rows), return_exceptions=True)
        for error in done:
            if isinstance(error, Aborted):  # another process was faster
                continue
            if isinstance(error, BaseException):
                raise error
        return bool(rows)

    async def _go_on(self, row: Row) -> None:
        """Asks the systems of one erasure, and records what became of it."""
        pool = self._kernel.pool
        known = await erasure_work.read_work(pool, row.workspace, [row.aggregate_id])
        at_work = known.get(row.aggregate_id, {})
        now = self._kernel.clock.now()
        due = [
            system
            for system in row.state.open_systems
            if system not in at_work or at_work[system].next_time <= now
        ]
        still_open = set(row.state.open_systems)
        due = [system for system in due if still_open.isdisjoint(_ASKED_AFTER.get(system, ()))]
        # Who is refused first does not come back while the others are asked.
        if SUPPRESSION in row.state.open_systems:
            due = [system for system in due if system == SUPPRESSION]
        identifiers = await self._identifiers(row)
        turns = await asyncio.gather(
            *(self._ask(row, system, identifiers, at_work.get(system)) for system in due)
        )
        facts = [turn.fact for turn in turns if turn.fact is not None]
        more = await self._extension(row, frozenset().union(*(turn.also for turn in turns)))
        # What is added begins everywhere once more, so nothing has ended.
        await self._record(row, [more] if more is not None else facts)

    async def _identifiers(self, row: Row) -> list[tuple[str, str]]:
        """What the person is known by, as far as it is kept and the erasure is about it."""
        kept = await self._sealed(row).opened(self._kernel.pool)
        hashes = set(row.state.hashes)
        return [it for it in kept if self._systems.hash(row.workspace, *it) in hashes]

    async def _ask(
        self, row: Row, system: str, identifiers: Sequence[tuple[str, str]], before: AtWork | None
    ) -> _Turn:
        """Asks one system to go on."""
        try:
            if system == SUPPRESSION:
                count = await self._systems.suppress(row.workspace, identifiers)
                answer = subjects.EraseSubjectResponse(finished=True)
                answer.counts.add(system="identifiers", count=count)
            else:
                if system == OWN:
                    await self._hear(row)
                request = subjects.EraseSubjectRequest(
                    erasure=DECIDER.name(row.aggregate_id),
                    key=row.state.fact_key(),
                    identifiers=told(identifiers),
                    hashes=row.state.hashes,
                    nodes=[node for _, node in row.state.subjects],
                    anonymise=row.state.anonymises,
                )
                answer = await self._systems.erase(row.workspace, system, request)
        except Unimplemented:
            return _Turn(self._ended(row, system, ERASURE_STATE_NOT_SUPPORTED))
        except Exception as error:  # noqa: BLE001, the other systems go on
            if not (isinstance(error, RapportError) or is_passing(error)):
                _log.exception("erasure.troubled", system=system, erasure=row.aggregate_id)
            return await self._failed(row, system, error, before)
        also = frozenset(said(answer.also))
        if answer.finished:
            fact = self._ended(row, system, ERASURE_STATE_FINISHED)
            fact.counts.extend(answer.counts)
            fact.notes.extend(answer.notes)
            return _Turn(fact, also)
        work = AtWork(
            next_time=self._after(PAUSE_S if answer.problem else ASK_AGAIN_S),
            stage=answer.stage,
            counts={each.system: each.count for each in answer.counts},
            problem=answer.problem,
        )
        await erasure_work.save_work(self._kernel.pool, *_key(row), system, work)
        return _Turn(also=also)

    async def _hear(self, row: Row) -> None:
        """Waits until profiles have heard of what was erased before identity is asked."""
        for name in sorted(_ASKED_AFTER[OWN]):
            ended = row.state.systems.get(name)
            if ended is not None and ended.state == ERASURE_STATE_FINISHED:
                token = encode_write_token(name, await self._kernel.sources[name].heads())
                await self._kernel.freshness.wait(ProfilesView.name, token)

    async def _failed(
        self, row: Row, system: str, error: Exception, before: AtWork | None
    ) -> _Turn:
        """Lets a system that failed rest, or gives it up."""
        self._metrics.troubled.labels(system).inc()
        attempts = 1 if before is None else before.attempts + 1
        # Whatever else an error says may be about the person.
        problem = error.message if isinstance(error, RapportError) else type(error).__name__
        if attempts >= ATTEMPTS_MAX:
            fact = self._ended(row, system, ERASURE_STATE_FAILED)
            fact.problem = problem
            return _Turn(fact)
        work = AtWork(
            next_time=self._after(min(PAUSE_S * 2 ** (attempts - 1), PAUSE_MAX_S)),
            stage=subjects.ERASURE_STAGE_UNSPECIFIED if before is None else before.stage,
            counts={} if before is None else before.counts,
            problem=problem,
            attempts=attempts,
        )
        await erasure_work.save_work(self._kernel.pool, *_key(row), system, work)
        return _Turn()

    async def _extension(self, row: Row, also: frozenset[tuple[str, str]]) -> Message | None:
        """The fact that more goes with the person, and its values kept; None when all is known."""
        if not also:
            return None
        rules = await rules_of(self._kernel.pool, row.workspace)
        hashes = {
            subject: self._systems.hash(row.workspace, *identifier)
            for identifier, subject in nodes_of(rules, row.workspace, also).items()
        }
        more = extended(DECIDER.name(row.aggregate_id), row.state, hashes)
        if more is not None:
            await self._sealed(row).add(self._kernel.pool, also)
        return more

    async def _record(self, row: Row, facts: Sequence[Message]) -> None:
        """Records what became of an erasure, unless something else did since it was read.

        Raises Aborted then. What the person is known by is forgotten with the last of it.
        """
        if not facts:
            return
        kernel, state = self._kernel, DECIDER.fold(facts, row.state)
        origin = Origin(row.workspace, ACTOR, "", DECIDER.name(row.aggregate_id))
        append = Append(
            origin,
            DECIDER.stream(row.aggregate_id),
            [NewEvent(fact) for fact in facts],
            row.version,
        )
        ended = [name for name in state.systems if name not in state.open_systems]
        begun = ended if isinstance(facts[0], SystemErasureEnded) else [*state.systems]
        async with asyncio.timeout(SAVE_TIMEOUT_S), transaction(kernel.pool) as tx:
            await append_with_views(tx, kernel.log, kernel.views, [append])
            await erasure_work.forget_work(tx, *_key(row), begun)
            if state.state == ERASURE_STATE_FINISHED:
                await self._sealed(row).forget(tx)
        _log.info("erasure.went_on", erasure=row.aggregate_id, facts=len(facts))

    async def _look_around(self) -> None:
        """Now and then forgets strays, and compares the registers of all systems."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        if begun_s < self._reconcile_at_s:
            return
        everywhere = self._reconciled % RECONCILE_EVERYWHERE == 0
        self._reconciled += 1
        try:
            before = self._kernel.clock.now() - STRAY_AGE
            await erasure_work.forget_strays(self._kernel.pool, before)
            await reconcile(self._kernel, self._systems, everywhere=everywhere)
        finally:
            pause_s = max(RECONCILE_S, RECONCILE_PAUSES * (loop.time() - begun_s))
            self._reconcile_at_s = loop.time() + pause_s * random.uniform(0.5, 1.0)

    def _ended(self, row: Row, system: str, state: ErasureState.ValueType) -> SystemErasureEnded:
        return SystemErasureEnded(
            erasure=DECIDER.name(row.aggregate_id), system=system, state=state
        )

    def _after(self, pause_s: float) -> datetime:
        return self._kernel.clock.now() + timedelta(seconds=pause_s)

    def _sealed(self, row: Row) -> Sealed:
        return Sealed(self._kernel.derive_key, *_key(row))


def _key(row: Row) -> tuple[str, str]:
    """How the tables of what is going on name an erasure."""
    return row.workspace, row.aggregate_id
