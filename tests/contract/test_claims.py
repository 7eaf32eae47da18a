"""Claims: of all streams of a workspace at most one holds a value, and who asks learns which."""

import asyncio
import random

import pytest

from services.kernel.errors import AlreadyExists
from tests.box import Box
from tests.box_world import answers, running_log


@pytest.fixture
async def world(database):
    async with running_log(database) as world:
        yield world
        await world.assert_whole()
        await assert_claims_are_what_states_hold(world)


async def assert_claims_are_what_states_hold(world):
    """The table says nothing but what the boxes' labels say."""
    labels = {}
    for envelope in await world.logged():
        key = (envelope.workspace, envelope.stream)
        event = world.commands._event_types.decode(envelope).event
        if event.DESCRIPTOR.name == "BoxLabelled":
            labels[key] = event.label
        elif event.DESCRIPTOR.name == "BoxEmptied":
            labels.pop(key, None)
    rows = await world.pool.fetch("select workspace, stream, key from kernel.claims")
    assert sorted((*stream, label) for stream, label in labels.items()) == sorted(map(tuple, rows))


async def test_a_value_that_is_taken_is_refused_and_its_owner_named(world):
    await world.put("1", "hat", label="winter")

    with pytest.raises(AlreadyExists) as refusal:
        await world.put("2", "hat", label="winter")

    assert {"existing_name": "boxes/1", "field": "label"} == refusal.value.metadata


async def test_a_released_value_is_free(world):
    await world.put("1", "hat", label="winter")
    await world.empty("1")

    assert "winter" == (await world.put("2", "hat", label="winter")).label


async def test_a_value_given_up_for_another_is_free(world):
    await world.put("1", label="winter")
    await world.put("1", label="summer")

    assert "winter" == (await world.put("2", label="winter")).label
    assert isinstance((await answers([world.put("2", label="summer")]))[0], AlreadyExists)


async def test_what_an_aggregate_holds_it_may_take_again(world):
    await world.put("1", label="winter")

    assert "winter" == (await world.put("1", "hat", label="winter")).label


async def test_in_another_workspace_a_value_is_free(world):
    boxes = await answers(
        world.put("1", label="winter", workspace=workspace) for workspace in ("acme", "other")
    )

    assert ["winter", "winter"] == [box.label for box in boxes]


async def test_of_those_who_want_a_value_at_once_the_first_gets_it(world):
    found = await answers(world.put(f"{number}", label="winter") for number in range(10))

    assert [True] + [False] * 9 == [isinstance(box, Box) for box in found]
    assert {"boxes/0"} == {refusal.metadata["existing_name"] for refusal in found[1:]}


async def test_a_value_moves_within_one_group(world):
    await world.put("1", "hat", label="winter")

    found = await answers(
        [
            world.put("2", label="winter"),  # too early
            world.put("1", label="summer"),
            world.put("3", label="winter"),  # now it is free
            world.put("4", label="winter"),  # too late
        ]
    )

    assert [False, True, True, False] == [isinstance(box, Box) for box in found]
    assert ("boxes/1", "boxes/3") == tuple(
        found[place].metadata["existing_name"] for place in (0, 3)
    )


async def test_two_aggregates_cannot_swap_values_without_a_third(world):
    await world.put("1", label="winter")
    await world.put("2", label="summer")

    found = await answers([world.put("1", label="summer"), world.put("2", label="winter")])
    assert [AlreadyExists, AlreadyExists] == [type(refusal) for refusal in found]


async def test_a_refused_command_takes_and_releases_nothing(world):
    await world.put("1", label="winter")

    found = await answers(
        [world.put("1", "forbidden", label="summer"), world.put("2", "hat", label="summer")]
    )

    assert [False, True] == [isinstance(box, Box) for box in found]
    assert isinstance((await answers([world.put("3", label="winter")]))[0], AlreadyExists)


@pytest.mark.parametrize("partitions", [1, 4])
async def test_processes_that_want_the_same_values_at_once_never_share_one(database, partitions):
    chance = random.Random(partitions)
    async with (
        running_log(database, partitions=partitions) as one,
        running_log(database, partitions=partitions) as other,
    ):

        async def wander(process, box):
            for _ in range(15):
                if chance.random() < 0.2:
                    await answers([process.empty(box)])
                else:
                    await answers([process.put(box, label=chance.choice("abcde"))])

        await asyncio.gather(
            *(wander(process, f"{box}") for process in (one, other) for box in range(8))
        )
        await one.assert_whole()
        await assert_claims_are_what_states_hold(one)
