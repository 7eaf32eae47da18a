"""A projection applies each event once and in order, whatever crashes and however many work."""

import asyncio
import contextlib
from dataclasses import dataclass

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from services.kernel.feed.feed import ForeignFeedError
from services.kernel.feed.source import own_source
from services.kernel.log.database import is_passing, transaction
from services.kernel.log.log import read_heads, read_partition
from services.kernel.log.tables import create_kernel_tables
from services.kernel.process.runtime import partitions_of
from services.kernel.testing import eventually
from services.kernel.views.checkpoint import (
    FencedError,
    create_checkpoint,
    read_positions,
    take_lease,
)
from services.kernel.views.parking import BEHIND_PARKED, TooManyParkedError, list_parked
from services.kernel.views.projection import Consumer, Projection, ProjectionMetrics, retry_parked
from services.kernel.views.view import ensure_live
from tests.tallies import TEXTS, Echo, Tallies, text_log, texts


class OwnReader:
    """Reads the log from the database, as a feed would carry it."""

    def __init__(self, pool, partition, after):
        self.pool, self.partition, self.position = pool, partition, after

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def next_batch(self, *, max_events, max_wait_s):
        batch = await read_partition(
            self.pool, self.partition, after=self.position, limit=max_events
        )
        if batch:
            self.position = batch[-1].position
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max_wait_s, 0.01)):
                    await asyncio.Event().wait()
        return batch


@dataclass
class World:
    """A log `things`, a consumer that tallies it, and perhaps a policy that echoes it."""

    pool: asyncpg.Pool
    log: object
    consumer: Consumer
    metrics: ProjectionMetrics

    async def record(self, *appends):
        async with transaction(self.pool) as tx:
            await self.log.append(tx, appends)

    def projection(self, *, owner="one", lease_s=10.0, consumer=None):
        return Projection(
            pool=self.pool,
            log=self.log,
            consumer=consumer or self.consumer,
            source="things",
            partition=0,
            open_reader=lambda _, partition, after: OwnReader(self.pool, partition, after),
            owner=owner,
            metrics=self.metrics,
            lease_s=lease_s,
        )

    async def lease(self, projection):
        await create_checkpoint(self.pool, projection.place)
        return await take_lease(self.pool, projection.place, projection.owner, projection.lease_s)

    async def batch(self, after=0, limit=1000):
        return await read_partition(self.pool, 0, after=after, limit=limit)

    async def tallies(self):
        rows = await self.pool.fetch("select stream, events, last_text from tallies.tallies")
        return {row["stream"]: (row["events"], row["last_text"]) for row in rows}

    async def echoes(self):
        rows = await self.pool.fetch(
            "select stream, count(*) from kernel.events where stream like 'echo-%' group by 1"
        )
        return {row["stream"]: row["count"] for row in rows}

    async def position(self):
        return (await read_positions(self.pool, "tallies")).get(("things", 0), 0)


async def _world(database, policy=None):
    pool = await asyncpg.create_pool(database, min_size=1, max_size=6)
    log = text_log()
    consumer = Consumer(Tallies(), ("things",), TEXTS, policy)
    async with pool.acquire() as connection:
        await create_kernel_tables(connection, 1)
        async with connection.transaction():
            await ensure_live(connection, consumer.view, log.clock)
    return World(pool, log, consumer, ProjectionMetrics(CollectorRegistry()))


@pytest.fixture
async def world(database):
    """A consumer without a policy."""
    made = await _world(database)
    yield made
    await made.pool.close()


@pytest.fixture
async def echoing(database):
    """A consumer that answers each text in the same log; it must not read what it says."""
    made = await _world(database, Echo())
    yield made
    await made.pool.close()


async def test_a_batch_moves_view_and_checkpoint_together(world):
    await world.record(texts("thing-1", "a", "b"), texts("thing-2", "c"))
    projection = world.projection()
    lease = await world.lease(projection)

    await projection.apply(lease, await world.batch())

    assert await world.tallies() == {"thing-1": (2, "b"), "thing-2": (1, "c")}
    assert await world.position() == 3


async def test_a_batch_that_comes_again_is_fenced_and_changes_nothing(world):
    await world.record(texts("thing-1", "a"))
    projection = world.projection()
    lease = await world.lease(projection)
    batch = await world.batch()
    await projection.apply(lease, batch)
    lease.position = 0  # as if the worker had forgotten

    with pytest.raises(FencedError):
        await projection.apply(lease, batch)

    assert await world.tallies() == {"thing-1": (1, "a")}


async def test_without_the_compare_and_set_a_batch_that_comes_again_counts_twice(world):
    """Shows that the guard is what protects: the same batch through `apply` of the view alone."""
    await world.record(texts("thing-1", "a"))
    events = [TEXTS.decode(envelope) for envelope in await world.batch()]

    for _ in range(2):
        async with transaction(world.pool) as tx:
            await world.consumer.view.apply(tx, "tallies", events)

    assert await world.tallies() == {"thing-1": (2, "a")}


async def test_a_worker_that_slept_through_its_lease_changes_nothing(world):
    await world.record(texts("thing-1", "a"), texts("thing-2", "b"))
    sleeper, successor = world.projection(owner="sleeper", lease_s=0), world.projection(owner="new")
    old = await world.lease(sleeper)
    new = await world.lease(successor)
    batch = await world.batch()
    await successor.apply(new, batch[:1])

    with pytest.raises(FencedError):
        await sleeper.apply(old, batch[:1])
    old.position = 1  # even at the right position, the epoch tells
    with pytest.raises(FencedError):
        await sleeper.apply(old, batch[1:])

    assert await world.tallies() == {"thing-1": (1, "a")}


async def test_a_lease_that_is_held_is_not_given_to_another(world):
    first, second = world.projection(owner="one"), world.projection(owner="two")

    held = await world.lease(first)
    assert await take_lease(world.pool, second.place, "two", 10) is None
    await held.release(world.pool)

    assert await take_lease(world.pool, second.place, "two", 10) is not None


async def test_who_could_not_release_its_lease_need_not_wait_for_its_end(world):
    """It lost its connection; what it may still be doing there is fenced by the new epoch."""
    worker = world.projection(owner="one")
    await world.record(texts("thing-1", "a"))
    lost = await world.lease(worker)

    again = await take_lease(world.pool, worker.place, "one", 10)

    assert again.epoch > lost.epoch
    with pytest.raises(FencedError):
        await worker.apply(lost, await world.batch())


async def test_two_workers_take_turns_and_lose_and_double_nothing(echoing):
    workers = [echoing.projection(owner=str(n), lease_s=0.2) for n in range(2)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        for number in range(30):
            await echoing.record(texts(f"thing-{number}", "x"))
            if number == 10:
                tasks[0].cancel()  # the first dies; the second takes over when the lease ends

        async def all_tallied():
            assert len(await echoing.tallies()) == 60

        await eventually(all_tallied, within_s=10)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await echoing.tallies() == {
        **{f"thing-{n}": (1, "x") for n in range(30)},
        **{f"echo-thing-{n}": (1, "echo of x") for n in range(30)},
    }


class CrashingTx:
    """A transaction whose connection dies at its k-th statement."""

    def __init__(self, tx, crash_at, killer):
        self._tx, self._left, self._killer = tx, crash_at, killer

    def __getattr__(self, name):
        return getattr(self._tx, name)

    async def _count(self):
        self._left -= 1
        if self._left == 0:
            await self._killer.execute("select pg_terminate_backend($1)", self._tx.get_server_pid())

    async def execute(self, *args, **options):
        await self._count()
        return await self._tx.execute(*args, **options)

    async def fetch(self, *args, **options):
        await self._count()
        return await self._tx.fetch(*args, **options)


async def test_a_crash_at_any_statement_of_a_batch_leaves_all_or_nothing(echoing, monkeypatch):
    """Kills the connection at the 1st, 2nd, … statement of the checkpoint transaction."""
    import services.kernel.views.projection as module  # noqa: PLC0415, only to break it

    await echoing.record(texts("thing-1", "a", "b"), texts("thing-2", "c"))
    batch = await echoing.batch()
    crash_at, crashes, whole = 0, 0, transaction

    class CrashingTransaction:
        def __init__(self, pool):
            self.block = whole(pool)

        async def __aenter__(self):
            return CrashingTx(await self.block.__aenter__(), crash_at, echoing.pool)

        async def __aexit__(self, *error):
            return await self.block.__aexit__(*error)

    monkeypatch.setattr(module, "transaction", CrashingTransaction)
    while True:
        crash_at += 1
        projection = echoing.projection(lease_s=0)
        lease = await echoing.lease(projection)
        try:
            await projection.apply(lease, batch)
            break
        except Exception as error:  # noqa: BLE001, whichever it is, it must count as passing
            crashes += 1
            assert is_passing(error)
            assert await echoing.tallies() == {}
            assert await echoing.echoes() == {}
            assert await echoing.position() == 0

    assert crashes >= 6
    assert await echoing.tallies() == {"thing-1": (2, "b"), "thing-2": (1, "c")}
    assert await echoing.echoes() == {"echo-thing-1": 2, "echo-thing-2": 1}
    assert await read_heads(echoing.pool) == {0: 6}


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


async def test_a_crash_at_the_first_start_leaves_no_partition_unknown(database):
    """The checkpoints say which partitions there are, so they come to be together or not at all."""
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 3)
        consumer, sources = Consumer(Tallies(), ("things",), TEXTS), {"things": own_source(pool)}

        assert list(await partitions_of(pool, consumer, "things", sources)) == [0, 1, 2]
        assert set(await read_positions(pool, "tallies")) == {("things", p) for p in range(3)}


async def test_a_batch_that_takes_too_long_is_tried_in_smaller_ones(world, monkeypatch):
    monkeypatch.setattr("services.kernel.views.projection.BATCH_TIMEOUT_S", 0.5)
    monkeypatch.setattr("services.kernel.views.projection.BATCH_SIZE_STEP", 1)

    class Slow(Tallies):
        async def apply(self, tx, schema, events):
            await tx.execute("select pg_sleep($1)", 0.05 * len(events))
            return await super().apply(tx, schema, events)

    await world.record(texts("thing-1", *["x"] * 40))
    projection = world.projection(consumer=Consumer(Slow(), ("things",), TEXTS))
    projection._batch_size = 40
    working = asyncio.create_task(projection.run())

    async def caught_up():
        assert await world.tallies() == {"thing-1": (40, "x")}

    await eventually(caught_up, within_s=30)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


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
