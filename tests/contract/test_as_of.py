"""What a view said at a moment is what its versions say for ever."""

import random
from datetime import timedelta

import pytest

from services.kernel.lists.filter import Fields
from services.kernel.lists.page_token import InvalidPageToken
from services.kernel.lists.paging import Listing, Positions, Table
from tests.box import BoxEmptied, BoxLabelled, ThingPut
from tests.boxes_world import NOON, SECOND, TICK, VERSIONS, put, world_of


@pytest.fixture
async def world(database):
    async with world_of(database) as world:
        yield world


def any_facts(dice):
    facts = [
        ThingPut(thing=dice.choice("abc")),
        BoxLabelled(label=dice.choice("xyz")),
        BoxEmptied(),
    ]
    return [dice.choice(facts) for _ in range(dice.randrange(1, 4))]


async def test_every_moment_sees_what_was_live_then(world):
    dice = random.Random(7)
    lived = {NOON - TICK: []}
    for _ in range(25):
        world.clock.advance(dice.choice([timedelta(0), TICK, SECOND]))
        boxes = dice.sample("abcd", dice.randrange(1, 4))
        time = await world.record(**{box: any_facts(dice) for box in boxes})
        lived[time] = await world.live()

    for moment, rows in lived.items():
        found, _ = await world.page(moment, order_by="label", size=100)
        one_by_one = [
            await VERSIONS.existing_at(world.pool, "acme", f"boxes/{row.aggregate_id}", moment)
            for row in rows
        ]

        assert rows == sorted(found, key=lambda row: row.aggregate_id) == one_by_one


async def test_what_was_between_two_events_of_one_transaction_was_never_to_be_seen(world):
    time = await world.record(a=put("hat", "coat"))
    later = time + SECOND
    world.clock.set(later)
    await world.record(a=[*put("scarf"), BoxEmptied()])

    kept = await world.pool.fetch(
        "select version, from_time, to_time from boxes.boxes_versions order by version"
    )

    assert [(1, time, time), (2, time, later), (3, later, later)] == [
        tuple(version) for version in kept[:3]
    ]
    assert [None, ("hat", "coat"), ("hat", "coat"), ()] == [
        await world.at(moment) for moment in (time - TICK, time, later - TICK, later)
    ]


@pytest.mark.parametrize("order_by", ["", "update_time desc", "label", "label desc"])
async def test_a_walk_as_of_a_moment_gives_the_list_of_then_whatever_is_written(world, order_by):
    dice = random.Random(3)
    for box in "abcdefg":
        await world.record(**{box: any_facts(dice)})
    world.clock.advance(SECOND)
    await world.record(a=put("before the walk"), h=put("new"))
    moment = await world.seal(world.clock.now())
    whole, _ = await world.page(moment, order_by, size=100)
    walked, token = await world.page(moment, order_by)
    while token:
        await world.record(**{dice.choice("abcdefghi"): any_facts(dice) for _ in range(3)})
        page, token = await world.page(moment, order_by, token=token)
        walked += page

    assert list("abcdefgh") == sorted(row.aggregate_id for row in walked)
    assert whole == walked


async def test_a_page_token_is_bound_to_its_moment(world):
    await world.record(a=put("hat"), b=put("hat"))
    _, token = await world.page(NOON, size=1)

    for other in (NOON - TICK, None):
        with pytest.raises(InvalidPageToken):
            await world.page(other, size=1, token=token)


async def test_a_filter_asks_what_was(world):
    time = await world.record(a=[BoxLabelled(label="x")], b=[BoxLabelled(label="y")])
    world.clock.advance(SECOND)
    await world.record(a=[BoxLabelled(label="y")])

    now, _ = await world.page(None, filter_="label = y")
    then, _ = await world.page(time, filter_="label = y")

    assert (["a", "b"], ["b"]) == (
        sorted(row.aggregate_id for row in now),
        [row.aggregate_id for row in then],
    )


def test_a_list_without_versions_has_no_past():
    listing = Listing(
        method="ListThings",
        table=Table("things", key="id", positions=Positions()),
        columns="id",
        fields=Fields({}),
    )

    with pytest.raises(ValueError, match="keeps no versions"):
        listing.query(workspace="acme", positions=(1,), moment=NOON)
