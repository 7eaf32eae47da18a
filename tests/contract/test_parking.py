"""What cannot be applied is put aside with its stream, the others go on, and a retry makes it good.

A failure that is not the event's is waited for and parks nothing.
"""

import asyncpg
import pytest

from services.kernel.feed.feed import ForeignFeedError
from services.kernel.feed.source import own_source
from services.kernel.views.parking import BEHIND_PARKED, TooManyParkedError, list_parked
from services.kernel.views.projection import Consumer, retry_parked
from tests.projection_world import projection_world
from tests.tallies import TEXTS, Tallies, texts


@pytest.fixture
async def world(database):
    """A consumer without a policy."""
    made = await projection_world(database)
    yield made
    await made.pool.close()


async def test_poison_is_parked_with_its_reason_and_all_that_follows_in_its_stream(world):
    await world.record(
        texts("thing-1", "a", "poison", "later"), texts("thing-2", "b"), texts("thing-1", "last")
    )
    projection = world.projection()
    lease = await world.lease(projection)

    await projection.apply(lease, await world.batch())

    assert await world.tallies() == {"thing-1": (1, "a"), "thing-2": (1, "b")}
    assert await world.position() == 5
    parked = await list_parked(world.pool, "tallies")
    assert [(row["position"], row["reason"], row["attempts"]) for row in parked] == [
        (2, "ValueError: this text is poison", 1),
        (3, BEHIND_PARKED, 1),
        (5, BEHIND_PARKED, 1),
    ]


async def test_an_event_that_cannot_be_decoded_is_parked(world):
    await world.record(texts("thing-1", "a"))
    batch = await world.batch()
    batch[0].type = "rapport.gone.v1.Forgotten"
    projection = world.projection()

    await projection.apply(await world.lease(projection), batch)

    [parked] = await list_parked(world.pool, "tallies")
    assert "no event type rapport.gone.v1.Forgotten" in parked["reason"]


async def test_a_retry_applies_the_parked_stream_in_order_once_the_cause_is_mended(world):
    await world.record(texts("thing-1", "a", "poison", "later"))
    projection = world.projection()
    lease = await world.lease(projection)
    await projection.apply(lease, await world.batch())
    retry = (world.pool, world.log, world.consumer, projection.place, "acme", "thing-1")
    read = own_source(world.pool).read

    with pytest.raises(ValueError, match="poison"):
        await retry_parked(*retry, read)
    parked = await list_parked(world.pool, "tallies")
    assert [row["attempts"] for row in parked] == [2, 1]
    world.consumer.view.poisons.clear()
    assert await retry_parked(*retry, read) == 2

    assert await world.tallies() == {"thing-1": (3, "later")}
    assert await list_parked(world.pool, "tallies") == []
    await world.record(texts("thing-1", "goes on"))
    await projection.apply(lease, await world.batch(after=3))
    assert await world.tallies() == {"thing-1": (4, "goes on")}


async def test_a_retry_forgets_nothing_that_its_source_does_not_answer(world):
    await world.record(texts("thing-1", "poison"))
    projection = world.projection()
    await projection.apply(await world.lease(projection), await world.batch())
    world.consumer.view.poisons.clear()

    async def answers_nothing(*_):
        return []

    with pytest.raises(ForeignFeedError):
        await retry_parked(
            world.pool,
            world.log,
            world.consumer,
            projection.place,
            "acme",
            "thing-1",
            answers_nothing,
        )
    assert len(await list_parked(world.pool, "tallies")) == 1


async def test_too_many_parked_streams_stop_the_consumer(world, monkeypatch):
    monkeypatch.setattr("services.kernel.views.parking.PARKED_STREAMS_MAX", 2)
    await world.record(*(texts(f"thing-{n}", "poison") for n in range(3)))
    projection = world.projection()
    lease = await world.lease(projection)

    with pytest.raises(TooManyParkedError):
        await projection.apply(lease, await world.batch())

    assert len(await list_parked(world.pool, "tallies")) == 2
    assert await world.position() == 2


async def test_a_failing_database_is_waited_for_and_parks_nothing(world):
    await world.record(texts("thing-1", "a"))

    async def broken(*_):
        raise asyncpg.CannotConnectNowError("starting up")

    projection = world.projection(consumer=Consumer(Tallies(), ("things",), TEXTS))
    projection.consumer.view.apply = broken

    with pytest.raises(asyncpg.CannotConnectNowError):
        await projection.apply(await world.lease(projection), await world.batch())

    assert await list_parked(world.pool, "tallies") == []
    assert await world.position() == 0
