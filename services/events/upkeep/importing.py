"""Whenever an import is to be checked, recorded or undone then a worker does it.

A few loops per process, in any number of processes. A worker owns an import by lease. What it does
is saved batch by batch, so whoever takes over goes on where it was left: a batch that was recorded
but not saved is recorded again, which changes nothing, and its rows are counted as what they became
the first time; of products a batch and its progress are one transaction. Nothing is recorded, and
nothing appended, once something has happened to the import that the worker did not see.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Counter

from rapport.events.v1.events_pb2 import ImportFailed
from services.events.deciders.import_job import (
    CHECKING,
    CUSTOMER_EVENTS,
    DECIDER,
    PRODUCTS,
    RUNNING,
    UNDOING,
)
from services.events.projections import importing, uploads
from services.events.projections.importing import Job, Work
from services.events.projections.imports import IMPORT_ROWS
from services.events.upkeep.import_cataloguing import check_products, record_products
from services.events.upkeep.import_checking import check
from services.events.upkeep.import_recording import record
from services.events.upkeep.import_undoing import undo
from services.events.upkeep.import_work import LEASE_S, Claimed
from services.kernel.errors import Aborted, ResourceExhausted, Unavailable
from services.kernel.log.bell import heard_within
from services.kernel.log.database import is_passing, transaction
from services.kernel.views.checkpoint import FencedError
from services.kernel.views.projection import reason_of

if TYPE_CHECKING:
    from services.events.recording import Recorder
    from services.kernel.process.runtime import Kernel

# Imports that one process works on at the same time.
IMPORTS_AT_ONCE_MAX = 3
# Imports that are looked at for one to work on; others may be faster with some.
CANDIDATES_MAX = 20
# Failures in a row that no waiting helps against.
FAILURES_MAX = 5
CLAIM_TIMEOUT_S = 5.0
CHUNKS_PER_DROP_MAX = 64
SAFETY_POLL_S = 5.0
# The bell rings with each append: it is not looked for imports more often than this.
LOOK_PAUSE_S = 0.2
# How long an import that made trouble waits, so that the others have their turn.
TROUBLE_PAUSE_S = 5.0
RETRY_PAUSE_S = 0.2
RETRY_PAUSE_MAX_S = 5.0

_WORKS: dict[int, Work] = {CHECKING: Work.CHECK, RUNNING: Work.RECORD, UNDOING: Work.UNDO}
_DOERS: dict[tuple[int, Work], Callable[[Claimed], Awaitable[None]]] = {
    (CUSTOMER_EVENTS, Work.CHECK): check,
    (CUSTOMER_EVENTS, Work.RECORD): record,
    (CUSTOMER_EVENTS, Work.UNDO): undo,
    (PRODUCTS, Work.CHECK): check_products,
    (PRODUCTS, Work.RECORD): record_products,
}

_log = structlog.get_logger(__name__)


class ImportMetrics:
    """Counts what went wrong with imports."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.troubled = Counter(
            "rapport_import_troubled",
            "Attempts at an import that ended early, to be tried again",
            ("work",),
            registry=registry,
        )


class ImportUpkeep:
    """Works on imports. `run` it as a task, as often as there shall be imports at once."""

    def __init__(self, kernel: Kernel, recorder: Recorder, metrics: ImportMetrics) -> None:
        self._kernel = kernel
        self._recorder = recorder
        self._metrics = metrics

    async def run(self) -> None:
        """Works on one import after the other, whenever there is one."""
        owner = str(self._kernel.new_id())
        pause_s = RETRY_PAUSE_S
        with self._kernel.bell.listening() as heard:
            while True:
                heard.clear()
                try:
                    worked = await self.step(owner)
                    wait_s = 0.0 if worked else SAFETY_POLL_S
                    pause_s = RETRY_PAUSE_S
                except Exception as error:  # noqa: BLE001, whatever it was, others must go on
                    _log.warning("import.waits", error=repr(error))
                    wait_s = pause_s * random.uniform(0.5, 1.0)
                    pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
                    heard.clear()
                if wait_s > 0:
                    await _wait(heard, wait_s)

    async def step(self, owner: str) -> bool:
        """Works on an import until it has ended or is left; tells whether there was anything."""
        if await uploads.drop_ended_file(self._kernel.pool, CHUNKS_PER_DROP_MAX):
            return True
        for workspace, import_id in await importing.waiting(self._kernel.pool, CANDIDATES_MAX):
            claimed = await self._claim(workspace, import_id, owner)
            if claimed is not None:
                await self._work(claimed)
                return True
        return False

    async def _claim(self, workspace: str, import_id: str, owner: str) -> Claimed | None:
        pool = self._kernel.pool
        row = await IMPORT_ROWS.existing(pool, workspace, DECIDER.name(import_id))
        work = _WORKS.get(row.state.state)
        if work is None:
            return None
        job = Job(workspace, import_id, work, row.state.attempt)
        async with asyncio.timeout(CLAIM_TIMEOUT_S), transaction(pool) as tx:
            progress = await importing.claim(tx, job, owner, LEASE_S)
        if progress is None:
            return None
        return Claimed(self._kernel, self._recorder, job, row, progress)

    async def _work(self, claimed: Claimed) -> None:
        """Does what is to be done, until it is over, cannot go on now, or is somebody else's."""
        pause_s = 0.0
        try:
            await _DOERS[claimed.row.state.kind, claimed.job.work](claimed)
        except (FencedError, Aborted) as error:
            _log.info("import.left", name=claimed.name, reason=str(error))
        except Exception as error:
            pause_s = TROUBLE_PAUSE_S
            self._metrics.troubled.labels(claimed.job.work).inc()
            if not _may_pass(error):
                await self._give_up(claimed, error)
            raise
        finally:
            with suppress(Exception):  # else the lease ends by itself
                async with asyncio.timeout(CLAIM_TIMEOUT_S):
                    await importing.release(
                        self._kernel.pool, claimed.job, claimed.progress.epoch, pause_s
                    )

    async def _give_up(self, claimed: Claimed, error: Exception) -> None:
        """Fails an import that failed too often without getting on; undoing is never given up."""
        failures = await importing.count_failure(
            self._kernel.pool, claimed.job, claimed.progress.epoch
        )
        _log.exception("import.troubled", name=claimed.name, work=claimed.job.work)
        if failures < FAILURES_MAX or claimed.job.work is Work.UNDO:
            return
        counts, detail = claimed.progress.counts, reason_of(error)
        await claimed.end(ImportFailed(counts=counts, reason="BUG", detail=detail))


def _may_pass(error: Exception) -> bool:
    return isinstance(error, Unavailable | ResourceExhausted) or is_passing(error)


async def _wait(heard: asyncio.Event, wait_s: float) -> None:
    await asyncio.sleep(min(LOOK_PAUSE_S, wait_s))
    await heard_within(heard, wait_s)
