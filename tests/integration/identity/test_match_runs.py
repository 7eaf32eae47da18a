"""Match runs end in whatever way they end, once, and leave nothing running."""

import pytest
from asyncpg import DeadlockDetectedError, InvalidCachedStatementError

from rapport.identity.v1.match_runs_pb2 import CancelMatchRunRequest, MatchRunState
from services.identity.__main__ import SERVICE
from services.identity.projections import match_input
from services.identity.service import match_runs
from services.identity.upkeep import match_comparing, match_recording, match_running
from services.kernel.errors import InvalidArgument, ResourceExhausted
from tests.matching_world import Killed, Matching, finding

RUNNING = MatchRunState.MATCH_RUN_STATE_RUNNING
DONE = MatchRunState.MATCH_RUN_STATE_DONE
FAILED = MatchRunState.MATCH_RUN_STATE_FAILED
CANCELLED = MatchRunState.MATCH_RUN_STATE_CANCELLED


@pytest.fixture
async def world(database_of):
    async with Matching.open(await database_of(SERVICE)) as world:
        yield world


async def test_a_run_that_is_begun_again_suggests_nothing_twice(world, monkeypatch):
    people = [await world.contact(name) for name in ("ada", "adah", "grace")]
    finding(monkeypatch, (people[0], people[1], 900), (people[0], people[2], 800))
    monkeypatch.setattr(match_recording, "CHANGES_PER_SAVE_MAX", 1)
    load_rows, loads = match_recording.load_rows, []

    async def dying(*asked):
        loads.append(asked)
        if len(loads) == 2:
            raise Killed
        return await load_rows(*asked)

    async def nothing(*_):
        """The dead release no lease."""

    monkeypatch.setattr(match_recording, "load_rows", dying)
    monkeypatch.setattr(match_running.match_progress, "release", nothing)
    await world.start()
    with pytest.raises(Killed):
        await world.step()
    assert 1 == len(await world.listed())
    assert not await world.step("another")

    await world.lapse()
    assert await world.step("another")

    assert 2 == (await world.told()).count("MatchSuggested")
    counts = (await world.get_run()).counts
    assert (1, 1, 2) == (counts.suggested, counts.confirmed, counts.found)


async def test_who_lost_a_run_to_another_records_nothing_any_more(world, monkeypatch):
    ada, adah = await world.contact("ada"), await world.contact("adah")

    async def lost():
        await world.pool.execute("update matching.progress set epoch = epoch + 1")

    finding(monkeypatch, (ada, adah, 900), before_it_ends=lost)
    await world.start()
    await world.step()

    assert ["MatchRunStarted"] == await world.told()


async def test_a_cancelled_run_records_nothing_any_more(world, monkeypatch):
    ada, adah = await world.contact("ada"), await world.contact("adah")

    async def cancel():
        await world.runs.CancelMatchRun(CancelMatchRunRequest(name="matchRuns/r1"))

    finding(monkeypatch, (ada, adah, 900), before_it_ends=cancel)
    run = await world.run()

    assert CANCELLED == run.state
    assert [] == await world.listed()
    assert not await world.step()


async def test_cancelling_ends_the_process_that_compares(world, monkeypatch):
    await world.contact("ada")
    made = []

    async def sleeper(*_, **options):
        process = await spawn("sleep", "60", **options)
        made.append(process)
        return process

    spawn = match_comparing.asyncio.create_subprocess_exec
    monkeypatch.setattr(match_comparing.asyncio, "create_subprocess_exec", sleeper)
    monkeypatch.setattr(match_comparing, "HEARTBEAT_S", 0.01)
    checked = match_running.Claimed.sign_of_life

    async def cancelled(claimed):
        if made:
            await world.runs.CancelMatchRun(CancelMatchRunRequest(name="matchRuns/r1"))
        await checked(claimed)

    monkeypatch.setattr(match_running.Claimed, "sign_of_life", cancelled)

    run = await world.run()

    assert CANCELLED == run.state
    assert made[0].returncode is not None


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("PROFILES_PER_RUN_MAX", 1, "PROFILES_PER_RUN_MAX"),
        ("COMPARING_TIMEOUT_S", 0, "OUT_OF_TIME"),
    ],
)
async def test_what_cannot_be_compared_fails_with_a_reason(
    world, monkeypatch, limit, value, reason
):
    await world.contact("ada")
    await world.contact("adah")
    monkeypatch.setattr(match_comparing, limit, value)

    run = await world.run()

    assert (FAILED, reason) == (run.state, run.reason)


@pytest.mark.parametrize(
    ("command", "reason"),
    [("true", "BUG"), ("kill -KILL $$", "OUT_OF_MEMORY"), ("kill -XCPU $$", "OUT_OF_TIME")],
)
async def test_a_process_that_ends_without_a_word_fails_the_run(
    world, monkeypatch, command, reason
):
    await world.contact("ada")
    monkeypatch.setattr(match_comparing, "_COMMAND", ("sh", "-c", command))

    run = await world.run()

    assert (FAILED, reason) == (run.state, run.reason)


async def test_what_a_rule_refused_or_is_suggested_is_compared_in_any_case(world, monkeypatch):
    pair = [await world.contact(name, email="navy@example.com") for name in ("grace", "alan")]
    ada = await world.contact("ada")
    await world.happens(world.facts.track(anonymous_id="tells nothing"))
    monkeypatch.setattr(match_input, "ROWS_PER_PAGE", 2)

    async def named():
        pages = [page async for page in match_input.read_rows(world.pool, "acme", "")]
        return sorted(f"profiles/{row.profile}" for page in pages for row in page if row.named)

    assert sorted(pair) == await named()
    monkeypatch.setattr(match_input, "REFUSED_PAIRS_MAX", 0)
    assert [] == await named()
    finding(monkeypatch, (ada, pair[0], 100))
    await world.run()
    assert sorted([ada, pair[0]]) == await named()


async def test_what_is_past_the_likeliest_is_not_closed_as_unlikely(world, monkeypatch):
    ada, adah = await world.contact("ada"), await world.contact("adah")
    finding(monkeypatch, (ada, adah, 900))
    await world.run()

    finding(monkeypatch, profiles=[ada, adah], found=1)
    run = await world.run("r2")

    assert (0, 1) == (run.counts.closed, run.counts.left_out)


@pytest.mark.parametrize(
    "failure", [DeadlockDetectedError("deadlock detected"), InvalidCachedStatementError("swapped")]
)
async def test_a_run_goes_on_when_somebody_else_was_faster_or_the_view_was_swapped(
    world, monkeypatch, failure
):
    await world.contact("ada")
    failures = [failure]

    async def fail():
        if failures:
            raise failures.pop()

    finding(monkeypatch, before_it_ends=fail)
    await world.start()
    with pytest.raises(type(failure)):
        await world.step()
    await world.lapse()
    await world.step()

    assert DONE == (await world.get_run()).state


async def test_a_run_that_ends_its_workers_again_and_again_is_given_up(world, monkeypatch):
    await world.contact("ada")

    async def die():
        raise Killed

    finding(monkeypatch, before_it_ends=die)
    await world.start()
    for _ in range(match_running.ATTEMPTS_MAX):
        with pytest.raises(Killed):
            await world.step()
        await world.lapse()
    assert await world.step()

    run = await world.get_run()
    assert (FAILED, "ATTEMPTS_MAX") == (run.state, run.reason)


async def test_runs_of_a_workspace_wait_for_each_other_and_are_not_too_many(world, monkeypatch):
    monkeypatch.setattr(match_runs, "OPEN_RUNS_MAX", 2)
    finding(monkeypatch)
    await world.start("r1")
    await world.start("r2")
    with pytest.raises(ResourceExhausted):
        await world.start("r3")

    await world.step()

    assert DONE == (await world.get_run("r1")).state
    assert RUNNING == (await world.get_run("r2")).state
    await world.start("r3")


async def test_past_the_limit_the_likeliest_wait_for_somebody(world, monkeypatch):
    ada, adah, grace = [await world.contact(name) for name in ("ada", "adah", "grace")]
    monkeypatch.setattr(match_recording, "OPEN_SUGGESTIONS_MAX", 1)
    finding(monkeypatch, (ada, adah, 100), (ada, grace, 200))

    run = await world.run()

    assert [200] == [found.weight_hundredths for found in await world.listed()]
    assert (1, 1) == (run.counts.suggested, run.counts.left_out)


async def test_profiles_are_chosen_by_times_and_never_by_values(world):
    with pytest.raises(InvalidArgument):
        await world.start(filter='traits.email = "ada@x.com"')

    started = await world.start(filter='last_activity_time > "2026-01-01T00:00:00Z"')

    assert 'last_activity_time > "2026-01-01T00:00:00Z"' == started.filter
