"""Following a service's own log as it grows, for server streams that watch it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.kernel.caller import draining
from services.kernel.log import read_heads, read_partition
from services.kernel.recorded import EventTypes, Recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncpg import Pool

# A notification may be missed while its connection is away.
SAFETY_POLL_S = 1.0


class Follower:
    """Hands out new events of the log to any number of watchers."""

    def __init__(self, pool: Pool, event_types: EventTypes) -> None:
        """Reads from the database; `wake` says when to look."""
        self._pool = pool
        self._event_types = event_types
        self._watchers: set[asyncio.Event] = set()

    def wake(self, _payload: str | None = None) -> None:
        """Say that the log may have grown."""
        for watcher in self._watchers:
            watcher.set()

    async def follow(
        self, workspace: str, after: dict[int, int] | None
    ) -> AsyncIterator[tuple[list[Recorded], dict[int, int]]]:
        """A workspace's events in batches, each with the position reached per partition.

        `after` says where to go on; None starts at the log's present end. Ends when the
        server drains.
        """
        with self._watching() as grown:
            reached = dict(after) if after is not None else await read_heads(self._pool)
            for partition in await read_heads(self._pool):
                reached.setdefault(partition, 0)
            while not draining().is_set():
                grown.clear()
                found = await self._read(reached)
                own = [event for event in found if event.workspace == workspace]
                if own:
                    yield own, dict(reached)
                if not found:
                    await _wait(grown, draining())

    async def _read(self, reached: dict[int, int]) -> list[Recorded]:
        """What is new in each partition; moves `reached`."""
        events: list[Recorded] = []
        for partition, position in reached.items():
            batch = await read_partition(self._pool, partition, after=position)
            if batch:
                reached[partition] = batch[-1].position
            events += [self._event_types.decode(envelope) for envelope in batch]
        return events

    @contextmanager
    def _watching(self) -> Iterator[asyncio.Event]:
        grown = asyncio.Event()
        self._watchers.add(grown)
        try:
            yield grown
        finally:
            self._watchers.discard(grown)


async def _wait(*events: asyncio.Event) -> None:
    """Until one of the events is set, or it is time to look anyway."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=SAFETY_POLL_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
