"""A profile enters and exits once per change of the truth, stamped with when it became true."""

import asyncio
from datetime import timedelta

from rapport.segments.v1.events_pb2 import SegmentArchived
from tests.segments_world import DAY, START, People, activity, trait

US = timedelta(microseconds=1)


async def test_a_fact_lets_a_profile_enter_at_the_facts_time(world):
    people = People()
    await world.create("buyers", activity(count_min=2))

    await world.hear(*people.did("a", "Order", START - DAY))
    assert await world.members("buyers") == set()
    await world.hear(*people.did("a", "Order", START - timedelta(hours=1)))

    assert await world.transitions("buyers") == [("of-a", "in", START - timedelta(hours=1))]


async def test_time_alone_lets_it_exit_at_the_due_moment(world):
    people = People()
    await world.create("buyers", activity())
    await world.hear(*people.did("a", "Order", START))

    world.clock.set(START + 7 * DAY - US)
    await world.settle()
    assert await world.members("buyers") == {"of-a"}
    world.clock.set(START + 9 * DAY)
    await world.settle()

    assert await world.transitions("buyers") == [
        ("of-a", "in", START),
        ("of-a", "out", START + 7 * DAY),
    ]
    assert await world.pool.fetchval("select count(*) from agenda.due") == 0


async def test_a_fact_in_the_future_counts_from_its_time_on(world):
    people = People()
    await world.create("buyers", activity())
    await world.hear(*people.did("a", "Order", START + DAY))
    assert await world.members("buyers") == set()

    world.clock.set(START + 2 * DAY)
    await world.settle()

    assert await world.transitions("buyers") == [("of-a", "in", START + DAY)]


async def test_a_trait_that_is_taken_back_ends_membership_when_that_was_said(world):
    people = People()
    await world.create("gold", trait("gold"))
    await world.hear(*people.did("a", "Order", START), *people.became("of-a", START, tier="gold"))

    world.clock.advance(DAY)
    await world.hear(*people.became("of-a", START + DAY, tier=None))

    assert await world.transitions("gold") == [("of-a", "in", START), ("of-a", "out", START + DAY)]


async def test_a_late_fact_outside_the_window_changes_nothing(world):
    people = People()
    await world.create("buyers", activity())

    await world.hear(*people.did("a", "Order", START - 7 * DAY))

    assert await world.transitions("buyers") == []


async def test_a_merged_profile_exits_and_the_survivor_has_it_all(world):
    people = People()
    await world.create("buyers", activity(count_min=2))
    await world.create("gold", trait("gold"))
    await world.hear(*people.did("a", "Order", START - DAY), *people.did("b", "Order", START))
    await world.hear(*people.became("of-b", START, tier="gold"))

    await world.hear(*people.merged("of-a", "of-b", START))
    assert await world.members("buyers") == {"of-a"}
    assert await world.members("gold") == {"of-a"}

    await world.hear(*people.split("of-a", ["b"], "of-b", START))
    assert await world.members("buyers") == set()
    assert await world.members("gold") == {"of-b"}


async def test_who_was_in_for_something_that_was_taken_back_exits(world):
    people = People()
    await world.create("buyers", activity(count_min=2))
    await world.create("once", activity())
    await world.hear(*people.did("a", "Order", START - DAY), *people.did("a", "Order", START))

    world.clock.advance(DAY)
    await world.hear(*people.never_did("a", 0, world.clock.now()))

    assert await world.members("once") == {"of-a"}
    assert await world.transitions("buyers") == [
        ("of-a", "in", START),
        ("of-a", "out", START + DAY),
    ]


async def test_a_profile_that_is_no_more_exits_and_leaves_nothing(world):
    people = People()
    await world.create("buyers", activity())
    await world.create("gold", trait("gold"))
    await world.hear(*people.did("a", "Order", START), *people.became("of-a", START, tier="gold"))

    await world.hear(*people.never_did("a", 0, START))

    assert await world.members("buyers") == await world.members("gold") == set()
    tables = ("profiles", "traits", "atoms", "activities")
    for table in tables:
        assert not await world.pool.fetch(f"select from profile_facts.{table}")
    await world.hear(*people.did("a", "Order", START))
    assert await world.members("buyers") == {"of-a"}


async def test_an_activity_that_is_told_and_taken_back_in_one_batch_never_counts(world):
    people = People()
    await world.create("buyers", activity())
    told = people.did("a", "Order", START)

    await world.hear(*told, *people.did("b", "Order", START), *people.never_did("a", 0, START))

    assert await world.transitions("buyers") == [("of-b", "in", START)]


async def test_a_new_segment_is_filled_page_by_page_and_an_archived_one_emptied(world, monkeypatch):
    monkeypatch.setattr("services.segments.upkeep.PROFILES_PER_FILL_MAX", 2)
    monkeypatch.setattr("services.segments.upkeep.EXITS_PER_STEP_MAX", 2)
    people = People()
    for number in range(5):
        await world.hear(*people.did(f"{number}", "Order", START - number * 3 * DAY))

    await world.create("buyers", activity())
    await world.settle()
    assert await world.members("buyers") == {"of-0", "of-1", "of-2"}

    await world.record("buyers", SegmentArchived())
    world.clock.advance(DAY)
    await world.settle()
    exits = sorted((await world.transitions("buyers"))[3:])
    assert [found[:2] for found in exits] == [(f"of-{number}", "out") for number in range(3)]
    # When it was archived, not when its members were looked at; the log's times always grow.
    assert all(timedelta() <= moment - START < timedelta(seconds=1) for *_, moment in exits)
    await world.hear(*people.did("9", "Order", START))
    assert await world.members("buyers") == set()


async def test_looking_again_says_nothing_again(world):
    people = People()
    await world.create("buyers", activity())
    events = world.recorded(*people.did("a", "Order", START))
    await world.apply(events)

    await world.apply(events)
    await world.pool.execute("update agenda.due set due_time = $1", START - DAY)
    await world.pool.execute("truncate agenda.fills")
    await world.settle()

    assert await world.transitions("buyers") == [("of-a", "in", START)]
    assert await world.pool.fetchval("select due_time from agenda.due") == START + 7 * DAY


async def test_a_workspace_never_sees_anothers_facts(world):
    people = People()
    await world.create("buyers", activity(), workspace="other")

    await world.hear(*people.did("a", "Order", START))
    await world.settle()

    assert await world.members("buyers", "other") == set()


async def test_a_replica_whose_clock_is_behind_fetches_nobody_back(world):
    people = People()
    await world.create("buyers", activity())
    await world.hear(*people.did("a", "Order", START))
    world.clock.set(START + 7 * DAY)
    await world.settle()

    world.clock.set(START + 7 * DAY - timedelta(milliseconds=50))
    await world.hear(*people.did("a", "Order", START - DAY))

    assert [way for _, way, _ in await world.transitions("buyers")] == ["in", "out"]


async def test_replicas_that_keep_up_together_say_everything_once(world):
    people = People()
    await world.create("buyers", activity())
    facts = [fact for n in range(50) for fact in people.did(f"{n}", "Order", START)]
    await world.hear(*facts)
    world.clock.advance(30 * DAY)
    await world.create("late", activity(window_days=60))

    replica = world.new_upkeep()
    late = world.hear(*people.did("50", "Order", START + 29 * DAY))
    await asyncio.gather(world.settle(), *(replica.step() for _ in range(5)), late)
    await world.settle()

    everybody = sorted(f"of-{n}" for n in range(51))
    buyers = await world.transitions("buyers")
    assert sorted(profile for profile, way, _ in buyers if way == "in") == everybody
    assert sorted(profile for profile, way, _ in buyers if way == "out") == sorted(
        set(everybody) - {"of-50"}
    )
    entered = await world.transitions("late")
    assert sorted(profile for profile, _, _ in entered) == everybody
