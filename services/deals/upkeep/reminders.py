"""Whenever the day of a reminder has come, then that is recorded, for all who listen.

Any number of replicas run this. What is due is looked for without holding anybody up, and decided
on the contracts as they are while the heads are held: a reminder that another replica recorded in
between is not due any more. So each comes once, however often this is killed, and comes late when
nobody ran on its day.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.deals.deciders.contract import DECIDER
from services.deals.deciders.contract_state import due_reminder
from services.deals.projections.contracts import (
    FIRST_DUE,
    DueKey,
    Row,
    due_contracts,
    read_rows,
)
from services.kernel.log.database import is_conflict, is_passing, transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.views.view import append_with_views

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from services.kernel.process.runtime import Kernel

PAUSE_S = 30.0
STEP_TIMEOUT_S = 30.0
CONTRACTS_PER_STEP_MAX = 200
"""While so many are decided on, no command is."""

_ACTOR = "reminders"

_log = structlog.get_logger(__name__)


class ReminderMetrics:
    """Counts what came and what could not be told."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.came = Counter(
            "rapport_contract_reminders", "Reminders of contracts that came", registry=registry
        )
        self.failed = Counter(
            "rapport_contract_reminders_failed",
            "Attempts to remind of a contract that failed for a reason of its own",
            registry=registry,
        )


class Reminders:
    """Records reminders. `run` it as a task."""

    def __init__(self, kernel: Kernel, metrics: ReminderMetrics) -> None:
        self._kernel = kernel
        self._metrics = metrics
        self._after = FIRST_DUE

    async def run(self) -> None:
        """Looks every PAUSE_S, and goes on at once while there is something to do."""
        while True:
            is_done = True
            try:
                async with asyncio.timeout(STEP_TIMEOUT_S):
                    is_done = not await self.step()
            except Exception as error:  # noqa: BLE001, whatever it was, the next days come
                _log.warning("reminders.wait", error=repr(error))
            if is_done:
                await asyncio.sleep(PAUSE_S * random.uniform(0.5, 1.0))

    async def step(self) -> bool:
        """Reminds of the next contracts of which it is due; tells whether there were any.

        One that fails is met again when all others had their turn.
        """
        today = self._kernel.clock.now().date()
        pool = self._kernel.pool
        keys = await due_contracts(pool, today, self._after, CONTRACTS_PER_STEP_MAX)
        await self._take(today, keys)
        self._after = keys[-1] if keys else FIRST_DUE
        return bool(keys)

    async def _take(self, today: date, keys: Sequence[DueKey]) -> None:
        """Records what is due of these; passes over the single one that fails."""
        if not keys:
            return
        log = self._kernel.log
        try:
            async with transaction(self._kernel.pool) as tx:
                await log.lock_heads(tx, set(range(log.partitions)))
                appends = _due(await read_rows(tx, keys), today)
                await append_with_views(tx, log, self._kernel.views, appends)
        except Exception as error:
            if is_passing(error) or is_conflict(error):
                raise
            if len(keys) > 1:
                middle = len(keys) // 2
                await self._take(today, keys[:middle])
                await self._take(today, keys[middle:])
                return
            _, workspace, contract_id = keys[0]
            _log.exception("reminders.poison", workspace=workspace, contract=contract_id)
            self._metrics.failed.inc()
        else:
            self._metrics.came.inc(len(appends))


def _due(rows: Sequence[Row], today: date) -> list[Append]:
    """At most one for each contract: the next, if any, is met later."""
    found = ((row, due_reminder(row.state, today)) for row in rows)
    return [
        Append(
            Origin(row.workspace, _ACTOR, correlation_id="", causation_id=""),
            DECIDER.stream(row.aggregate_id),
            [NewEvent(reminder)],
            expected_version=row.version,
        )
        for row, reminder in found
        if reminder is not None
    ]
