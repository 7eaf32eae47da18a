"""A turn that takes longer than a call goes on, and whoever asks next hears what became of it."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.kernel.erasing.subjects import Erasure, FactKey, Subject
from services.kernel.erasing.turns import Turns

KEY = FactKey(datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1))
LONG_S = 60.0


class Slow:
    """Erases as soon as it may, and counts how often it was told to."""

    def __init__(self):
        self.begun = 0
        self.may = asyncio.Event()
        self.failure = None
        self.ended = asyncio.Event()

    async def take_steps(self, _erasure):
        self.begun += 1
        try:
            await self.may.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.ended.set()
        return "done"

    async def progress(self, _erasure):
        return "at it"


def erasure(*emails):
    return Erasure(
        "erasures/1", Subject.of("acme", b"key", [("email", each) for each in emails]), KEY
    )


async def test_a_step_that_takes_longer_than_a_call_is_not_begun_anew():
    slow = Slow()
    turns = Turns(slow)
    early = [await turns.take(erasure("a@b.c"), answer_s=0) for _ in range(3)]
    slow.may.set()

    assert ["at it"] * 3 == early
    assert "done" == await turns.take(erasure("a@b.c"), answer_s=LONG_S)
    assert 1 == slow.begun


async def test_a_call_that_is_given_up_leaves_its_turn_alone():
    slow = Slow()
    turns = Turns(slow)
    call = asyncio.create_task(turns.take(erasure("a@b.c"), answer_s=LONG_S))
    await turns.take(erasure("a@b.c"), answer_s=0)
    call.cancel()
    await asyncio.wait({call})
    slow.may.set()

    assert "done" == await turns.take(erasure("a@b.c"), answer_s=LONG_S)
    assert 1 == slow.begun


async def test_what_a_turn_failed_at_is_told_once_and_the_next_one_is_taken():
    slow = Slow()
    turns = Turns(slow)
    slow.failure = TimeoutError("too long")
    await turns.take(erasure("a@b.c"), answer_s=0)
    slow.may.set()
    with pytest.raises(TimeoutError, match="too long"):
        await turns.take(erasure("a@b.c"), answer_s=LONG_S)
    slow.failure = None

    assert "done" == await turns.take(erasure("a@b.c"), answer_s=LONG_S)


async def test_an_erasure_of_more_has_a_turn_of_its_own_and_all_end_with_the_process():
    slow = Slow()
    turns = Turns(slow)
    running = asyncio.create_task(turns.run())
    await turns.take(erasure("a@b.c"), answer_s=0)
    await turns.take(erasure("a@b.c", "d@e.f"), answer_s=0)
    running.cancel()
    await asyncio.wait({running})

    assert 2 == slow.begun
    assert slow.ended.is_set()
