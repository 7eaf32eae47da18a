"""Who read what was live, and then what lies between, knows what is live now."""

import random

import pytest

from services.identity.projections import ProfilesView, differences
from tests.identity_reference import expected
from tests.identity_world import Facts, apply, batches, connected, create
from tests.integration.identity.test_order import Crowd, Reader, assert_told


async def between(connection, live="live", built="built"):
    """What is told between two schemas, part by part."""
    async with connection.transaction():
        return [part async for part in ProfilesView().changes_between(connection, live, built)]


async def told(connection, schema, events, rng):
    """Applies events to a schema in batches; returns who read what that told."""
    reader = Reader()
    await create(connection, schema)
    for batch in batches(rng, events, 200):
        reader.read(await apply(connection, batch, schema))
    return reader


@pytest.mark.parametrize(("seed", "kept_before", "kept_after"), [(1, 0.7, 0.7), (2, 1, 0.3)])
async def test_the_difference_leads_from_any_profiles_to_any_others(
    database, monkeypatch, seed, kept_before, kept_after
):
    monkeypatch.setattr(differences, "ROWS_PER_FETCH", 7)
    monkeypatch.setattr(differences, "CHANGES_PER_PART_MAX", 10)
    monkeypatch.setattr(differences, "PROFILES_PER_FETCH", 3)
    rng, events = Crowd("changed", seed, retracting=3, judging=3).facts()
    before = [event for event in events if rng.random() < kept_before]
    after = [event for event in events if rng.random() < kept_after]
    async with connected(database) as connection:
        reader = await told(connection, "live", before, rng)
        await told(connection, "built", after, rng)
        parts = await between(connection)

    for part in parts:
        assert len(part) <= 10
        reader.read(part)
    assert_told(reader, expected(after))


async def test_who_lost_as_much_as_came_to_them_is_counted_anew(database):
    facts = Facts()
    before = [
        facts.track(user_id="u1"),
        facts.track(user_id="u1", anonymous_id="a1"),
        facts.track(anonymous_id="a1", occurred=0),
    ]
    cut = facts.cut(("user_id", "u1"), ("anonymous_id", "a1"))
    after = [*before, cut, facts.track(user_id="u1", occurred=0)]
    async with connected(database) as connection:
        reader = await told(connection, "live", before, random.Random(1))
        await told(connection, "built", after, random.Random(1))
        for part in await between(connection):
            reader.read(part)

    assert_told(reader, expected(after))


async def test_between_equal_generations_lies_nothing(database):
    rng, events = Crowd("changed", 3, retracting=3, judging=3).facts()
    async with connected(database) as connection:
        await told(connection, "live", events, rng)
        await told(connection, "built", events, random.Random(5))

        assert await between(connection) == []


async def test_only_what_differs_is_told(database):
    facts = Facts()
    both = [facts.identify(user_id=f"u{n}", traits={"plan": "gold"}) for n in range(5)]
    joined = facts.track(user_id="u1", anonymous_id="a")
    alone = facts.track(anonymous_id="a")
    async with connected(database) as connection:
        await told(connection, "live", [*both, alone], random.Random(1))
        await told(connection, "built", [*both, alone, joined], random.Random(1))
        parts = await between(connection)

    assert [
        "ProfileIdentifiersChanged",
        "ProfileIdentifiersChanged",
        "ProfilesMerged",
        "ProfileActivityRecorded",
        "ProfileRecounted",
    ] == [change.event.DESCRIPTOR.name for part in parts for change in part]
    origin = parts[0][0].cause
    assert ("acme", "services/identity", "generation built") == (
        origin.workspace,
        origin.actor,
        origin.correlation_id,
    )
