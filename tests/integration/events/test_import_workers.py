"""Whoever works on an import may die between any two lines: each row counts once all the same."""

import asyncio

import pytest

from services.events.__main__ import SERVICE
from services.events.projections import importing
from services.events.recording import Recorder
from services.events.upkeep import (
    import_reading,
    import_recording,
    import_undoing,
)
from services.events.upkeep import (
    importing as upkeep,
)
from services.events.upkeep.import_work import Claimed
from services.kernel.errors import Unavailable
from services.kernel.testing import eventually
from tests.import_workers import Workers, kill_at
from tests.imports_world import counts, csv_file, mapping, people

BY_ID = mapping(user_id="who", message_id="id")
# Of every hundred rows three repeat one before, one is somebody's whom nobody knows, one is broken.
ROWS = [
    ("who", "id"),
    *(
        ("" if n % 100 == 7 else f"u-{n}", f"m-{n - 3 if n % 100 in (12, 13, 60) else n}")
        if n % 100 != 8
        else ("only this",)
        for n in range(1, 1_201)
    ),
]
FILE = csv_file(ROWS)
EXPECTED = {"rows": 1_200, "accepted": 1_140, "duplicate": 36, "refused": 12, "unmapped": 12}

# Where a worker dies while it records.
RECORDING = {
    "a batch is recorded": (Recorder, "record"),
    "the progress is saved": (Claimed, "save_deciding"),
    "the progress is within the transaction": (importing, "save"),
    "the row errors are within the transaction": (importing, "add_errors"),
}
UNDOING = {
    "what is there is looked up": (import_undoing, "present_of"),
    "the retractions are within the transaction": (importing, "save"),
    "the retractions are saved": (Claimed, "save_deciding"),
}


@pytest.fixture
async def workers(database_of, monkeypatch):
    """Workers with small batches, so that a file has several."""
    monkeypatch.setattr(import_reading, "ROWS_PER_BATCH_MAX", 400)
    monkeypatch.setattr(import_undoing, "RETRACTIONS_PER_STEP_MAX", 400)
    async with Workers.open(await database_of(SERVICE)) as workers:
        yield workers


async def started(workers, **options):
    name = await workers.ready(FILE, mapping=BY_ID, **options)
    await workers.ask("Start", name)
    return name


async def test_an_import_that_nothing_happens_to_is_as_expected(workers):
    name = await started(workers)

    await workers.step()

    assert EXPECTED == counts((await workers.until(name, "DONE")).progress)


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", RECORDING)
async def test_who_takes_an_import_over_counts_each_row_once(
    workers, monkeypatch, place, when, nth
):
    name = await started(workers)
    kill_at(monkeypatch, RECORDING[place], when, nth)

    await workers.die()
    assert not await workers.step("another")
    await workers.lapse()
    while await workers.step("another"):
        pass

    done = await workers.until(name, "DONE")
    assert EXPECTED == counts(done.progress)
    recorded, _ = await workers.counted()
    assert (1_140, {1}) == (len(recorded), set(recorded.values()))
    assert 24 == len(await workers.row_errors(name, page_size=100))


async def test_a_batch_that_was_recorded_by_who_is_thought_dead_is_counted_once(
    workers, monkeypatch
):
    """The first worker sleeps through its lease just before it records, and then goes on."""
    name = await started(workers)
    record, asleep, wake = Recorder.record, asyncio.Event(), asyncio.Event()
    sleepers = iter([True])

    async def sleepy(*args, **kwargs):
        if next(sleepers, False):
            asleep.set()
            await wake.wait()
        return await record(*args, **kwargs)

    monkeypatch.setattr(Recorder, "record", sleepy)
    first = asyncio.create_task(workers.step("first"))
    await asleep.wait()
    await workers.lapse()
    wake.set()
    await workers.step("second")
    await first

    done = await workers.until(name, "DONE")
    assert EXPECTED == counts(done.progress)
    recorded, _ = await workers.counted()
    assert {1} == set(recorded.values())


async def test_a_batch_whose_answer_got_lost_is_counted_once(workers, monkeypatch):
    name = await started(workers)
    record = Recorder.record
    lost = iter([True])

    async def losing(*args, **kwargs):
        response = await record(*args, **kwargs)
        if next(lost, False):
            raise Unavailable("events")
        return response

    monkeypatch.setattr(Recorder, "record", losing)
    await workers.step()

    assert EXPECTED == counts((await workers.until(name, "DONE")).progress)


async def test_without_a_look_at_the_log_a_batch_recorded_twice_counts_as_duplicates(
    workers, monkeypatch
):
    async def nothing(*_args):
        return {}

    name = await started(workers)
    kill_at(monkeypatch, RECORDING["a batch is recorded"], "after", 1)
    monkeypatch.setattr(import_recording, "landed_since", nothing)

    await workers.die()
    await workers.lapse()
    await workers.step()

    assert EXPECTED != counts((await workers.until(name, "DONE")).progress)


async def test_a_paused_import_records_nothing_and_goes_on_where_it_was(workers, monkeypatch):
    name = await started(workers)
    record = Recorder.record
    batches = iter(range(10))

    async def pausing(*args, **kwargs):
        if next(batches) == 1:
            await workers.ask("Pause", name)
        return await record(*args, **kwargs)

    monkeypatch.setattr(Recorder, "record", pausing)
    await workers.step()
    paused = await workers.get(name)
    assert (400, "IMPORT_STATE_PAUSED") == (paused.progress.counts.rows, _state(paused))
    assert not await workers.step()
    recorded, _ = await workers.counted()
    assert paused.progress.counts.accepted == len(recorded)

    await workers.ask("Resume", name)
    await workers.step()

    assert EXPECTED == counts((await workers.until(name, "DONE")).progress)


def _state(shown):
    return (
        type(shown).DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[shown.state].name
    )


async def test_a_cancelled_import_keeps_what_it_recorded_until_it_is_undone(workers, monkeypatch):
    name = await started(workers)
    kill_at(monkeypatch, RECORDING["the progress is saved"], "after", 2)
    await workers.die()
    await workers.lapse()
    await workers.ask("Cancel", name)
    recorded, _ = await workers.counted()
    assert 760 == len(recorded)

    assert 760 == (await workers.undo(name)).retracted
    assert recorded == (await workers.counted())[1]


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", UNDOING)
async def test_who_takes_an_undo_over_retracts_each_customer_event_once(
    workers, monkeypatch, place, when, nth
):
    name = await started(workers)
    await workers.step()
    await workers.ask("Undo", name)
    await workers.list_all()
    with monkeypatch.context() as killing:
        kill_at(killing, UNDOING[place], when, nth)
        await workers.die()
    await workers.lapse()
    await workers.list_all()
    while await workers.step("another"):
        await workers.list_all()

    assert 1_140 == (await workers.until(name, "UNDONE")).retracted
    recorded, retracted = await workers.counted()
    assert (1_140, recorded) == (len(retracted), retracted)
    await workers.list_all()
    assert {} == await workers.listed()


async def test_an_undo_leaves_alone_what_others_recorded(workers):
    await workers.run_by_hand(csv_file([("who", "id"), ("a", "m-1")]), "before")
    name = await workers.run_by_hand(csv_file([("who", "id"), ("b", "m-1"), ("c", "m-2")]), "one")

    await workers.undo(name)

    assert ["m-1"] == list(await workers.listed())


async def test_what_was_undone_may_be_imported_again(workers):
    file = csv_file([("who", "id"), ("a", "m-1"), ("b", "m-2")])
    name = await workers.run_by_hand(file, "one")
    await workers.undo(name)

    again = await workers.get(await workers.run_by_hand(file, "two"))

    assert {"rows": 2, "accepted": 2} == counts(again.progress)
    await workers.list_all()
    assert {"imports/two"} == {each.import_name for each in (await workers.listed()).values()}


async def test_an_undo_waits_until_the_list_has_all_that_was_recorded(workers):
    name = await workers.run_by_hand(csv_file([("who", "id"), ("a", "m-1")]), "one")
    await workers.ask("Undo", name)

    undoing = asyncio.create_task(workers.step())
    await eventually(lambda: _is_claimed(workers))
    assert "IMPORT_STATE_UNDOING" == _state(await workers.get(name))
    await workers.list_all()
    workers.kernel.bell.ring()
    await undoing

    assert 1 == (await workers.until(name, "UNDONE")).retracted


async def _is_claimed(workers):
    assert await workers.pool.fetchval("select count(*) from importing.progress where work='UNDO'")


async def test_a_check_that_was_left_begins_anew(workers, monkeypatch):
    name = await workers.ready(FILE, mapping=BY_ID)
    await workers.ask("Check", name)
    kill_at(monkeypatch, (Claimed, "save_deciding"), "after", 2)
    await workers.die()
    await workers.lapse()
    await workers.step("another")

    checked = await workers.until(name, "READY")
    assert EXPECTED == counts(checked.check)
    assert 24 == len(await workers.row_errors(name, page_size=100))


async def test_an_import_that_meets_a_bug_fails_when_trying_again_does_not_help(
    workers, monkeypatch
):
    async def broken(*_args, **_kwargs):
        raise ZeroDivisionError("a bug")

    name = await started(workers)
    monkeypatch.setattr(Recorder, "record", broken)
    for _ in range(upkeep.FAILURES_MAX - 1):
        with pytest.raises(ZeroDivisionError):
            await workers.step()
        assert "IMPORT_STATE_RUNNING" == _state(await workers.get(name))
        await workers.lapse()
    with pytest.raises(ZeroDivisionError):
        await workers.step()

    assert "BUG" == (await workers.until(name, "FAILED")).reason


async def test_two_workers_share_the_imports(workers):
    names = [await workers.ready(people(500), import_id=f"import-{number}") for number in range(4)]
    for name in names:
        await workers.ask("Start", name)

    await asyncio.gather(*(workers.step(f"worker {number}") for number in range(4)))

    for name in names:
        assert {"rows": 500, "accepted": 500} == counts(
            (await workers.until(name, "DONE")).progress
        )
