"""A segment that cannot be kept up is parked with its reason; all others are kept up as ever."""

import asyncio
from datetime import timedelta

from prometheus_client import CollectorRegistry

from rapport.segments.v1.events_pb2 import SegmentArchived
from services.segments.upkeep import Upkeep, UpkeepMetrics
from tests.segments_world import DAY, START, People, activity

MINUTE = timedelta(minutes=1)


async def corrupt(world, segment_id, workspace="acme"):
    """Nobody can read the segment's rule any more; answers what it was."""
    return await world.pool.fetchval(
        """update segments.segments s set rule = '\\xff' from segments.segments before
        where (s.workspace, s.segment_id) = ($1, $2)
          and (before.workspace, before.segment_id) = ($1, $2) returning before.rule""",
        workspace,
        segment_id,
    )


async def mend(world, segment_id, rule):
    """The segment's rule is what it was."""
    await world.pool.execute(
        "update segments.segments set rule = $2 where segment_id = $1", segment_id, rule
    )


async def parked(world):
    """What is set aside, and how often it was tried."""
    rows = await world.pool.fetch(
        "select work, segment_id, profile_id, attempts from agenda.parked order by 1, 2, 3"
    )
    return [tuple(row) for row in rows]


async def test_a_segment_that_cannot_be_filled_is_parked_and_the_others_are_filled(world):
    registry = CollectorRegistry()
    world.upkeep = Upkeep(world.kernel, UpkeepMetrics(registry))
    people = People()
    await world.hear(*people.did("a", "Order", START))
    await world.create("broken", activity())
    await world.create("whole", activity())
    rule = await corrupt(world, "broken")

    await world.settle()
    assert await world.members("whole") == {"of-a"}
    assert await parked(world) == [("fill", "broken", "", 1)]
    assert "DecodeError" in await world.pool.fetchval("select reason from agenda.parked")
    assert registry.get_sample_value("rapport_upkeep_parked_total", {"work": "fill"}) == 1

    world.clock.advance(MINUTE)
    await world.settle()
    assert await parked(world) == [("fill", "broken", "", 2)]
    world.clock.advance(MINUTE)
    await mend(world, "broken", rule)
    await world.settle()
    assert await world.members("broken") == set()
    world.clock.advance(MINUTE)
    await world.settle()
    assert await world.members("broken") == {"of-a"}
    assert await parked(world) == []


async def test_a_due_look_that_fails_is_parked_alone(world):
    people = People()
    await world.create("broken", activity())
    await world.create("whole", activity())
    facts = [fact for n in range(5) for fact in people.did(f"{n}", "Order", START)]
    await world.hear(*facts)
    await world.settle()
    rule = await corrupt(world, "broken")

    world.clock.advance(8 * DAY)
    await world.settle()
    assert await world.members("whole") == set()
    assert await parked(world) == [("look_again", "broken", f"of-{n}", 1) for n in range(5)]

    await mend(world, "broken", rule)
    await world.pool.execute("truncate agenda.parked")
    await world.settle()
    assert await world.members("broken") == set()


async def test_an_archived_segment_that_cannot_be_emptied_does_not_hold_up_another(world):
    people = People()
    await world.create("broken", activity())
    await world.create("whole", activity())
    await world.hear(*people.did("a", "Order", START))
    await world.settle()
    await world.record("broken", SegmentArchived())
    await world.record("whole", SegmentArchived())
    await corrupt(world, "broken")

    await world.settle()

    assert await world.members("whole") == set()
    assert await parked(world) == [("empty", "broken", "", 1)]


async def test_a_steady_stream_of_dues_starves_neither_exits_nor_fills(world, monkeypatch):
    monkeypatch.setattr("services.segments.upkeep.DUES_PER_STEP_MAX", 1)
    people = People()
    await world.create("buyers", activity())
    await world.create("old", activity())
    await world.hear(*people.did("a", "Order", START), *people.did("b", "Order", START))
    await world.settle()
    world.clock.advance(8 * DAY)
    await world.record("old", SegmentArchived())
    await world.create("new", activity(window_days=30))

    for _ in range(3):
        assert await world.upkeep.step()

    assert await world.pool.fetchval(
        "select count(*) from agenda.due where due_time < $1", START + 8 * DAY
    )
    assert await world.members("old") == set()
    assert await world.members("new") == {"of-a", "of-b"}


async def test_segments_take_turns_in_being_filled(world, monkeypatch):
    monkeypatch.setattr("services.segments.upkeep.PROFILES_PER_FILL_MAX", 1)
    people = People()
    facts = [fact for n in range(5) for fact in people.did(f"{n}", "Order", START)]
    await world.hear(*facts)
    await world.create("first", activity())
    await world.create("second", activity())

    for _ in range(4):
        assert await world.upkeep.step()

    assert len(await world.members("first")) == len(await world.members("second")) == 2


async def test_a_database_that_is_away_parks_nothing(world, monkeypatch):
    await world.create("buyers", activity())

    async def away(*_):
        raise ConnectionResetError

    monkeypatch.setattr("services.segments.upkeep.next_candidates", away)
    [failure] = await asyncio.gather(world.upkeep.step(), return_exceptions=True)

    assert isinstance(failure, ConnectionResetError)
    assert await parked(world) == []
