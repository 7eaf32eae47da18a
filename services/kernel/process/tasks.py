"""The tasks of a process: each runs until the end, and one that dies is alarmed and counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry, Counter

if TYPE_CHECKING:
    from collections.abc import Coroutine

CANCEL_PAUSE_S = 1.0
CANCEL_TIMEOUT_S = 10.0

_log = structlog.get_logger(__name__)


class Tasks:
    """What runs until `cancel`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._died = Counter("rapport_task_died", "Tasks that failed", ("kind",), registry=registry)
        self._tasks: list[asyncio.Task[None]] = []

    def spawn(
        self, kind: str, work: Coroutine[Any, Any, None], which: str = ""
    ) -> asyncio.Task[None]:
        """Run a coroutine; when it fails that is alarmed, and the others go on."""
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"{kind} {which}".rstrip())
        died = self._died.labels(kind)

        def alarm(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                died.inc()
                _log.error("task.died", task=task.get_name(), exc_info=task.exception())

        task.add_done_callback(alarm)
        self._tasks.append(task)
        return task

    async def cancel(self) -> None:
        """Cancel all and wait until they have ended, `CANCEL_TIMEOUT_S` at most.

        A library may lose a cancellation: `asyncio.wait_for` of Python 3.11 does when what it
        waits for ends at the same moment. So who goes on is cancelled again.
        """
        running = {task for task in self._tasks if not task.done()}
        times = 0
        while running and times * CANCEL_PAUSE_S < CANCEL_TIMEOUT_S:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=CANCEL_PAUSE_S)
            times += 1
        for task in running:
            _log.error("task.not_cancelled", task=task.get_name())
