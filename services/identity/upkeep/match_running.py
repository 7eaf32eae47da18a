"""Whenever a match run was started then a worker does it.

One loop per process, in any number of processes; a worker owns a run by lease. Who takes one over
begins anew, which leads to the same suggestions. A run that ends its workers again and again is
given up.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry, Counter

from rapport.identity.v1.events_pb2 import MatchRunFailed
from services.identity.deciders.match_run import DECIDER, RUNNING
from services.identity.matching import BUG
from services.identity.projections import match_progress
from services.identity.projections.match_runs import RUN_ROWS
from services.identity.upkeep.match_comparing import CannotCompareError, compared
from services.identity.upkeep.match_recording import record
from services.identity.upkeep.match_work import LEASE_S, Claimed
from services.kernel.errors import Aborted, ResourceExhausted, Unavailable
from services.kernel.log.bell import heard_within
from services.kernel.log.database import is_conflict, is_passing, transaction
from services.kernel.process.runtime import Kernel
from services.kernel.views.checkpoint import FencedError

# How often a run is begun before it is given up.
ATTEMPTS_MAX = 5
ATTEMPTS_LIMIT = "ATTEMPTS_MAX"
CLAIM_TIMEOUT_S = 5.0
SAFETY_POLL_S = 5.0
# The bell rings with each append: it is not looked for runs more often than this.
LOOK_PAUSE_S = 0.5
TROUBLE_PAUSE_S = 5.0
RETRY_PAUSE_S = 0.2
RETRY_PAUSE_MAX_S = 5.0

_log = structlog.get_logger(__name__)


class MatchRunMetrics:
    """Counts what went wrong with runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.troubled = Counter(
            "rapport_match_run_troubled",
            "Attempts at a match run that did not end as they should",
            registry=registry,
        )


class MatchUpkeep:
    """Works on match runs; `run` it as a task."""

    def __init__(self, kernel: Kernel, metrics: MatchRunMetrics) -> None:
        self._kernel = kernel
        self._metrics = metrics

    async def run(self) -> None:
        """Works on one run after the other, whenever there is one."""
        owner = str(self._kernel.new_id())
        pause_s = RETRY_PAUSE_S
        with self._kernel.bell.listening() as heard:
            while True:
                heard.clear()
                try:
                    wait_s = 0.0 if await self.step(owner) else SAFETY_POLL_S
                    pause_s = RETRY_PAUSE_S
                except Exception as error:  # noqa: BLE001, whatever it was, others must go on
                    _log.warning("match_run.waits", error=repr(error))
                    wait_s = pause_s * random.uniform(0.5, 1.0)
                    pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
                    heard.clear()
                if wait_s > 0:
                    await asyncio.sleep(min(LOOK_PAUSE_S, wait_s))
                    await heard_within(heard, wait_s)

    async def step(self, owner: str) -> bool:
        """Works on a run until it has ended or is left; tells whether there was anything."""
        async with asyncio.timeout(CLAIM_TIMEOUT_S):
            claimed = await self._claim(owner)
        if claimed is not None:
            await self._work(claimed)
        return claimed is not None

    async def _claim(self, owner: str) -> Claimed | None:
        pool = self._kernel.pool
        found = await match_progress.waiting(pool)
        if found is None:
            return None
        workspace, run_id = found
        row = await RUN_ROWS.existing(pool, workspace, DECIDER.name(run_id))
        async with transaction(pool) as tx:
            job = await match_progress.claim(tx, workspace, run_id, owner, LEASE_S)
        if job is None or row.state.state != RUNNING:
            return None
        return Claimed(self._kernel, job, row)

    async def _work(self, claimed: Claimed) -> None:
        """Does a run, until it is over, cannot go on now, or is somebody else's."""
        pause_s = 0.0
        try:
            await self._do(claimed)
        except (FencedError, Aborted) as error:
            _log.info("match_run.left", name=claimed.name, reason=str(error))
        except Exception:
            pause_s = TROUBLE_PAUSE_S
            self._metrics.troubled.inc()
            raise
        finally:
            with suppress(Exception):  # else the lease ends by itself
                async with asyncio.timeout(CLAIM_TIMEOUT_S):
                    await match_progress.release(self._kernel.pool, claimed.job, pause_s)

    async def _do(self, claimed: Claimed) -> None:
        if claimed.job.epoch > ATTEMPTS_MAX:
            await claimed.end(MatchRunFailed(reason=ATTEMPTS_LIMIT))
            return
        try:
            await record(claimed, await compared(claimed))
        except (FencedError, Aborted):
            raise
        except Exception as error:
            if isinstance(error, Unavailable | ResourceExhausted):
                raise
            if is_passing(error) or is_conflict(error):
                raise
            self._metrics.troubled.inc()
            _log.exception("match_run.troubled", name=claimed.name)
            reason = error.reason if isinstance(error, CannotCompareError) else BUG
            await claimed.end(MatchRunFailed(counts=claimed.progress.counts, reason=reason))
