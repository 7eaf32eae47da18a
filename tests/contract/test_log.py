"""The log: dense positions in order of visibility, versions as expected, and facts nobody edits."""

import asyncio
import asyncio.subprocess
import sys
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from google.protobuf import wrappers_pb2
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

from services.kernel.clock import FixedClock, SystemClock, new_ids
from services.kernel.errors import Aborted, Reason, ResourceExhausted
from services.kernel.log import log as log_module
from services.kernel.log.log import (
    ANY_VERSION,
    COPY_SIZE_MIN,
    EVENTS_PER_APPEND_MAX,
    MICROSECOND,
    NO_STREAM,
    Append,
    Log,
    NewEvent,
    Origin,
    read_all,
    read_heads,
    read_partition,
    read_stream,
)
from services.kernel.log.recorded import EventTypes, utc
from services.kernel.log.rows import EVENT_BYTES_MAX
from services.kernel.log.tables import PartitionCountError, create_kernel_tables
from services.kernel.testing import eventually

ORIGIN = Origin("acme", "tests", "correlation", "causation")
OTHER = Origin("other", "tests", "correlation", "causation")


def make_log(partitions=1):
    return Log(service="boxes", partitions=partitions, clock=SystemClock(), new_ids=new_ids)


@pytest.fixture
async def pool(database):
    async with asyncpg.create_pool(database, min_size=1, max_size=8) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 1)
        yield pool


def facts(*values):
    return [NewEvent(StringValue(value=value)) for value in values]


async def append(pool, *appends, log=None):
    async with pool.acquire() as connection, connection.transaction():
        return await (log or make_log()).append(connection, appends)


async def positions(pool, partition=0):
    head = (await read_heads(pool))[partition]
    batches = [batch async for batch in read_all(pool, partition, after=0, until=head)]
    return [envelope.position for batch in batches for envelope in batch], head


async def test_an_append_takes_the_next_versions_and_positions(pool):
    await append(pool, Append(ORIGIN, "box-1", facts("a", "b")))

    landed = await append(
        pool, Append(ORIGIN, "box-2", facts("c")), Append(ORIGIN, "box-1", facts("d"))
    )

    assert [("box-2", 1, 3), ("box-1", 3, 4)] == [
        (event.stream, event.version, event.position) for event in landed.events
    ]
    assert {0: 4} == landed.heads == await read_heads(pool)


async def test_one_append_may_name_a_stream_twice(pool):
    landed = await append(
        pool, Append(ORIGIN, "box-1", facts("a"), NO_STREAM), Append(ORIGIN, "box-1", facts("b"), 1)
    )

    assert [1, 2] == [event.version for event in landed.events]


@pytest.mark.parametrize("expected", [NO_STREAM, 1, 2, ANY_VERSION])
@pytest.mark.parametrize("existing", [0, 1, 2])
async def test_only_the_expected_version_is_appended_to(pool, existing, expected):
    await append(pool, Append(ORIGIN, "box-1", facts(*"abc"[:existing])))

    appending = append(pool, Append(ORIGIN, "box-1", facts("new"), expected))

    if expected in {ANY_VERSION, existing}:
        assert existing + 1 == (await appending).events[0].version
    else:
        with pytest.raises(Aborted) as refusal:
            await appending
        assert Reason.CONFLICT == refusal.value.reason
    assert (await positions(pool))[0] == list(range(1, (await positions(pool))[1] + 1))


async def test_the_same_stream_name_in_another_workspace_is_another_stream(pool):
    await append(pool, Append(ORIGIN, "box-1", facts("a")))

    landed = await append(pool, Append(OTHER, "box-1", facts("b"), NO_STREAM))

    assert 1 == landed.events[0].version
    assert [b"b"] == [
        StringValue.FromString(envelope.data).value.encode()
        for envelope in await read_stream(pool, "other", "box-1")
    ]


async def test_several_streams_are_appended_to_together_or_not_at_all(pool):
    await append(pool, Append(ORIGIN, "box-2", facts("b")))

    with pytest.raises(Aborted):
        await append(
            pool,
            Append(ORIGIN, "box-1", facts("a"), NO_STREAM),
            Append(ORIGIN, "box-2", facts("b"), NO_STREAM),
        )

    assert [] == await read_stream(pool, "acme", "box-1")
    assert ([1], 1) == await positions(pool)


async def test_nothing_to_append_appends_nothing(pool):
    landed = await append(pool, Append(ORIGIN, "box-1", []))

    assert ([], {}) == (landed.events, landed.heads)
    assert ([], {}) == ((await append(pool)).events, (await append(pool)).heads)
    assert {0: 0} == await read_heads(pool)


async def test_an_event_is_read_back_as_it_was_appended(pool):
    landed = await append(pool, Append(ORIGIN, "box-1", facts("a")))
    (wrote,) = landed.events

    (read,) = await read_partition(pool, 0, after=0)

    assert (read.position, read.version, read.stream, read.workspace) == (1, 1, "box-1", "acme")
    assert (read.actor, read.correlation_id, read.causation_id) == (
        "tests",
        "correlation",
        "causation",
    )
    assert (read.event_id, read.type) == (str(wrote.event_id), "google.protobuf.StringValue")
    assert StringValue(value="a").SerializeToString() == read.data
    assert wrote.record_time.isoformat(timespec="microseconds") == (
        read.record_time.ToDatetime().isoformat(timespec="microseconds") + "+00:00"
    )
    assert read.occur_time == read.record_time


@pytest.mark.parametrize("count", [1, 2 * COPY_SIZE_MIN])
async def test_few_and_many_events_of_several_origins_are_kept_alike(pool, count):
    """Few are inserted, many are copied."""
    origins = (ORIGIN, OTHER, Origin("acme", "täst/ß", "", "𝄞"))
    times = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))

    def made(number):
        event = StringValue(value="x" * number)
        new = NewEvent(event, None if number % 3 == 0 else times[number % 2])
        return Append(origins[number // 2 % 3], f"box-é{number}", [new])

    landed = await append(pool, *(made(number) for number in range(count)))

    read = [EventTypes(wrappers_pb2).decode(e) for e in await read_partition(pool, 0, after=0)]
    assert landed.events == read
    assert count == len(read)


async def test_a_walk_reads_every_position_once_and_stops_where_it_was_told(pool, monkeypatch):
    monkeypatch.setattr(log_module, "READ_BATCH_SIZE", 3)
    await append(pool, Append(ORIGIN, "box-1", facts(*"abcdefghij")))

    batches = [batch async for batch in read_all(pool, 0, after=1, until=9)]

    assert [[2, 3, 4], [5, 6, 7], [8, 9]] == [
        [envelope.position for envelope in batch] for batch in batches
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "update kernel.events set data = 'x'",
        "delete from kernel.events",
        "delete from kernel.events where position = 1",
        "truncate kernel.events",
        "truncate kernel.events cascade",
    ],
)
async def test_facts_are_not_edited(pool, statement):
    await append(pool, Append(ORIGIN, "box-1", facts("a")))

    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await pool.execute(statement)

    assert ([1], 1) == await positions(pool)


async def test_as_many_events_as_the_limit_says_are_appended_and_not_one_more(pool):
    events = facts(*["a"] * EVENTS_PER_APPEND_MAX)
    landed = await append(pool, Append(ORIGIN, "box-1", events))
    assert EVENTS_PER_APPEND_MAX == len(landed.events)

    with pytest.raises(ResourceExhausted) as refusal:
        await append(pool, Append(ORIGIN, "box-1", events), Append(ORIGIN, "box-2", facts("a")))

    assert "EVENTS_PER_APPEND_MAX" == refusal.value.metadata["limit"]
    assert {0: EVENTS_PER_APPEND_MAX} == await read_heads(pool)


async def test_an_event_is_as_large_as_the_limit_says_and_not_a_byte_larger(pool):
    room = EVENT_BYTES_MAX - 4  # the tag and the length take four bytes
    largest, too_large = BytesValue(value=bytes(room)), BytesValue(value=bytes(room + 1))
    assert EVENT_BYTES_MAX == len(largest.SerializeToString())
    await append(pool, Append(ORIGIN, "box-1", [NewEvent(largest)]))

    with pytest.raises(ResourceExhausted) as refusal:
        await append(pool, Append(ORIGIN, "box-1", [NewEvent(too_large)]))

    assert "EVENT_BYTES_MAX" == refusal.value.metadata["limit"]
    assert ([1], 1) == await positions(pool)


async def test_a_reader_never_sees_a_position_before_all_lower_ones(pool):
    writers = [asyncio.create_task(_append_many(pool, f"box-{n}", 40)) for n in range(6)]
    reached = 0
    while not all(writer.done() for writer in writers):
        batch = await read_partition(pool, 0, after=reached)
        assert [e.position for e in batch] == list(range(reached + 1, reached + 1 + len(batch)))
        reached += len(batch)
    await asyncio.gather(*writers)

    assert (list(range(1, 241)), 240) == await positions(pool)


async def test_without_the_lock_writers_would_meet_at_one_position(pool, monkeypatch):
    """The primary key is the last guard: what the lock prevents, it refuses."""
    monkeypatch.setattr(log_module, "_LOCK_HEADS", log_module._LOCK_HEADS.replace("for update", ""))
    found = await asyncio.gather(
        *(_append_many(pool, f"box-{n}", 20) for n in range(6)), return_exceptions=True
    )

    assert any(isinstance(failure, asyncpg.UniqueViolationError) for failure in found)
    seen, head = await positions(pool)
    assert list(range(1, head + 1)) == seen


async def _append_many(pool, stream, count):
    for number in range(count):
        await append(pool, Append(ORIGIN, stream, facts(str(number)), expected_version=number))


async def test_positions_taken_before_the_lock_would_be_skipped_by_readers(pool):
    """What the head lock is for: a sequence hands out positions that show out of order."""
    await pool.execute("create sequence position")
    await pool.execute("create table loose (position bigint primary key)")
    insert = "insert into loose select nextval('position') returning position"
    async with pool.acquire() as slow, pool.acquire() as fast:
        held = slow.transaction()
        await held.start()
        first = await slow.fetchval(insert)
        second = await fast.fetchval(insert)
        seen = [row["position"] for row in await pool.fetch("select position from loose")]
        await held.commit()

    assert (1, 2) == (first, second)
    assert [2] == seen  # a reader that goes on after 2 never sees 1


APPENDING_PROCESS = """
import asyncio, sys
import asyncpg
from google.protobuf.wrappers_pb2 import StringValue
from services.kernel.clock import SystemClock, new_ids
from services.kernel.log.log import Append, Log, NewEvent, Origin

async def main(url, stream, count):
    log = Log(service="boxes", partitions=1, clock=SystemClock(), new_ids=new_ids)
    origin = Origin("acme", "tests", "", "")
    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool:
        for number in range(count):
            async with pool.acquire() as connection, connection.transaction():
                event = NewEvent(StringValue(value=str(number)))
                await log.append(connection, [Append(origin, stream, [event], number)])

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_processes_share_a_log_without_gap_or_twin(pool, database):
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", APPENDING_PROCESS, database, f"box-{number}", "60"
        )
        for number in range(3)
    ]

    assert [0, 0, 0] == [await process.wait() for process in processes]
    assert (list(range(1, 181)), 180) == await positions(pool)


async def test_a_log_in_partitions_is_dense_in_each(database):
    log = make_log(partitions=3)
    async with asyncpg.create_pool(database, min_size=1, max_size=8) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 3)
        streams = [f"box-{number}" for number in range(30)]
        await asyncio.gather(
            *(append(pool, Append(ORIGIN, s, facts("a")), log=log) for s in streams)
        )
        landed = await append(pool, *(Append(ORIGIN, s, facts("b")) for s in streams), log=log)

        heads = await read_heads(pool)
        assert heads == landed.heads
        assert 60 == sum(heads.values())
        for partition, head in heads.items():
            assert head > 0
            assert (list(range(1, head + 1)), head) == await positions(pool, partition)
            assert all(
                log.partition_of(envelope.workspace, envelope.stream) == partition
                for envelope in await read_partition(pool, partition, after=0)
            )


def test_a_stream_stays_in_its_partition_for_ever():
    """These numbers are in databases: they may never change."""
    log = make_log(partitions=8)
    assert [7, 5, 7] == [
        log.partition_of("acme", "box-1"),
        log.partition_of("acme", "box-2"),
        log.partition_of("other", "box-1"),
    ]


@pytest.mark.parametrize(("born_with", "started_with"), [(1, 2), (3, 1), (3, 4)])
async def test_a_log_is_not_opened_with_another_number_of_partitions(
    database, born_with, started_with
):
    connection = await asyncpg.connect(database)
    try:
        await create_kernel_tables(connection, born_with)
        await create_kernel_tables(connection, born_with)
        with pytest.raises(PartitionCountError):
            await create_kernel_tables(connection, started_with)
        assert born_with == len(await read_heads(connection))
    finally:
        await connection.close()


async def test_tables_are_made_by_several_processes_at_once_while_others_append(pool, database):
    writers = [asyncio.create_task(_append_many(pool, f"box-{n}", 20)) for n in range(3)]
    starters = [await asyncpg.connect(database) for _ in range(4)]
    try:
        await asyncio.gather(*(create_kernel_tables(starter, 1) for starter in starters))
        await asyncio.gather(*writers)
    finally:
        for starter in starters:
            await starter.close()

    assert (list(range(1, 61)), 60) == await positions(pool)


async def test_listeners_are_told_of_each_append(pool, database):
    heard = []
    listener = await asyncpg.connect(database)
    try:
        await listener.add_listener("appended", lambda *args: heard.append(args[-1]))
        await append(pool, Append(ORIGIN, "box-1", facts("a", "b")))
        await listener.execute("select 1")

        def assert_told():
            assert ["0:2"] == heard

        await eventually(assert_told)
    finally:
        await listener.close()


async def test_times_grow_with_positions_also_when_a_clock_is_behind(pool):
    """A replica whose clock is behind records just after what was recorded before."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for minutes_behind in (0, 5, 5):
        clock = FixedClock(noon - timedelta(minutes=minutes_behind))
        log = Log(service="boxes", partitions=1, clock=clock, new_ids=new_ids)
        await append(pool, Append(ORIGIN, "box-1", facts("x")), log=log)

    times = [utc(event.record_time) for event in await read_partition(pool, 0, after=0)]

    assert [noon, noon + MICROSECOND, noon + 2 * MICROSECOND] == times
