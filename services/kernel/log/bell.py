"""The bell of a process: rung on each news from the database, heard by whoever waits for some.

It does not say what happened: who hears it looks for himself.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bell:
    """Rung when the own log grew or a checkpoint moved, in whichever process."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Event] = set()
        # Who was too busy to listen learns by it whether there was a ring.
        self.rings = 0

    def ring(self, _payload: str | None = None) -> None:
        """Wakes all who listen."""
        self.rings += 1
        for heard in self._listeners:
            heard.set()

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that each ring sets; who waits for it clears it before he looks."""
        heard = asyncio.Event()
        self._listeners.add(heard)
        try:
            yield heard
        finally:
            self._listeners.discard(heard)


async def heard_within(heard: asyncio.Event, wait_s: float) -> None:
    """Waits for a ring; goes on without one when the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await heard.wait()
