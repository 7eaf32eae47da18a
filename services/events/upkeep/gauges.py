"""Whenever a while has passed, then the numbers of quarantine and of outcomes are told anew.

Prometheus reads them (`deploy/alerts/events.yaml` says when somebody must be woken). Every replica
tells the same numbers, those of all workspaces: take the largest, not the sum.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Gauge

from rapport.events.v1.service_pb2 import ReceiptOutcome
from services.events.projections.counts import totals
from services.events.projections.quarantine import waiting
from services.kernel.log.database import DATABASE_FAILURES

if TYPE_CHECKING:
    from services.kernel.process.runtime import Kernel

PAUSE_S = 30.0
STEP_TIMEOUT_S = 30.0
QUARANTINE_WARN_SIZE = 1_000
"""From so many customer events in quarantine on it is worth a line in the log, and an alert."""

_HOUR = timedelta(hours=1)
_OUTCOMES = {
    name.removeprefix("RECEIPT_OUTCOME_").lower(): outcome
    for name, outcome in ReceiptOutcome.items()
    if outcome
}

_log = structlog.get_logger(__name__)


class EventsGauges:
    """What of customer events waits, and what became of those that came lately."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "rapport_quarantine_waiting",
            "Customer events in quarantine, in all workspaces",
            registry=registry,
        )
        self.oldest_age_s = Gauge(
            "rapport_quarantine_oldest_age_seconds",
            "How long the oldest customer event has been in quarantine; 0 when there is none",
            registry=registry,
        )
        self.outcomes = Gauge(
            "rapport_customer_events_lately",
            "Customer events that came in this hour and the one before, by outcome",
            ("outcome",),
            registry=registry,
        )


class GaugesUpkeep:
    """Tells the numbers. `run` it as a task."""

    def __init__(self, kernel: Kernel, gauges: EventsGauges) -> None:
        self._kernel = kernel
        self._gauges = gauges
        self._is_large = False

    async def run(self) -> None:
        """Looks every PAUSE_S; what cannot be read is told as it was."""
        while True:
            try:
                async with asyncio.timeout(STEP_TIMEOUT_S):
                    await self.step()
            except DATABASE_FAILURES as failure:
                _log.warning("gauges.wait", problem=repr(failure))
            await asyncio.sleep(PAUSE_S)

    async def step(self) -> None:
        """Looks once."""
        found = await waiting(self._kernel.pool)
        age_s = 0.0
        if found.oldest_time is not None:
            age_s = (self._kernel.clock.now() - found.oldest_time).total_seconds()
        self._gauges.waiting.set(found.number)
        self._gauges.oldest_age_s.set(max(age_s, 0.0))
        # All that ever came would take longer to sum up with each day.
        hour = self._kernel.clock.now().replace(minute=0, second=0, microsecond=0)
        lately = await totals(self._kernel.pool, hour - _HOUR)
        for name, outcome in _OUTCOMES.items():
            self._gauges.outcomes.labels(name).set(lately.get(outcome, 0))
        self._warn(found.number)

    def _warn(self, number: int) -> None:
        """One line when the number crosses the limit, in either direction."""
        was_large, self._is_large = self._is_large, number >= QUARANTINE_WARN_SIZE
        if self._is_large and not was_large:
            _log.warning("quarantine.large", waiting=number, limit=QUARANTINE_WARN_SIZE)
        elif was_large and not self._is_large:
            _log.info("quarantine.small_again", waiting=number, limit=QUARANTINE_WARN_SIZE)
