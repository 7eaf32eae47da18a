"""Turns: steps of erasures that go on when whoever asked for them cannot wait any longer.

A step may take longer than any call: a look through a log, or through a large file. If it ended
with the call it would begin anew with the next one, and never be done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.kernel.erasing.erasing import Erasing
    from services.kernel.erasing.register import Progress
    from services.kernel.erasing.subjects import Erasure

# How long a call waits for the turn that it asked for.
ANSWER_S = 10.0

_Key = tuple[str, str, frozenset[str]]


class Turns:
    """The turns that a process is at. `run` it as a task: with it they end."""

    def __init__(self, erasing: Erasing) -> None:
        self._erasing = erasing
        self._taken: dict[_Key, asyncio.Task[Progress]] = {}

    async def run(self) -> None:
        """Waits until it is cancelled, and ends every turn."""
        try:
            await asyncio.Event().wait()
        finally:
            turns = list(self._taken.values())
            for turn in turns:
                turn.cancel()
            await asyncio.gather(*turns, return_exceptions=True)

    async def take(self, erasure: Erasure, answer_s: float = ANSWER_S) -> Progress:
        """Goes on with an erasure, or hears of the turn that does; tells how far it has got.

        Raises what a turn raised, to whoever asks first after it.
        """
        key = erasure.workspace, erasure.name, erasure.subject.hashes
        turn = self._taken.get(key)
        if turn is None:
            turn = asyncio.create_task(self._erasing.take_steps(erasure))
            turn.add_done_callback(_heard)
            self._taken[key] = turn
        await asyncio.wait({turn}, timeout=answer_s)
        if not turn.done():
            return await self._erasing.progress(erasure)
        if self._taken.get(key) is turn:
            del self._taken[key]
        return turn.result()


def _heard(turn: asyncio.Task[Progress]) -> None:
    """Nobody may ever ask again: then there is nothing to complain about."""
    if not turn.cancelled():
        turn.exception()
