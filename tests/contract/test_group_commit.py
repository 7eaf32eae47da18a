"""Group commit: commands that come together share a transaction, and none pays for another."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from msgspec import structs

from services.kernel.command import group_commit as group_commit_module
from services.kernel.command.group_commit import GROUP_SIZE_MAX
from services.kernel.command.work import Change, Work
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from services.kernel.log import log as log_module
from services.kernel.log.log import Append, NewEvent, Origin, read_heads
from services.kernel.log.tables import create_kernel_tables
from services.kernel.log.tokens import decode_write_token
from services.kernel.process.runtime import open_pool
from services.kernel.testing import eventually
from tests.box import BOX, Box, ThingPut
from tests.box_world import answers, running_log


@pytest.fixture
async def world(database):
    async with running_log(database) as world:
        yield world
        await world.assert_whole()


@pytest.fixture
def groups(world, monkeypatch):
    """The sizes of the groups as they are tried."""
    sizes, commit = [], type(world.group_commit)._commit

    async def counting(self, group):
        sizes.append(len(group))
        await commit(self, group)

    monkeypatch.setattr(type(world.group_commit), "_commit", counting)
    return sizes


async def test_a_command_is_answered_with_what_it_led_to(world):
    box = await world.put("1", "hat", "coat", label="winter")

    assert (["hat", "coat"], "winter", '"3"') == (list(box.things), box.label, box.etag)
    assert [("boxes", 0, 3)] == [
        (landing.service, landing.partition, landing.position)
        for landing in decode_write_token(box.write_token)
    ]
    assert [("box-1", "hat"), ("box-1", "coat")] == await world.things()


async def test_commands_of_one_moment_share_one_transaction(world, groups):
    boxes = await answers(world.put(f"{number}", "hat") for number in range(100))

    assert 1 == len(groups) == len({box.update_time for box in boxes})
    assert {0: 100} == await read_heads(world.pool)
    landings = [decode_write_token(box.write_token)[0].position for box in boxes]
    assert list(range(1, 101)) == landings


async def test_a_group_is_as_large_as_the_limit_says(world, groups):
    await answers(world.put(f"{number}", "hat") for number in range(GROUP_SIZE_MAX + 1))

    assert [GROUP_SIZE_MAX, 1] == groups


async def test_a_group_gathers_while_another_commits(world, groups):
    first = asyncio.create_task(world.put("1", "hat"))
    await eventually(lambda: _assert(groups == [1]))
    await answers(world.put(f"{number}", "hat") for number in range(2, 12))
    await first

    assert [1, 10] == groups


async def test_commands_on_one_stream_are_decided_one_after_another(world, groups):
    await answers(world.put("1", f"{number}") for number in range(10))
    box = await world.put("1")

    assert [f"{number}" for number in range(10)] == list(box.things)
    assert [1] * 11 == groups


async def test_commands_on_one_stream_do_not_hold_up_the_others(world, groups):
    calls = [world.put("1", f"{number}") for number in range(3)]
    calls += [world.put(f"{number}", "hat") for number in range(2, 10)]
    boxes = await answers(calls)

    assert [9, 1, 1] == groups
    assert [["0"], ["0", "1"], ["0", "1", "2"]] == [list(box.things) for box in boxes[:3]]


@pytest.mark.parametrize(
    ("guilty", "refusal"),
    [
        ({"fail": "refused"}, FailedPrecondition),
        ({"fail": "bug"}, ZeroDivisionError),
        ({"label": "taken"}, AlreadyExists),
        ({"things": ["hat", "a\0b"]}, InvalidArgument),
        ({"things": ["hat", "forbidden"]}, asyncpg.CheckViolationError),
        ({"label": "x" * 600_000}, ResourceExhausted),
    ],
)
async def test_neighbours_of_a_failed_command_succeed(world, guilty, refusal):
    await world.put("0", "hat", label="taken")
    calls = [world.put(f"{number}", "hat") for number in range(1, 8)]
    calls.insert(4, world.put("guilty", *guilty.pop("things", ["hat"]), **guilty))
    *innocent, failure = sorted(await answers(calls), key=lambda box: not isinstance(box, Box))

    assert isinstance(failure, refusal)
    assert [["hat"]] * 7 == [list(box.things) for box in innocent]
    assert [(f"box-{number}", "hat") for number in range(8)] == await world.things()


async def test_every_second_command_may_fail(world):
    calls = [world.put(f"{number}", "forbidden" if number % 2 else "hat") for number in range(32)]
    found = await answers(calls)

    assert [True, False] * 16 == [isinstance(box, Box) for box in found]


async def test_a_response_that_cannot_be_made_leaves_nothing_behind(world, monkeypatch):
    def no_response(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("tests.box_world.box_of", no_response)
    with pytest.raises(ZeroDivisionError):
        await world.put("1", "hat", request_id="r")
    monkeypatch.undo()

    assert {0: 0} == await read_heads(world.pool)
    assert ["hat"] == list((await world.put("1", "hat", request_id="r")).things)


async def test_a_group_with_more_events_than_an_append_may_have_is_split(world, monkeypatch):
    monkeypatch.setattr(log_module, "EVENTS_PER_APPEND_MAX", 5)
    found = await answers(world.put(f"{number}", "a", "b", "c") for number in range(4))
    too_many = await answers([world.put("5", *"abcdef"), world.put("6", *"abcde")])

    assert [3, 3, 3, 3] == [len(box.things) for box in found]
    assert isinstance(too_many[0], ResourceExhausted)
    assert 5 == len(too_many[1].things)


async def test_past_the_commands_that_may_wait_the_next_is_turned_away(world, monkeypatch):
    monkeypatch.setattr(group_commit_module, "IN_FLIGHT_MAX", 20)
    found = await answers(world.put(f"{number}", "hat") for number in range(21))

    assert [Box] * 20 == [type(box) for box in found[:20]]
    assert isinstance(found[20], ResourceExhausted)
    assert {"limit": "IN_FLIGHT_MAX", "maximum": "20"} == found[20].metadata
    assert ["hat"] == list((await world.put("20", "hat")).things)


async def test_a_caller_who_gave_up_in_line_leaves_no_fact(world, groups):
    async with world.pool.acquire() as holder, holder.transaction():
        await holder.execute("select * from kernel.heads for update")
        first = asyncio.create_task(world.put("1", "hat"))
        await eventually(lambda: _assert(groups == [1]))
        second = asyncio.create_task(world.put("2", "hat"))
        third = asyncio.create_task(world.put("2", "coat"))
        await eventually(lambda: _assert(len(world.group_commit._queue) == 2))
        second.cancel()
        await answers([second])
    boxes = await answers([first, third])

    assert [["hat"], ["coat"]] == [list(box.things) for box in boxes]


async def test_a_caller_who_gave_up_during_the_commit_loses_only_the_answer(world, groups):
    async with world.pool.acquire() as holder, holder.transaction():
        await holder.execute("select * from kernel.heads for update")
        lost = asyncio.create_task(world.put("1", "hat", request_id="r"))
        kept = asyncio.create_task(world.put("2", "hat"))
        await eventually(lambda: _assert(groups == [2]))
        lost.cancel()
        await answers([lost])

    assert ["hat"] == list((await kept).things)
    assert ["hat"] == list((await world.put("1", "hat", request_id="r")).things)
    assert {0: 2} == await read_heads(world.pool)


async def test_closing_finishes_what_waits_and_takes_nothing_more(world, groups):
    calls = [asyncio.create_task(world.put("1", f"{number}")) for number in range(5)]
    await eventually(lambda: _assert(groups))
    world.group_commit.close()
    with pytest.raises(Unavailable):
        await world.put("2", "hat")

    await asyncio.wait_for(world.committing, timeout=10)
    assert [1, 2, 3, 4, 5] == [len(box.things) for box in await answers(calls)]


async def test_what_came_before_an_early_end_is_finished(world):
    call = asyncio.create_task(world.put("1", "hat"))
    asyncio.get_running_loop().call_soon(world.group_commit.close)

    assert ["hat"] == list((await call).things)


async def test_closing_while_nothing_waits_ends(world):
    await world.stop()


async def test_a_cancelled_group_commit_leaves_nobody_waiting(world, groups):
    async with world.pool.acquire() as holder, holder.transaction():
        await holder.execute("select * from kernel.heads for update")
        calls = [asyncio.create_task(world.put("1", f"{number}")) for number in range(3)]
        await eventually(lambda: _assert(groups))
        world.committing.cancel()
        found = await asyncio.wait_for(answers(calls), timeout=10)

    assert [Unavailable] * 3 == [type(failure) for failure in found]


async def test_a_head_that_stays_locked_is_waited_for_no_longer_than_the_limit(world, monkeypatch):
    monkeypatch.setattr(group_commit_module, "COMMIT_TIMEOUT_S", 0.2)
    async with world.pool.acquire() as holder, holder.transaction():
        await holder.execute("select * from kernel.heads for update")
        found = await answers(world.put(f"{number}", "hat") for number in range(3))
    assert [Unavailable] * 3 == [type(failure) for failure in found]
    monkeypatch.undo()

    assert ["coat"] == list((await world.put("1", "coat")).things)


async def test_a_dead_connection_is_answered_with_unavailable_and_then_forgotten(world, groups):
    async with world.pool.acquire() as holder, holder.transaction():
        await holder.execute("select * from kernel.heads for update")
        calls = [asyncio.create_task(world.put(f"{number}", "hat")) for number in range(3)]

        async def assert_the_waiting_one_ended():
            assert await world.pool.fetchval(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where wait_event_type = 'Lock' and datname = current_database()"
            )

        await eventually(assert_the_waiting_one_ended)
        found = await answers(calls)

    assert [Unavailable] * 3 == [type(failure) for failure in found]
    assert [3] == groups
    boxes = await answers(world.put(f"{number}", "coat") for number in range(3))
    assert [["coat"]] * 3 == [list(box.things) for box in boxes]


async def test_a_server_that_is_away_is_answered_with_unavailable_and_comes_back(own_postgres):
    url = await own_postgres.create_database("boxes")
    async with running_log(url) as world:
        await world.put("1", "hat")
        own_postgres.kill()

        async def assert_away():
            # A backend outlives its postmaster for a moment, and what it commits counts.
            found = await answers(world.put(f"away-{number}", "hat") for number in range(3))
            assert [Unavailable] * 3 == [type(failure) for failure in found]

        await eventually(assert_away)
        own_postgres.start()

        assert ["hat", "coat"] == list((await world.put("1", "coat")).things)
        await world.assert_whole()


async def test_two_processes_share_a_log_without_conflict(database, world):
    async with running_log(database) as other:
        boxes = await answers(
            process.put("1", f"{number}") for number in range(20) for process in (world, other)
        )

    assert list(range(1, 41)) == sorted(len(box.things) for box in boxes)


async def test_partitions_are_written_together_and_each_write_says_all_its_landings(database):
    async with running_log(database, partitions=3) as world:
        boxes = await answers(world.put(f"{number}", "hat") for number in range(30))
        await world.assert_whole()

        landings = [decode_write_token(box.write_token)[0] for box in boxes]
        assert {0, 1, 2} == {landing.partition for landing in landings}
        assert 30 == len({(landing.partition, landing.position) for landing in landings})


def work_on(*streams, probed=(), refuse=False, said=None):
    """A work that puts a thing into each of several boxes at once."""
    origin = Origin("acme", "tests", "", "")

    def decide(states):
        if said is not None:
            said.append(states)
        if refuse:
            raise FailedPrecondition("as told")
        return [Change(Append(origin, s, [NewEvent(ThingPut(thing="hat"))])) for s in streams]

    return Work(
        origin=origin,
        decide=decide,
        respond=lambda outcome: Box(write_token=outcome.write_token),
        shapes=dict.fromkeys(streams, 1),
        probed=probed,
    )


async def test_one_work_on_several_partitions_has_a_landing_in_each(database):
    streams = [f"box-{number}" for number in range(12)]
    async with running_log(database, partitions=3) as world:
        box, other = await answers(
            [world.group_commit.submit(work_on(*streams)), world.put("other", "hat")]
        )
        landings = decode_write_token(box.write_token)

        assert [0, 1, 2] == [landing.partition for landing in landings]
        assert 12 == sum(landing.position for landing in landings)
        (landing,) = decode_write_token(other.write_token)
        heads = await read_heads(world.pool)
        assert landing.position == heads[landing.partition]
        await world.assert_whole()


async def test_a_work_sees_which_of_the_streams_it_probes_exist(world):
    await world.put("1", "hat")
    await world.put("2", "hat")
    said = []
    await world.group_commit.submit(work_on(probed=["box-2", "box-3", "box-1"], said=said))

    assert {"box-1": 1, "box-2": 2} == {
        stream: state.last_position for stream, state in said[0].items()
    }


async def test_a_refused_work_writes_to_none_of_its_streams(world):
    found = await answers(
        world.group_commit.submit(work_on("box-1", "box-2", refuse=refuse))
        for refuse in (True, False)
    )

    assert [FailedPrecondition, Box] == [type(answer) for answer in found]
    assert [("box-1", "hat"), ("box-2", "hat")] == await world.things()


async def test_a_decider_may_not_write_to_a_stream_it_did_not_name(world, monkeypatch):
    await world.put("2", "hat")
    find_stream = type(BOX).stream
    stray = replace(BOX, category="stray")
    decide = group_commit_module._decide

    async def misled(tx, group):
        loaded = await decide(tx, group)
        for pending in group:
            pending.changes = [
                change._replace(append=structs.replace(change.append, stream=find_stream(BOX, "2")))
                if change.append.stream.startswith("stray")
                else change
                for change in pending.changes
            ]
        return loaded

    monkeypatch.setattr(group_commit_module, "_decide", misled)
    found = await answers([world.put("1", "hat", decider=stray), world.put("1", "hat")])

    assert [False, True] == [isinstance(box, Box) for box in found]


def _assert(truth):
    assert truth


async def test_a_process_that_froze_while_it_held_the_heads_stops_its_replicas_only_for_a_while(
    world, database, monkeypatch
):
    monkeypatch.setattr("services.kernel.process.runtime.IDLE_IN_TRANSACTION_MAX_S", 1)
    async with open_pool(database) as pool:
        frozen = await pool.acquire()
        await frozen.execute("begin")
        await world.log.lock_heads(frozen, {0})

        assert ["hat"] == list((await world.put("1", "hat")).things)


async def test_a_replica_may_start_while_the_log_is_vacuumed(world, database):
    """Creating what is there already must not queue for a lock that all writers then wait for."""
    vacuum, starting = await asyncpg.connect(database), await asyncpg.connect(database)
    try:
        async with vacuum.transaction():
            await vacuum.execute("lock table kernel.events in share update exclusive mode")
            async with asyncio.timeout(5):
                await create_kernel_tables(starting, 1)
    finally:
        await vacuum.close()
        await starting.close()
