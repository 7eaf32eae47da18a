"""A view can be built anew beside the live one, compared and swapped, while everything goes on."""

import asyncio
from dataclasses import dataclass, replace

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from services.kernel.feed.source import own_source
from services.kernel.log.database import transaction
from services.kernel.log.log import read_partition
from services.kernel.log.tables import create_kernel_tables
from services.kernel.views.checkpoint import Place, create_checkpoint, read_positions, take_lease
from services.kernel.views.projection import Consumer, Projection, ProjectionMetrics, retry_parked
from services.kernel.views.rebuild import DifferenceError, Rebuild, RebuildError
from services.kernel.views.view import ViewShapeError, digest, ensure_live, list_generations
from tests.tallies import TEXTS, Echo, Tallies, text_log, texts


@dataclass
class World:
    """A log with an inline view or a consumer's, and its rebuild."""

    pool: asyncpg.Pool
    log: object
    view: Tallies
    inline: bool
    rebuild: Rebuild
    policy: object = None

    async def record(self, *appends):
        """Append, and apply as the live view would."""
        async with transaction(self.pool) as tx:
            landed = await self.log.append(tx, appends)
            if self.inline:
                await self.view.apply(tx, self.view.name, landed.events)
        if not self.inline:
            await self._project()

    async def _project(self):
        place = Place("tallies", "things", 0)
        await create_checkpoint(self.pool, place)
        lease = await take_lease(self.pool, place, "tests", 0)
        batch = await read_partition(self.pool, 0, after=lease.position)
        projection = Projection(
            pool=self.pool,
            log=self.log,
            consumer=Consumer(self.view, ("things",), TEXTS, self.policy),
            source="things",
            partition=0,
            open_reader=None,
            owner="tests",
            metrics=ProjectionMetrics(CollectorRegistry()),
        )
        if batch:
            await projection.apply(lease, batch)

    async def build(self):
        return [progress async for progress in self.rebuild.build()]

    async def statuses(self):
        rows = await list_generations(self.pool)
        return {row["generation"]: row["status"] for row in rows}

    async def rows(self, schema="tallies"):
        rows = await self.pool.fetch(f"select stream, events from {schema}.tallies order by 1")
        return {row["stream"]: row["events"] for row in rows}


@pytest.fixture(params=["inline", "fed"])
async def world(request, database):
    """Every promise holds for views in the append's transaction and for views fed by feeds."""
    pool = await asyncpg.create_pool(database, min_size=1, max_size=6)
    log, view = text_log(), Tallies()
    async with transaction(pool) as tx:
        await create_kernel_tables(tx, 1)
        await ensure_live(tx, view, log.clock)
    inline = request.param == "inline"
    readers = {} if inline else {"things": own_source(pool).read}
    yield World(pool, log, view, inline, Rebuild(pool, log, view, TEXTS, readers))
    await pool.close()


async def test_a_rebuilt_view_equals_the_live_one(world):
    await world.record(texts("thing-1", "a", "b"), texts("thing-2", "c"))

    progress = await world.build()
    comparison = await world.rebuild.compare()

    assert (progress[-1].done, progress[-1].total) == (3, 3)
    assert comparison.equal
    assert comparison.built["tallies"][0] == 2


async def test_a_difference_in_one_row_is_seen_and_stops_the_swap(world):
    await world.record(texts("thing-1", "a", "b"), texts("thing-2", "c"))
    await world.pool.execute("update tallies.tallies set letters = 7 where stream = 'thing-1'")
    await world.build()

    assert not (await world.rebuild.compare()).equal
    with pytest.raises(DifferenceError):
        await world.rebuild.swap()
    assert await world.statuses() == {1: "LIVE", 2: "BUILDING"}

    await world.rebuild.swap(accept_difference=True)
    assert await world.statuses() == {1: "RETIRED", 2: "LIVE"}


async def test_a_swap_catches_up_and_later_events_reach_the_new_generation_only(world):
    await world.record(texts("thing-1", "a"))
    await world.build()
    await world.record(texts("thing-1", "b"))

    await world.rebuild.swap()
    await world.record(texts("thing-1", "c"))

    assert await world.rows() == {"thing-1": 3}
    assert await world.rows("tallies_g1") == {"thing-1": 2}


async def test_a_reader_with_a_prepared_statement_reads_the_new_generation_after_the_swap(world):
    await world.record(texts("thing-1", "a"))
    async with world.pool.acquire() as reader:
        count = await reader.prepare("select sum(events) from tallies.tallies")
        assert await count.fetchval() == 1
        await world.build()
        await world.rebuild.swap()
        await world.record(texts("thing-1", "b"))

        assert await count.fetchval() == 2


async def test_a_stopped_rebuild_goes_on_where_it_was(world, monkeypatch):
    monkeypatch.setattr("services.kernel.views.rebuild.READ_BATCH_SIZE", 2)
    await world.record(texts("thing-1", *"abcdef"))
    first = world.rebuild.build()
    await anext(first)
    await anext(first)
    await first.aclose()

    progress = await world.build()

    assert progress[0].total == 4
    assert (await world.rebuild.compare()).equal
    assert await world.statuses() == {1: "LIVE", 2: "BUILDING"}


async def test_two_rebuilds_of_one_view_cannot_apply_an_event_twice(world, monkeypatch):
    monkeypatch.setattr("services.kernel.views.rebuild.READ_BATCH_SIZE", 3)
    await world.record(texts("thing-1", *"abcdefghijklmnopqrstuvwxyz"))
    await anext(world.rebuild.build())

    results = await asyncio.gather(world.build(), world.build(), return_exceptions=True)

    assert all(isinstance(r, list | RebuildError | asyncpg.SerializationError) for r in results)
    await world.build()
    assert (await world.rebuild.compare()).equal


async def test_a_retired_generation_is_kept_until_it_is_dropped_and_the_live_one_never_is(world):
    await world.record(texts("thing-1", "a"))
    await world.build()
    await world.rebuild.swap()

    with pytest.raises(RebuildError):
        await world.rebuild.drop(2)
    await world.rebuild.drop(1)

    assert await world.statuses() == {2: "LIVE"}
    assert await world.pool.fetchval("select to_regnamespace('tallies_g1')") is None
    with pytest.raises(RebuildError):
        await world.rebuild.compare()


async def test_code_of_another_shape_refuses_the_live_generation_until_it_is_rebuilt(world):
    await world.record(texts("thing-1", "a"))
    newer = replace(world.view, shape=2)
    with pytest.raises(ViewShapeError, match="rebuild tallies"):
        async with transaction(world.pool) as tx:
            await ensure_live(tx, newer, world.log.clock)

    rebuild = replace(world.rebuild, view=newer)
    assert [p async for p in rebuild.build()]
    await rebuild.swap()

    async with transaction(world.pool) as tx:
        assert await ensure_live(tx, newer, world.log.clock) is False


async def test_the_log_goes_on_while_a_view_is_built_compared_and_swapped(world):
    """Writers never stop; in the end nothing is missing and nothing is there twice."""
    await world.record(texts("thing-0", "a"))
    done = asyncio.Event()

    async def write():
        number = 0
        while not done.is_set():
            number += 1
            await world.record(texts(f"thing-{number % 7}", "x"))
        return number

    writer = asyncio.create_task(write())
    for _ in range(3):
        await world.build()
        assert (await world.rebuild.compare()).equal
        await world.rebuild.swap()
    done.set()
    written = await writer

    assert sum((await world.rows()).values()) == written + 1
    await world.build()
    assert (await world.rebuild.compare()).equal


async def test_the_writers_do_not_wait_while_an_old_rebuild_catches_up(world, monkeypatch):
    await world.record(texts("thing-1", "a"))
    await world.build()
    await world.record(texts("thing-1", *"bcdef"))
    held_for = []
    apply = Rebuild._catch_up

    async def watched(self, tx, generation, live):
        built = await read_positions(tx, self.view.name, generation)
        held_for.append(sum(live.values()) - sum(built.values()))
        await apply(self, tx, generation, live)

    monkeypatch.setattr(Rebuild, "_catch_up", watched)
    await world.rebuild.swap()

    assert held_for == [0, 0]


async def test_what_was_parked_is_in_the_new_generation_and_cannot_be_applied_again(database):
    pool = await asyncpg.create_pool(database, min_size=1, max_size=6)
    log, view = text_log(), Tallies()
    async with transaction(pool) as tx:
        await create_kernel_tables(tx, 1)
        await ensure_live(tx, view, log.clock)
    read = own_source(pool).read
    rebuild = Rebuild(pool, log, view, TEXTS, {"things": read})
    world = World(pool, log, view, False, rebuild)
    await world.record(texts("thing-1", "poison", "b"))
    view.poisons.clear()
    await world.build()
    await rebuild.swap(accept_difference=True)

    place, consumer = Place("tallies", "things", 0), Consumer(view, ("things",), TEXTS)
    assert await retry_parked(pool, log, consumer, place, "acme", "thing-1", read) == 0
    await world.record(texts("thing-1", "c"))

    assert await world.rows() == {"thing-1": 3}
    await pool.close()


async def test_what_is_parked_is_retried_before_the_swap_of_a_view_with_a_policy(database):
    """Else nobody would ever say what follows from it: a rebuild runs no policy."""
    pool = await asyncpg.create_pool(database, min_size=1, max_size=6)
    log, consumer = text_log(), Consumer(Tallies(), ("things",), TEXTS, Echo())
    async with transaction(pool) as tx:
        await create_kernel_tables(tx, 1)
        await ensure_live(tx, consumer.view, log.clock)
    read = own_source(pool).read
    rebuild = Rebuild.of_consumer(pool, log, consumer, {"things": read})
    world = World(pool, log, consumer.view, False, rebuild, consumer.policy)
    await world.record(texts("thing-1", "poison"))
    consumer.view.poisons.clear()
    await world.build()

    with pytest.raises(RebuildError, match="retry the parked events first"):
        await rebuild.swap(accept_difference=True)
    place = Place("tallies", "things", 0)
    assert await retry_parked(pool, log, consumer, place, "acme", "thing-1", read) == 1
    await rebuild.swap()

    assert await pool.fetchval("select count(*) from kernel.events where stream like 'echo-%'") == 1
    await pool.close()


async def test_a_rebuild_runs_no_policy(database):
    pool = await asyncpg.create_pool(database, min_size=1, max_size=4)
    log, consumer = text_log(), Consumer(Tallies(), ("things",), TEXTS, Echo())
    async with transaction(pool) as tx:
        await create_kernel_tables(tx, 1)
        await ensure_live(tx, consumer.view, log.clock)
        await log.append(tx, [texts("thing-1", "a")])
        place = Place("tallies", "things", 0)
        await create_checkpoint(tx, place, 1)
    rebuild = Rebuild.of_consumer(pool, log, consumer, {"things": own_source(pool).read})

    assert [progress async for progress in rebuild.build()][-1].done == 1

    assert await pool.fetchval("select position from kernel.heads") == 1
    await pool.close()


async def test_the_digest_tells_any_two_tables_apart(world):
    """Also the same rows in another order are equal, and a row twice is not a row once."""
    await world.pool.execute("create schema one; create table one.t (a text, b text)")
    await world.pool.execute("create schema two; create table two.t (a text, b text)")

    async def differ(one, two):
        await world.pool.execute("truncate one.t, two.t")
        for schema, rows in (("one", one), ("two", two)):
            await world.pool.executemany(f"insert into {schema}.t values ($1, $2)", rows)
        async with world.pool.acquire() as connection:
            return await digest(connection, "one") != await digest(connection, "two")

    assert not await differ([("a", "b"), ("c", "d")], [("c", "d"), ("a", "b")])
    assert await differ([("a", "b")], [("a", "b"), ("a", "b")])
    assert await differ([("a", "b"), ("a", "b")], [("c", "d"), ("c", "d")])
    assert await differ([("a", None)], [("a", "")])
    assert await differ([("a,b", "c")], [("a", "b,c")])
