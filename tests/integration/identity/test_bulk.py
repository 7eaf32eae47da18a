"""All facts at once give the rows that folding them batch by batch gives, in every table."""

import pytest

from rapport.events.v1.events_pb2 import CustomerEventRetracted
from services.identity.facts import read_fact
from services.identity.projections import ProfilesView, bulk
from services.identity.projections.timeline import add_activities
from services.identity.rules import DEFAULT
from services.kernel.views.bulk import TooMuchForBulkError
from services.kernel.views.view import digest
from tests.identity_reference import expected
from tests.identity_world import Facts, apply, batches, connected, create, view_of
from tests.integration.identity.test_order import OF_CROWDS, assert_tables

_INDEXES = """
select tablename, indexname, replace(indexdef, schemaname || '.', '') as definition
from pg_indexes where schemaname = $1 order by 1, 2
"""


async def build(connection, events, schema="bulk", rng=None, rules=DEFAULT):
    """Makes a view of all events at once."""
    await create(connection, schema)
    async with connection.transaction():
        built = view_of(rules).bulk(connection, schema)
        for batch in batches(rng, events, 300) if rng else [events]:
            await built.add(batch)
        await built.finish()


async def indexes(connection, schema):
    return [tuple(row) for row in await connection.fetch(_INDEXES, schema)]


@OF_CROWDS
async def test_a_dense_crowd_at_once_is_row_for_row_what_it_is_batch_by_batch(
    database, monkeypatch, crowd
):
    monkeypatch.setattr(bulk, "BATCH_SIZE", 20)
    rng, events = crowd.facts()
    async with connected(database) as connection:
        await create(connection, "folded")
        for batch in batches(rng, events, 300):
            await apply(connection, batch, "folded", crowd.rules)
        await build(connection, events, rng=rng, rules=crowd.rules)

        assert await digest(connection, "bulk") == await digest(connection, "folded")
        assert await indexes(connection, "bulk") == await indexes(connection, "folded")
        await assert_tables(connection, "bulk", expected(events, crowd.rules))


async def test_what_is_recorded_again_behind_its_retraction_is_a_fact(database):
    facts = Facts()
    event = facts.imported(user_id="u", message_id="m")
    again = facts.imported(user_id="v", message_id="m")
    async with connected(database) as connection:
        await build(connection, [event, facts.retracted(event), again])
        values = await connection.fetch("select value from bulk.nodes")

    assert ["v"] == [row["value"] for row in values]


async def test_more_retractions_than_are_kept_are_not_built_at_once(database, monkeypatch):
    monkeypatch.setattr(bulk, "POSTPONED_MAX", 2)
    facts = Facts()
    events = [facts.imported(user_id=f"u{n}") for n in range(3)]
    retractions = [facts.retracted(event) for event in events]
    async with connected(database) as connection:
        await build(connection, [*events, *retractions[:2]])
        with pytest.raises(TooMuchForBulkError):
            await build(connection, [*events, *retractions], "too_much")


async def test_what_is_about_nobody_counts_as_well_towards_what_is_built_at_once(database):
    facts = Facts()
    of_nobody = [facts.deal_opened(f"d{number}", "") for number in range(3)]
    view = view_of(DEFAULT)
    view.events_in_bulk_max = 2
    async with connected(database) as connection, connection.transaction():
        await create(connection, "bulk")
        built = view.bulk(connection, "bulk")
        await built.add(of_nobody[:2])
        with pytest.raises(TooMuchForBulkError):
            await built.add(of_nobody[2:])


def test_what_is_read_in_bulk_is_what_is_folded():
    built = ProfilesView().bulk(None, "bulk")

    assert "rapport.events.v1.CustomerEventRecorded" in built.heeds
    assert CustomerEventRetracted.DESCRIPTOR.full_name in built.heeds
    assert "rapport.identity.v1.ProfileCreated" not in built.heeds


async def test_activities_that_are_copied_are_as_those_that_are_inserted(database):
    facts = Facts()
    events = [
        facts.track(user_id="u"),
        facts.imported("identify", user_id="u", traits={"email": "ü@x.com", "plan": None}),
        facts.sent("group", user_id="u", group_id="g", traits={"size": 7}),
        facts.contact_created("c", email="a@x.com", phone="+493012345"),
    ]
    read = [read_fact(DEFAULT, event, {}) for event in events]
    async with connected(database) as connection:
        for schema in ("copied", "inserted"):
            await create(connection, schema)
        await add_activities(connection, "copied", read)
        await add_activities(connection, "inserted", read[:1])
        # One that comes again cannot be copied.
        await add_activities(connection, "inserted", read)

        copied = await connection.fetch("select * from copied.timeline order by activity_id")
        assert copied == await connection.fetch(
            "select * from inserted.timeline order by activity_id"
        )
        assert len(copied) == len(events)
