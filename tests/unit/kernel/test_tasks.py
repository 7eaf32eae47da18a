"""The tasks of a process end when they are cancelled, whoever loses a cancellation on the way."""

import asyncio
from contextlib import suppress

import pytest

from services.kernel.process import tasks as tasks_module
from services.kernel.process.metrics import new_registry
from services.kernel.process.tasks import Tasks


@pytest.fixture
def tasks(monkeypatch):
    monkeypatch.setattr(tasks_module, "CANCEL_PAUSE_S", 0.01)
    monkeypatch.setattr(tasks_module, "CANCEL_TIMEOUT_S", 0.1)
    return Tasks(new_registry())


async def losing(times):
    """Goes on after so many cancellations."""
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_who_loses_a_cancellation_is_cancelled_again(tasks, times):
    task = tasks.spawn("work", losing(times))
    await asyncio.wait([task], timeout=0.01)

    await tasks.cancel()

    assert task.cancelled()


async def test_who_never_ends_holds_nobody_up_for_ever(tasks):
    let_go = asyncio.Event()

    async def stubborn():
        """Goes on until it is let go, however often it is cancelled."""
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()

    task = tasks.spawn("work", stubborn())
    other = tasks.spawn("work", losing(1))
    await asyncio.wait([task], timeout=0.01)

    async with asyncio.timeout(5):
        await tasks.cancel()

    assert (False, True) == (task.done(), other.cancelled())
    let_go.set()
    await task


async def test_what_ended_before_is_left_alone(tasks):
    async def nothing():
        """Ends at once."""

    task = tasks.spawn("work", nothing())
    await task

    await tasks.cancel()

    assert not task.cancelled()
