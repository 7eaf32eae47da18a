"""What tests of Rapport and of programs on it need: waiting without sleeping a guess."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

FIRST_PAUSE_S = 0.005
PAUSE_MAX_S = 0.1

T = TypeVar("T")


async def eventually(
    assertion: Callable[[], T] | Callable[[], Awaitable[T]], *, within_s: float = 5.0
) -> T:
    """Repeats an assertion (sync or async) until it holds and returns its result.

    When the time is over the last AssertionError is raised; any other error is raised at once.
    """
    deadline = time.monotonic() + within_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            result = assertion()
            return await result if inspect.isawaitable(result) else result
        except AssertionError:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MAX_S)
