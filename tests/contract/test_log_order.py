"""Many processes append while one follows: positions are dense, and the follower misses nothing.

The head lock is what does it. Both failures that it prevents are shown without it: two events on
one position, and an event that appears behind a follower's back.
"""

import asyncio
import sys
from datetime import UTC, datetime

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from services.kernel.clock import SystemClock, new_ids
from services.kernel.log.log import (
    COPY_SIZE_MIN,
    Append,
    Head,
    Log,
    NewEvent,
    Origin,
    read_partition,
)
from services.kernel.log.tables import create_kernel_tables

ORIGIN = Origin("acme", "tests", "", "")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
PROCESSES = 3
APPENDS_EACH = 120
# Small appends go in as arrays, large ones by COPY: both are in the race.
SIZES = (1, 2, COPY_SIZE_MIN - 1, COPY_SIZE_MIN, COPY_SIZE_MIN * 2)

WRITER = """
import asyncio, random, sys
import asyncpg
from google.protobuf.wrappers_pb2 import StringValue
from services.kernel.clock import SystemClock, new_ids
from services.kernel.log.log import Append, Log, NewEvent, Origin

async def write(pool, log, name, appends, sizes, dice):
    for number in range(appends):
        events = [NewEvent(StringValue(value=str(n))) for n in range(dice.choice(sizes))]
        append = Append(Origin("acme", "tests", "", ""), f"box-{name}-{number}", events)
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await log.append(connection, [append])
            if dice.random() < 0.1:
                await transaction.rollback()
            else:
                await transaction.commit()

async def main(url, name, appends, *sizes):
    log = Log(service="boxes", partitions=1, clock=SystemClock(), new_ids=new_ids)
    dice = random.Random(name)
    sizes = [int(size) for size in sizes]
    async with asyncpg.create_pool(url, min_size=3, max_size=3) as pool:
        names = [f"{name}-{number}" for number in range(3)]
        each = int(appends) // len(names)
        await asyncio.gather(*(write(pool, log, name, each, sizes, dice) for name in names))

asyncio.run(main(*sys.argv[1:]))
"""


class UnguardedLog(Log):
    """A log that reads its heads without locking them."""

    async def lock_heads(self, tx, _partitions):
        rows = await tx.fetch(
            "select partition, position, greatest(record_time, 'epoch') as record_time "
            "from kernel.heads"
        )
        return {row["partition"]: Head(row["position"], row["record_time"]) for row in rows}


class SequenceLog(Log):
    """A log that takes its positions from a sequence, as most do."""

    async def lock_heads(self, tx, _partitions):
        return {0: Head(await tx.fetchval("select nextval('positions')") - 1, LONG_AGO)}


@pytest.fixture
async def pool(database):
    async with asyncpg.create_pool(database, min_size=1, max_size=6) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 1)
        yield pool


class Follower:
    """Reads a partition from where it is, as every consumer does: it never looks back."""

    def __init__(self, pool):
        self._pool = pool
        self.seen = []

    async def look(self):
        reached = self.seen[-1] if self.seen else 0
        batch = await read_partition(self._pool, 0, after=reached)
        self.seen += [envelope.position for envelope in batch]
        return len(batch)


def log_of(kind):
    return kind(service="boxes", partitions=1, clock=SystemClock(), new_ids=new_ids)


def one_event(stream):
    return [Append(ORIGIN, stream, [NewEvent(StringValue(value=stream))])]


async def test_a_follower_of_many_writing_processes_misses_nothing(pool, database):
    arguments = [str(APPENDS_EACH), *(str(size) for size in SIZES)]
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, database, f"writer-{number}", *arguments
        )
        for number in range(PROCESSES)
    ]
    written = asyncio.gather(*(writer.wait() for writer in writers))
    follower = Follower(pool)
    looks = 0
    while not written.done():
        looks += bool(await follower.look())

    assert [0] * PROCESSES == await written
    while await follower.look():
        pass
    total = await pool.fetchval("select count(*) from kernel.events")
    assert list(range(1, total + 1)) == follower.seen
    assert total == await pool.fetchval("select position from kernel.heads")
    assert total > PROCESSES * APPENDS_EACH / 2
    assert looks > 20  # it was a race


async def test_whoever_comes_second_waits_for_the_first_to_end(pool):
    log = log_of(Log)
    async with pool.acquire() as first, pool.acquire() as second:
        held = first.transaction()
        await held.start()
        heads = await log.lock_heads(first, {0})
        waiting = asyncio.create_task(_append(second, log, "box-2"))
        await _append_under(first, log, "box-1", heads)
        assert not waiting.done()
        await held.commit()
        await waiting

    assert ["box-1", "box-2"] == [e.stream for e in await read_partition(pool, 0, after=0)]


async def test_without_the_head_lock_two_events_want_one_position(pool):
    log = log_of(UnguardedLog)
    async with pool.acquire() as first, pool.acquire() as second:
        held = first.transaction()
        await held.start()
        heads = await log.lock_heads(first, {0})
        heads_of_the_second = await log.lock_heads(second, {0})
        await _append_under(first, log, "box-1", heads)
        await held.commit()

        assert heads == heads_of_the_second
        with pytest.raises(asyncpg.UniqueViolationError):
            await _append_under(second, log, "box-2", heads_of_the_second)


async def test_without_the_head_lock_a_follower_misses_an_event(pool):
    await pool.execute("create sequence positions")
    log, follower = log_of(SequenceLog), Follower(pool)
    async with pool.acquire() as slow, pool.acquire() as fast:
        held = slow.transaction()
        await held.start()
        heads = await log.lock_heads(slow, {0})
        await _append(fast, log, "box-fast")
        await follower.look()
        await _append_under(slow, log, "box-slow", heads)
        await held.commit()
    await follower.look()

    assert [1, 2] == [e.position for e in await read_partition(pool, 0, after=0)]
    assert [2] == follower.seen


async def _append(connection, log, stream):
    async with connection.transaction():
        await log.append(connection, one_event(stream))


async def _append_under(connection, log, stream, heads):
    await log.append_under_lock(connection, one_event(stream), heads, {})
