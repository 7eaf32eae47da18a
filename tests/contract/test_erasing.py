"""An erased person is in no row, no message and no byte, whenever the process is killed."""

import asyncio
import dataclasses
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import asyncpg
import nats
import pytest
import pytest_asyncio

from rapport.common.v1.subjects_pb2 import ERASURE_STAGE_BYTES, ERASURE_STAGE_FINISHED
from services.kernel.clock import SystemClock
from services.kernel.command.work import Work
from services.kernel.erasing import erasing, register, tombstones
from services.kernel.erasing.compaction import WAL_IS_OTHERS, compact_tables
from services.kernel.erasing.erasing import RAFT_KEEPS_A_COPY
from services.kernel.erasing.proof import find_in_files
from services.kernel.erasing.subjects import hash_key_of, hash_of
from services.kernel.errors import FailedPrecondition, Unavailable
from services.kernel.log.log import Origin
from services.kernel.log.recorded import utc
from services.kernel.testing import eventually
from services.kernel.views.rebuild import Rebuild
from tests.box import EVENT_TYPES, Box, ThingsView
from tests.erasing_world import derive_key, erasing_world, erasure_of
from tests.feed_world import messages

pytestmark = pytest.mark.asyncio(loop_scope="module")
STREAM = "BOXES-0"
STEPS = erasing.__file__
PLACE = ["partition", "position", "workspace", "stream", "version", "event_id", "type", "actor"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres, nats_server):
    name = f"test_{uuid.uuid4().hex}"
    url = await postgres.create_database(name)
    async with erasing_world(url, nats_server.url) as world:
        yield world
    await postgres.drop_database(name)


@pytest.fixture
def box():
    """The name of a box that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture
def ada():
    """The address of a person that no other test knows."""
    return f"ada-{uuid.uuid4().hex}@example.org"


async def logged(world, box):
    return [e for e in await world.boxes.logged() if e.stream == f"box-{box}"]


async def test_an_erased_event_keeps_its_place_and_says_nothing(world, box, ada):
    await world.put(box, ada, "hat")
    await world.put(box, ada, workspace="other")
    before = await logged(world, box)
    progress = await world.erase(erasure_of(f"{box}", ada.upper()))
    gone, stays, foreign = await logged(world, box)

    assert [getattr(before[0], field) for field in PLACE] == [getattr(gone, f) for f in PLACE]
    assert (b"", f"erasures/{box}", before[0].record_time) == (
        gone.data,
        gone.erasure,
        gone.record_time,
    )
    assert before[1:] == [stays, foreign]
    assert {"log": 1, "things": 1, "feed": 1} == progress.counts
    assert {("box", f"box-{box}")} == progress.also


async def test_what_is_folded_of_the_log_is_without_the_erased(world, box, ada):
    """Views, states and decisions; and a rebuilt view equals the live one."""
    put = await world.put(box, ada, "hat")
    await world.erase(erasure_of(box, ada))
    pool, log = world.boxes.pool, world.boxes.log
    rebuild = Rebuild(pool, log, ThingsView(), EVENT_TYPES, {})
    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()
    await rebuild.drop(await pool.fetchval("select max(generation) from kernel.generations"))
    coat = await world.put(box, "coat")

    assert comparison.equal
    assert ([ada, "hat"], ["hat", "coat"]) == (list(put.things), list(coat.things))
    assert '"3"' == coat.etag


async def test_a_retry_does_not_bring_the_person_back(world, box, ada):
    request_id, again = str(uuid.uuid4()), str(uuid.uuid4())
    await world.put(box, ada, request_id=request_id)
    await world.put(box, request_id=again)
    await world.erase(erasure_of(box, ada))
    for retried, things in ((request_id, [ada]), (again, [])):
        with pytest.raises(FailedPrecondition, match="erased"):
            await world.put(box, *things, request_id=retried)

    assert 1 == len(await logged(world, box))


async def test_the_feed_loses_the_message_and_a_refill_carries_the_tombstone(
    world, box, ada, nats_server
):
    await world.put(box, "hat", ada, "coat")
    await world.erase(erasure_of(box, ada))
    log = [(event.position, event.SerializeToString()) for event in await world.boxes.logged()]
    position = (await logged(world, box))[1].position
    carried = dict(await messages(nats_server.url, STREAM))
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream(STREAM)
    await client.close()

    async def refilled():
        assert log == await messages(nats_server.url, STREAM)

    await eventually(refilled)
    assert position not in carried
    assert {position - 1, position + 1} <= carried.keys()


async def test_a_message_that_is_gone_already_is_no_trouble(world, box, ada, nats_server):
    """In the middle, and where nothing is left before it."""
    await world.put(box, "hat", ada, "coat")
    await world.erase(erasure_of(box, ada))
    [gone] = [event.position for event in await logged(world, box) if event.erasure]
    feed = world.feed
    await feed.erase(gone)
    for position in range(1, gone):
        await feed.erase(position)
    await feed.erase(1)
    await feed.erase(gone)
    carried = dict(await messages(nats_server.url, STREAM))

    assert gone + 1 == min(carried)


async def test_what_another_erasure_and_another_workspace_have_stays(world, box, ada):
    await world.put(box, ada)
    before = utc((await logged(world, box))[0].record_time) - timedelta(microseconds=1)
    await world.erase(erasure_of(box, ada, workspace="other"))
    await world.erase(erasure_of(f"{box}-early", ada, until=before))
    [event] = await logged(world, box)

    assert "" == event.erasure


async def test_by_hashes_alone_the_same_goes_as_by_values(world, box, ada):
    """A restored backup is erased from once more, when nobody knows the values."""
    await world.put(box, ada, "hat")
    hashed = hash_of(hash_key_of(derive_key, "acme"), "email", ada)
    await world.erase(erasure_of(box, hashes=[hashed]))
    keys = await register.erased_keys(world.boxes.pool, "acme", [hashed, "0" * 32])

    assert ["erasures/" + box, ""] == [event.erasure for event in await logged(world, box)]
    assert [hashed] == list(keys)


async def test_nothing_is_recorded_into_the_time_that_was_erased(world, box, ada):
    await world.put(box, "hat")
    ahead = utc((await logged(world, box))[0].record_time) + timedelta(seconds=2)
    await world.erase(erasure_of(box, ada, until=ahead))
    await world.put(box, ada)

    assert utc((await logged(world, box))[1].record_time) > ahead


async def test_what_was_received_before_it_is_sealed_is_not_recorded_any_more(world):
    received = SystemClock().now()
    works = [
        Work(
            Origin("acme", "tests", "", ""),
            decide=lambda _: [],
            respond=lambda _: Box(),
            receive_time=received + timedelta(seconds=later),
        )
        for later in (0, 1)
    ]
    await tombstones.seal_received(world.boxes.pool, received)

    with pytest.raises(Unavailable, match="erased while this was on its way"):
        await world.boxes.group_commit.submit(works[0])
    assert Box() == await world.boxes.group_commit.submit(works[1])


async def test_a_stream_whose_name_tells_a_person_gets_another(world, ada):
    await world.put(ada, ada)
    world.data.told.add(f"box-{ada}")
    await world.erase(erasure_of(ada, ada))
    [gone] = [e for e in await world.boxes.logged() if e.erasure == f"erasures/{ada}"]

    assert (f"erased-{hash_of(b'', 'box', f'box-{ada}')}", 1) == (gone.stream, gone.version)
    assert [] == await logged(world, ada)


async def test_holdings_look_for_what_goes_before_they_are_asked_for_it(world, box, ada):
    await world.put(box, ada)
    world.data.pieces = 3
    progress = await world.erasing.take_steps(erasure_of(box, ada), turn_s=0)

    assert (2, {}) == (world.data.pieces, progress.counts)
    assert 1 == (await world.erase(erasure_of(box, ada))).counts["log"]


async def test_a_step_that_takes_too_long_is_taken_in_halves(world, box, ada, monkeypatch):
    """Writers wait for each step, so it ends; and what ends too early gets nowhere."""
    for _ in range(5):
        await world.put(box, ada)
    forget, sizes = world.data.forget, []

    async def slow(tx, erasure, events):
        sizes.append(len(events))
        if len(events) > 2:
            await asyncio.Event().wait()
        return await forget(tx, erasure, events)

    monkeypatch.setattr(world.data, "forget", slow)
    monkeypatch.setattr(erasing, "STEP_TIMEOUT_S", 0.5)
    monkeypatch.setattr(erasing, "EVENTS_MORE", 0)
    with pytest.raises(TimeoutError):
        await world.erase(erasure_of(box, ada))
    progress = await world.erase(erasure_of(box, ada))

    assert [5, 2, 2, 1] == sizes
    assert 5 == progress.counts["log"]


async def test_by_age_the_bytes_are_left_to_the_next_compaction(world, box, ada):
    await world.put(box, ada)
    by_age = dataclasses.replace(erasure_of(box, ada), is_by_age=True)

    assert ERASURE_STAGE_FINISHED == (await world.erase(by_age)).stage


async def test_no_byte_of_any_file_has_the_person_when_it_has_finished(
    world, box, ada, nats_server
):
    pool = world.boxes.pool
    await world.put(box, ada, "hat", label=f"of {box}", request_id=str(uuid.uuid4()))
    world.data.rest[ada] = "a file"
    await pool.execute("analyze kernel.events; analyze things.things; checkpoint")
    folders = [Path(await pool.fetchval("show data_directory")), nats_server.store]
    erasure = erasure_of(box, ada)
    [event, *_] = await logged(world, box)

    def relayed():
        assert world.relay.position >= event.position

    await eventually(relayed)
    before = list(find_in_files(ada, folders))
    waiting = await world.erase(erasure)
    finished = await world.finish(erasure)
    await pool.execute("checkpoint")

    assert before
    assert ERASURE_STAGE_BYTES == waiting.stage
    assert ERASURE_STAGE_FINISHED == finished.stage
    assert [] == list(find_in_files(ada, folders))
    assert {} == world.data.rest


async def test_it_has_not_finished_while_a_transaction_still_sees_the_rows(world, box, ada):
    await world.put(box, ada)
    erasure = erasure_of(box, ada)
    async with world.boxes.pool.acquire() as reader:
        reading = reader.transaction(isolation="repeatable_read")
        await reading.start()
        await reader.fetchval("select count(*) from kernel.events")
        await world.erase(erasure)
        with pytest.raises(Exception, match="still sees"):
            await world.compactor.compact_if_wanted()
        waiting = await world.erase(erasure)
        await reading.rollback()
    finished = await world.finish(erasure)

    assert (ERASURE_STAGE_BYTES, ERASURE_STAGE_FINISHED) == (waiting.stage, finished.stage)


async def test_what_goes_while_bytes_are_removed_waits_for_the_next_time(
    world, box, ada, monkeypatch
):
    """Whoever is found late begins the erasure again, and a table may be written anew already."""
    eve = f"eve-{box}@example.org"
    await world.put(box, ada, eve)
    erasure = erasure_of(box, ada)
    await world.erase(erasure)

    async def meanwhile(connection):
        await compact_tables(connection)
        await world.erase(erasure_of(box, ada, eve, until=erasure.key.receive_time))

    monkeypatch.setattr("services.kernel.erasing.compaction.compact_tables", meanwhile)
    await world.compactor.compact_if_wanted()
    monkeypatch.undo()
    waiting = await world.erase(erasure)
    finished = await world.finish(erasure)

    assert 2 == waiting.counts["log"]
    assert (ERASURE_STAGE_BYTES, ERASURE_STAGE_FINISHED) == (waiting.stage, finished.stage)


async def test_a_copy_that_only_others_can_remove_is_told(world, box, ada, monkeypatch):
    """In a cluster the raft logs keep one for a while; a user may not end the write-ahead log."""
    await world.put(box, ada)
    monkeypatch.setattr(world.feed, "replicas", 3)
    await world.erase(erasure_of(box, ada))
    monkeypatch.setattr("services.kernel.erasing.compaction.end_write_ahead_log", refused)
    progress = await world.finish(erasure_of(box, ada))

    assert ERASURE_STAGE_FINISHED == progress.stage
    assert [RAFT_KEEPS_A_COPY, WAL_IS_OTHERS] == sorted(progress.notes, reverse=True)


async def refused(_connection):
    return False


async def test_the_log_takes_no_other_change(world, box, ada):
    await world.put(box, ada)
    await world.erase(erasure_of(box, ada))
    await world.put(box, "hat")
    own = "where stream = $1 and version"
    for change in (
        f"update kernel.events set data = 'x', erasure = 'e' {own} = 1",
        f"update kernel.events set data = 'x' {own} = 2",
        f"update kernel.events set data = '' {own} = 2",
        f"update kernel.events set data = '', erasure = 'e', version = 7 {own} = 2",
        f"update kernel.events set erasure = null {own} = 1",
        f"delete from kernel.events {own} = 1",
    ):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await world.boxes.pool.execute(change, f"box-{box}")


class Crash(BaseException):
    """A process that ends here."""


async def test_a_crash_at_any_line_leaves_what_the_next_attempt_finishes(world):
    """Each line of the steps, once: killed there, then taken up again.

    What other files do lies within the transactions of these lines.
    """
    seen, people = set(), []
    while True:
        box, ada = uuid.uuid4().hex, f"{uuid.uuid4().hex}@example.org"
        await world.put(box, ada, "hat", request_id=box)
        world.data.rest[ada] = "a file"
        erasure = erasure_of(box, ada)
        crashed = await _crash_at_a_new_line(world, erasure, seen)
        progress = await world.erase(erasure)
        people.append((box, crashed))
        found = [event.erasure for event in await logged(world, box)]

        assert [erasure.name, ""] == found, f"killed at {crashed}"
        assert ERASURE_STAGE_BYTES == progress.stage, f"killed at {crashed}"
        assert ada not in world.data.rest, f"killed at {crashed}"
        assert (1, 1) == (progress.counts["log"], progress.counts["things"]), crashed
        if crashed is None:
            break

    assert len(people) > 40


async def _crash_at_a_new_line(world, erasure, seen):
    """Takes steps until a line that no attempt ended at before; None when there is none left."""
    ended = []

    def trace(frame, event, _):
        if frame.f_code.co_filename != STEPS:
            return None
        if event == "line" and not ended and frame.f_lineno not in seen:
            seen.add(frame.f_lineno)
            ended.append(f"line {frame.f_lineno}")
            raise Crash
        return trace

    sys.settrace(trace)
    try:
        await world.erase(erasure)
    except Crash:
        return ended[0]
    finally:
        sys.settrace(None)
    return None
