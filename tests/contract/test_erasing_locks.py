"""Who erases holds all that is written, in the order in which everybody else takes it."""

import asyncio

import pytest

from services.kernel.erasing import tombstones
from services.kernel.log.database import transaction
from services.kernel.testing import eventually
from services.kernel.views.checkpoint import (
    FencedError,
    Place,
    begin_checkpoints,
    hold_checkpoint,
    read_positions,
)
from tests.projection_world import projection_world
from tests.tallies import texts

DEADLOCKED_S = 5.0


@pytest.fixture
async def world(database):
    world = await projection_world(database)
    yield world
    await world.pool.close()


async def test_who_compares_generations_and_who_erases_do_not_wait_for_each_other(world):
    """A comparison has the heads already, and needs the built one's checkpoint after that."""
    pool, log = world.pool, world.log
    place = Place("built", "things", 0, 7)
    await begin_checkpoints(pool, [place])
    async with transaction(pool) as comparing:
        await log.lock_heads(comparing, {0})
        erasing = asyncio.create_task(_hold(pool, log))
        await eventually(lambda: _waits(pool))
        async with asyncio.timeout(DEADLOCKED_S), transaction(pool) as building:
            await hold_checkpoint(building, place)
    await erasing


async def test_a_checkpoint_is_made_only_while_nobody_holds_them_all(world):
    """Else what it is of could be read before it is overwritten, and written after that."""
    pool, log = world.pool, world.log
    place = Place("built", "things", 0, 7)
    async with transaction(pool) as tx:
        await tombstones.hold_everything(tx, log)
        beginning = asyncio.create_task(begin_checkpoints(pool, [place]))
        await eventually(lambda: _waits(pool))
        early = await read_positions(pool, place.consumer, place.generation)
    await beginning
    late = await read_positions(pool, place.consumer, place.generation)

    assert ({}, {("things", 0): 0}) == (early, late)


async def _hold(pool, log):
    async with transaction(pool) as tx:
        await tombstones.hold_everything(tx, log)


async def _waits(pool):
    assert await pool.fetchval("select exists (select from pg_locks where not granted)")


async def test_a_consumer_goes_on_with_nothing_that_it_has_read_before(world):
    await world.record(texts("thing-1", "a", "b"))
    projection = world.projection()
    lease, batch = await world.lease(projection), await world.batch()
    async with transaction(world.pool) as tx:
        await tombstones.hold_everything(tx, world.log)
        await tombstones.overwrite(tx, world.log, "erasures/1", batch[:1])
    with pytest.raises(FencedError):
        await projection.apply(lease, batch)
    lease, batch = await world.lease(projection), await world.batch()
    await projection.apply(lease, batch)
    tallied = await world.tallies()

    assert {"thing-1": (1, "b")} == tallied
