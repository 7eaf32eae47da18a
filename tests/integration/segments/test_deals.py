"""From a deal to a segment: what identity makes of deals is what segments ask of."""

from datetime import UTC

import pytest

from services.kernel.clock import FixedClock
from services.kernel.process.runtime import open_pool
from tests.identity_world import Facts, apply, at, create
from tests.segments_world import SegmentsWorld, trait


@pytest.fixture
async def platform(database):
    """Identity's view and the segments, on one database, without a feed in between."""
    async with open_pool(database) as pool:
        world = SegmentsWorld(pool, FixedClock(at(60)))
        await world.prepare()
        async with pool.acquire() as connection:
            await create(connection, "profiles")
        yield world


async def happens(world, *events):
    """Identity takes facts in, one by one, and segments hear what it tells."""
    for event in events:
        async with world.pool.acquire() as connection:
            told = [change.event for change in await apply(connection, [event])]
        await world.hear(*told)


async def ways(world, segment_id):
    """Which way, and in which minute."""
    return [
        (way, (moment.astimezone(UTC) - at(0)).total_seconds() // 60)
        for _, way, moment in await world.transitions(segment_id)
    ]


@pytest.mark.parametrize(
    "condition",
    [
        trait(1, name="won_deal_count", operator="AT_LEAST"),
        trait(99900, name="lifetime_value_eur_minor", operator="AT_LEAST"),
        trait("won", name="deal_stages", operator="CONTAINS"),
        trait("products/loom", name="products_owned", operator="CONTAINS"),
        trait("2026-01-01", name="last_won_time", operator="AT_LEAST"),
    ],
)
async def test_who_wins_enters_when_it_was_won_and_leaves_when_it_was_reopened(platform, condition):
    facts = Facts()
    await platform.create("customers", condition)
    await happens(
        platform,
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_opened("d2", "bob", occurred=1),
    )
    await happens(
        platform,
        facts.deal_won(
            "d1",
            "ada",
            amount_minor=99900,
            currency="EUR",
            products=["products/desk", "products/loom"],
            occurred=3,
        ),
    )
    assert len(await platform.members("customers")) == 1
    await happens(platform, facts.deal_reopened("d1", occurred=5))

    assert await ways(platform, "customers") == [("in", 3), ("out", 5)]


async def test_who_has_only_open_deals_is_found_by_what_was_not_won(platform):
    facts = Facts()
    never_bought = trait(0, name="won_deal_count", operator="EQUALS")
    await platform.create("prospects", trait(1, "open_deal_count", "AT_LEAST"), never_bought)
    await happens(
        platform,
        facts.contact_created("ada"),
        facts.deal_opened("d1", "ada", occurred=2),
        facts.deal_won("d1", "ada", occurred=4),
    )

    assert await ways(platform, "prospects") == [("in", 2), ("out", 4)]
