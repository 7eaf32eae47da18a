"""request_id: the first response is the response for ever, with one effect, whoever dies."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from services.kernel.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from services.kernel.log.log import read_heads
from tests.box import Box, PutRequest
from tests.box_world import answers, running_log

ROOT = Path(__file__).parents[2]
KEY = "6d8f1d9c-2f3c-4d2c-8f0a-52e3a3f8b0a1"


@pytest.fixture
async def world(database):
    async with running_log(database) as world:
        yield world
        await world.assert_whole()


def same(*boxes):
    """The one response that all are, byte for byte."""
    told = {box.SerializeToString(deterministic=True) for box in boxes}
    assert 1 == len(told), boxes
    return boxes[0]


async def test_a_retry_gets_the_first_response_byte_for_byte(world):
    first = await world.put("1", "hat", request_id=KEY)
    await world.put("1", "coat", label="winter")

    assert ["hat"] == list(same(first, await world.put("1", "hat", request_id=KEY)).things)
    assert {0: 3} == await read_heads(world.pool)


async def test_the_first_response_outlives_the_process(database):
    async with running_log(database) as world:
        first = await world.make("hat", request_id=KEY)
        await world.empty(first.name.removeprefix("boxes/"))
        await world.stop()
    async with running_log(database) as world:
        same(first, await world.make("hat", request_id=KEY))
        assert {0: 2} == await read_heads(world.pool)


async def test_a_request_sent_twice_at_once_has_one_effect(world):
    boxes = await answers(world.make("hat", request_id=KEY) for _ in range(20))

    same(*boxes)
    assert {0: 1} == await read_heads(world.pool)


@pytest.mark.parametrize("partitions", [1, 3, 8])
async def test_a_request_sent_to_two_processes_at_once_has_one_effect(database, partitions):
    """Each attempt makes an id of its own, so its stream may lie in another partition."""
    async with (
        running_log(database, partitions=partitions) as one,
        running_log(database, partitions=partitions) as other,
    ):
        for number in range(20):
            boxes = await answers(
                process.make("hat", request_id=f"{KEY}-{number}")
                for process in (one, other, one, other)
            )
            same(*boxes)
        assert 20 == sum((await read_heads(one.pool)).values())
        assert 20 == await one.count("kernel.requests")
        await one.assert_whole()


@pytest.mark.parametrize("partitions", [1, 3])
async def test_many_requests_sent_twice_in_opposite_order_have_one_effect_each(
    database, partitions
):
    async with (
        running_log(database, partitions=partitions) as one,
        running_log(database, partitions=partitions) as other,
    ):
        keys = [f"{KEY}-{number}" for number in range(50)]
        calls = [one.make("hat", request_id=key) for key in keys]
        calls += [other.make("hat", request_id=key) for key in reversed(keys)]
        found = await answers(calls)

        for first, second in zip(found[:50], reversed(found[50:]), strict=True):
            same(first, second)
        assert 50 == sum((await read_heads(one.pool)).values())
        await one.assert_whole()


async def test_a_request_id_used_for_another_request_is_refused(world):
    await world.put("1", "hat", request_id=KEY)

    others = [
        world.put("1", "coat", request_id=KEY),
        world.put("2", "hat", request_id=KEY),
        world.put("1", "hat", request_id=KEY, etag='"1"'),
        world.empty("1", request_id=KEY),
    ]
    for refusal in await answers(others):
        assert isinstance(refusal, InvalidArgument)
        assert Reason.REQUEST_ID_REUSED == refusal.reason
        assert ["request_id"] == [violation.field for violation in refusal.violations]
    assert {0: 1} == await read_heads(world.pool)


async def test_of_two_requests_with_one_id_at_once_the_first_wins(world):
    hat, coat = await answers(
        [world.put("1", "hat", request_id=KEY), world.put("2", "coat", request_id=KEY)]
    )

    assert ["hat"] == list(hat.things)
    assert Reason.REQUEST_ID_REUSED == coat.reason


async def test_in_another_workspace_the_same_id_is_another_request(world):
    hat = await world.put("1", "hat", request_id=KEY)
    coat = await world.put("1", "coat", request_id=KEY, workspace="other")

    assert (["hat"], ["coat"]) == (list(hat.things), list(coat.things))
    same(hat, await world.put("1", "hat", request_id=KEY))


async def test_a_command_that_changed_nothing_is_remembered_too(world):
    await world.put("1", "hat")
    nothing = await world.put("1", request_id=KEY)
    await world.put("1", "coat")

    assert ["hat"] == list(same(nothing, await world.put("1", request_id=KEY)).things)


async def test_a_refusal_is_not_remembered(world):
    with pytest.raises(NotFound):
        await world.empty("1", request_id=KEY)
    await world.put("1", "hat")

    assert [] == list((await world.empty("1", request_id=KEY)).things)
    with pytest.raises(FailedPrecondition):
        await world.put("1", fail="refused", request_id="other")
    assert 1 == await world.count("kernel.requests")


async def test_without_a_request_id_each_call_counts(world):
    await world.put("1", "hat")

    assert ["hat", "hat"] == list((await world.put("1", "hat")).things)
    assert 0 == await world.count("kernel.requests")


DYING_PROCESS = """
import asyncio, os, signal, sys
from services.kernel.command import group_commit
from tests.box_world import running_log

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

# The line between the commit and the answer.
setattr(group_commit, sys.argv[2], die)

async def main(url, request_id):
    async with running_log(url) as world:
        await world.make("hat", request_id=request_id)

asyncio.run(main(sys.argv[1], sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("dies_in", "effects"),
    [
        ("encode_write_token", 0),  # before the commit: the events are inserted, nothing is kept
        ("_answer", 1),  # after the commit: everything is kept, nobody was told
    ],
)
async def test_a_process_killed_around_its_commit_leaves_all_or_nothing(database, dies_in, effects):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DYING_PROCESS, database, dies_in, KEY), cwd=ROOT
    )
    assert -signal.SIGKILL == await asyncio.wait_for(process.wait(), timeout=30)

    async with running_log(database) as world:
        assert {0: effects} == await read_heads(world.pool)
        assert effects == await world.count("kernel.requests")
        assert effects == await world.count("things.things")
        same(
            await world.make("hat", request_id=KEY),
            await world.make("hat", request_id=KEY),
        )
        assert {0: 1} == await read_heads(world.pool)
        await world.assert_whole()


async def test_a_response_of_any_size_is_given_back(world):
    things = [f"thing {number}" * 20 for number in range(500)]
    first = await world.execute(PutRequest(name="boxes/1", things=things, request_id=KEY))

    again = await world.execute(PutRequest(name="boxes/1", things=things, request_id=KEY))
    assert isinstance(again, Box)
    same(first, again)
