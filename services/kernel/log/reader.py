"""Reads a partition of the service's own log in order, as views that follow it do.

It reads what a feed's reader reads, with nobody between: the view of a service's own log depends on
no relay and no NATS. What was just appended here comes from memory, as it was appended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from services.kernel.log.bell import heard_within
from services.kernel.log.log import read_partition
from services.kernel.log.pace import pause_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool

    from services.kernel.log.log import Log
    from services.kernel.log.recorded import Logged

# A notification may be missed while its connection is away.
SAFETY_POLL_S = 1.0
READ_TIMEOUT_S = 10.0


class LogReader:
    """Reads from a position on. For one task at a time."""

    def __init__(self, pool: Pool, log: Log, *, partition: int, after_position: int) -> None:
        self._pool = pool
        self._log = log
        self._partition = partition
        self._position = after_position
        self._pauses_until_s = 0.0
        self._rings_before = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """There is nothing to close; a feed's reader has something."""

    @property
    def position(self) -> int:
        """The position of the last event handed out."""
        return self._position

    async def next_batch(self, *, max_events: int, max_wait_s: float) -> Sequence[Logged]:
        """The next events, as many as there are; none when the time is over.

        In a burst it waits for more of them, unless they are wanted. Raises what the driver raises.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + max_wait_s
        await self._pause(min(self._pauses_until_s, deadline_s) - loop.time())
        with self._log.grown.listening() as grown:
            while True:
                grown.clear()
                self._rings_before = self._log.wanted.rings
                batch = await self._read(max_events)
                if batch:
                    self._position = batch[-1].position
                    self._pauses_until_s = loop.time() + pause_after(len(batch), max_events)
                    return batch
                left_s = deadline_s - loop.time()
                if left_s <= 0:
                    return []
                await heard_within(grown, min(left_s, SAFETY_POLL_S))

    async def _pause(self, pause_s: float) -> None:
        """Waits, unless somebody has wanted something since the last batch was read."""
        if pause_s > 0 and self._log.wanted.rings == self._rings_before:
            with self._log.wanted.listening() as wanted:
                await heard_within(wanted, pause_s)

    async def _read(self, limit: int) -> Sequence[Logged]:
        recent = self._log.recent.after(self._partition, self._position, limit)
        if recent:
            return recent
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await read_partition(
                self._pool, self._partition, after=self._position, limit=limit
            )
