"""The own log is read in order and at once, from memory or from the database alike."""

import asyncio

import asyncpg
import pytest

from services.kernel.log.log import read_partition
from services.kernel.log.pace import BURST_SIZE_MIN
from services.kernel.log.reader import LogReader
from services.kernel.log.tables import create_kernel_tables
from tests.box_world import running_log
from tests.tallies import TEXTS, text_log, texts


@pytest.fixture
async def pool(database):
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 1)
        yield pool


async def append(pool, log, *values, keep=True):
    async with pool.acquire() as connection, connection.transaction():
        landed = await log.append(connection, [texts("thing-1", *values)])
    if keep:
        log.recent.keep(landed.events, 10)
    return landed.events


def reader_of(pool, log, after=0):
    return LogReader(pool, log, partition=0, after_position=after)


async def test_what_comes_from_memory_is_what_the_database_would_give(pool):
    log = text_log()
    await append(pool, log, "a", "b", "c")
    reader = reader_of(pool, log)

    batch = await reader.next_batch(max_events=10, max_wait_s=0)

    assert [TEXTS.decode(e) for e in await read_partition(pool, 0, after=0)] == batch
    assert 3 == reader.position


async def test_what_others_appended_in_between_is_read_from_the_log(pool):
    log, other = text_log(), text_log()
    await append(pool, log, "a", "b")
    await append(pool, other, "c", keep=False)
    await append(pool, log, "d")
    reader = reader_of(pool, log)

    found = []
    while batch := await reader.next_batch(max_events=1, max_wait_s=0):
        found += [TEXTS.decode(event).event.value for event in batch]

    assert ["a", "b", "c", "d"] == found


async def test_a_reader_waits_until_the_log_grows(pool):
    log = text_log()
    reader = reader_of(pool, log)
    waiting = asyncio.create_task(reader.next_batch(max_events=10, max_wait_s=30))
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()

    await append(pool, log, "a", keep=False)
    log.grown.ring()

    async with asyncio.timeout(10):
        assert [1] == [event.position for event in await waiting]


async def test_a_reader_looks_by_itself_when_it_is_not_told(pool, monkeypatch):
    monkeypatch.setattr("services.kernel.log.reader.SAFETY_POLL_S", 0.01)
    log = text_log()
    waiting = asyncio.create_task(reader_of(pool, log).next_batch(max_events=10, max_wait_s=30))

    await append(pool, log, "a", keep=False)

    async with asyncio.timeout(10):
        assert [1] == [event.position for event in await waiting]


async def after_a_burst(pool, log):
    """A reader that was handed as many events as make a burst, and one more in the log."""
    await append(pool, log, *"a" * BURST_SIZE_MIN)
    reader = reader_of(pool, log)
    await reader.next_batch(max_events=1000, max_wait_s=0)
    await append(pool, log, "b")
    return reader


async def test_in_a_burst_a_reader_pauses_but_not_for_long(pool, monkeypatch):
    monkeypatch.setattr("services.kernel.log.pace.PAUSE_S", 0.1)
    reader = await after_a_burst(pool, text_log())

    async with asyncio.timeout(10):
        batch = await reader.next_batch(max_events=1000, max_wait_s=30)

    assert [BURST_SIZE_MIN + 1] == [event.position for event in batch]


async def test_a_reader_who_is_wanted_pauses_no_longer(pool, monkeypatch):
    monkeypatch.setattr("services.kernel.log.pace.PAUSE_S", 60.0)
    log = text_log()
    reader = await after_a_burst(pool, log)
    waiting = asyncio.create_task(reader.next_batch(max_events=1000, max_wait_s=60))
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()

    log.wanted.ring()

    async with asyncio.timeout(10):
        assert [BURST_SIZE_MIN + 1] == [event.position for event in await waiting]


async def test_a_reader_who_was_wanted_while_he_was_busy_does_not_pause(pool, monkeypatch):
    monkeypatch.setattr("services.kernel.log.pace.PAUSE_S", 60.0)
    log = text_log()
    reader = await after_a_burst(pool, log)

    log.wanted.ring()

    async with asyncio.timeout(10):
        batch = await reader.next_batch(max_events=1000, max_wait_s=60)
    assert [BURST_SIZE_MIN + 1] == [event.position for event in batch]


async def test_a_reader_who_is_behind_does_not_pause(pool, monkeypatch):
    monkeypatch.setattr("services.kernel.log.pace.PAUSE_S", 60.0)
    log = text_log()
    await append(pool, log, *"a" * 2 * BURST_SIZE_MIN)
    reader = reader_of(pool, log)

    async with asyncio.timeout(10):
        sizes = [
            len(await reader.next_batch(max_events=BURST_SIZE_MIN, max_wait_s=60)) for _ in range(2)
        ]

    assert [BURST_SIZE_MIN, BURST_SIZE_MIN] == sizes


async def test_nothing_is_handed_out_when_the_time_is_over(pool):
    assert [] == await reader_of(pool, text_log()).next_batch(max_events=10, max_wait_s=0.01)


async def test_a_group_commit_keeps_what_it_committed_and_nothing_else(database):
    async with running_log(database) as world:
        calls = [world.put("1", "hat"), world.put("2", "forbidden"), world.put("3", "hat")]
        await asyncio.gather(*calls, return_exceptions=True)

        kept = world.log.recent.after(0, 0, 10)

        assert [(1, "box-1"), (2, "box-3")] == [(event.position, event.stream) for event in kept]
        logged = await read_partition(world.pool, 0, after=0)
        assert [event.event_id for event in logged] == [str(event.event_id) for event in kept]
