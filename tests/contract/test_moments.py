"""A moment is sealed before it is read, so what is read of it never changes.

Two tests show what goes wrong without the seal.
"""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import set_timestamp, storable, utc
from services.kernel.testing import eventually
from services.kernel.views.as_of import read_moment
from tests.boxes_world import (
    NOON,
    SECOND,
    TICK,
    DatedRequest,
    put,
    world_of,
)

IN_FLIGHT = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"


@pytest.fixture
async def world(database):
    async with world_of(database) as world:
        yield world


async def test_who_says_no_moment_asks_about_now(world):
    assert await world.seal(None) is None


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (DatedRequest(NOON + TICK), "lies in the future"),
        (DatedRequest(timestamp=Timestamp(seconds=2**60)), "lies outside the calendar"),
        (DatedRequest(timestamp=Timestamp(seconds=-(2**60))), "lies outside the calendar"),
    ],
)
async def test_the_future_and_what_no_calendar_has_are_refused(world, request_, told):
    with pytest.raises(InvalidArgument, match=told) as refused:
        await read_moment(world.pool, world.clock, request_)

    assert ["read_time"] == [violation.field for violation in refused.value.violations]


async def test_now_is_not_the_future_and_the_oldest_time_is_a_moment(world):
    oldest = datetime(1, 1, 1, tzinfo=UTC)

    assert [NOON, oldest] == [await world.seal(NOON), await world.seal(oldest)]


async def test_what_a_replica_recorded_whose_clock_is_ahead_is_not_the_future(world):
    world.clock.advance(SECOND)
    time = await world.record(a=put("hat"))
    world.clock.set(NOON)

    assert time == await world.seal(time)
    with pytest.raises(InvalidArgument, match="future"):
        await world.seal(time + TICK)


@contextlib.asynccontextmanager
async def appending(world):
    """An append is in flight: it has its time of recording, and nobody sees it yet."""
    connection = await world.pool.acquire()
    begun = connection.transaction()
    await begun.start()
    time = await world.append(connection, a=put("hat"))

    async def commit():
        await begun.commit()
        await world.pool.release(connection)

    yield time, commit


async def test_a_moment_waits_for_the_append_that_is_recorded_before_it(world):
    async with appending(world) as (time, commit):
        world.clock.advance(SECOND)
        sealing = asyncio.create_task(world.seal(world.clock.now()))
        await eventually(lambda: _is_waiting(world.pool))
        is_done_before = sealing.done()
        await commit()

    moment = await sealing
    assert not is_done_before
    assert time < moment
    assert ("hat",) == await world.at(moment)


async def test_without_the_seal_the_past_changes_under_who_reads_it(world):
    async with appending(world) as (_, commit):
        moment = NOON + SECOND
        before = await world.at(moment)
        await commit()

    assert (None, ("hat",)) == (before, await world.at(moment))


async def test_what_comes_after_a_moment_is_recorded_later_though_the_clock_is_behind(world):
    moment = await world.seal(NOON)
    world.clock.set(NOON - timedelta(hours=1))

    time = await world.record(a=put("hat"))

    assert moment + TICK == time
    assert await world.at(moment) is None


async def test_without_the_seal_a_clock_that_is_behind_writes_into_the_past(world):
    before = await world.at(NOON)
    world.clock.set(NOON - timedelta(hours=1))

    await world.record(a=put("hat"))

    assert (None, ("hat",)) == (before, await world.at(NOON))


async def test_every_partition_is_sealed_and_a_sealed_moment_is_not_written_again(database):
    async with world_of(database, partitions=3) as world:
        await world.record(a=put("hat"))
        moment = await world.seal(NOON)
        sealed = await _heads(world.pool)
        await world.seal(moment)
        await world.seal(moment - SECOND)

        assert sealed == await _heads(world.pool)
        assert [NOON] * 3 == [time for _, time, _ in sealed]
        world.clock.set(NOON - SECOND)
        times = [await world.record(**{box: put("hat")}) for box in "abcdefgh"]
        assert all(moment < time for time in times)


async def test_the_infinities_of_the_driver_are_the_ends_of_the_calendar(world):
    """They have no time zone, and it writes the first and the last moment of all as they."""
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]

    written = await world.pool.fetch(
        "select moment, isfinite(moment) as is_finite from unnest($1::timestamptz[]) as moment",
        ends,
    )

    assert [False, False] == [row["is_finite"] for row in written]
    for end, row in zip(ends, written, strict=True):
        timestamp = Timestamp()
        set_timestamp(timestamp, row["moment"])
        assert end == utc(timestamp)
        with pytest.raises(OverflowError):
            storable(timestamp)


async def _heads(pool):
    rows = await pool.fetch(
        "select partition, record_time, xmin::text from kernel.heads order by partition"
    )
    return [tuple(row) for row in rows]


async def _is_waiting(pool):
    assert await pool.fetchval(IN_FLIGHT) == 1
