"""A projection applies each event once and in order, whatever crashes and however many work."""

import asyncio

import asyncpg
import pytest

from services.kernel.feed.source import own_source
from services.kernel.log.database import is_passing, transaction
from services.kernel.log.log import read_heads
from services.kernel.log.tables import create_kernel_tables
from services.kernel.testing import eventually
from services.kernel.views.checkpoint import (
    FencedError,
    read_positions,
    take_lease,
)
from services.kernel.views.partitions import partitions_of
from services.kernel.views.projection import Consumer
from tests.projection_world import OwnReader, projection_world
from tests.tallies import TEXTS, Echo, Tallies, texts


@pytest.fixture
async def world(database):
    """A consumer without a policy."""
    made = await projection_world(database)
    yield made
    await made.pool.close()


@pytest.fixture
async def echoing(database):
    """A consumer that answers each text in the same log; it must not read what it says."""
    made = await projection_world(database, Echo())
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
        failure = None
        try:
            await projection.apply(lease, batch)
        except Exception as error:  # noqa: BLE001, whichever it is, it must count as passing
            failure = error
        if failure is None:
            break
        crashes += 1
        assert is_passing(failure)
        assert await echoing.tallies() == {}
        assert await echoing.echoes() == {}
        assert await echoing.position() == 0

    assert crashes >= 6
    assert await echoing.tallies() == {"thing-1": (2, "b"), "thing-2": (1, "c")}
    assert await echoing.echoes() == {"echo-thing-1": 2, "echo-thing-2": 1}
    assert await read_heads(echoing.pool) == {0: 6}


async def test_a_crash_at_the_first_start_leaves_no_partition_unknown(database):
    """The checkpoints say which partitions there are, so they come to be together or not at all."""
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 3)
        consumer, sources = Consumer(Tallies(), ("things",), TEXTS), {"things": own_source(pool)}

        assert list(await partitions_of(pool, consumer, "things", sources)) == [0, 1, 2]
        assert set(await read_positions(pool, "tallies")) == {("things", p) for p in range(3)}


async def test_a_batch_that_takes_too_long_is_tried_in_smaller_ones(world, monkeypatch):
    monkeypatch.setattr("services.kernel.views.projection.BATCH_TIMEOUT_S", 0.2)
    monkeypatch.setattr("services.kernel.views.projection.BATCH_SIZE_STEP", 1)

    class Slow(Tallies):
        async def apply(self, tx, schema, events):
            await tx.execute("select pg_sleep($1)", 0.02 * len(events))
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


@pytest.mark.parametrize(("is_asked", "sizes"), [(True, [4, 4, 2]), (False, [10])])
async def test_while_its_process_is_asked_a_worker_takes_smaller_steps(world, is_asked, sizes):
    applied = []

    class Counting(Tallies):
        async def apply(self, tx, schema, events):
            applied.append(len(events))
            return await super().apply(tx, schema, events)

    await world.record(texts("thing-1", *["x"] * 10))
    consumer = Consumer(Counting(), ("things",), TEXTS, batch_size_asked=4)
    projection = world.projection(consumer=consumer)
    projection.is_asked = lambda: is_asked
    working = asyncio.create_task(projection.run())

    async def caught_up():
        assert await world.tallies() == {"thing-1": (10, "x")}

    await eventually(caught_up)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert applied == sizes


async def test_work_that_keeps_failing_is_tried_less_and_less_often_until_something_was_applied(
    world, monkeypatch
):
    pauses, fails = [], iter([True, True, True, False, True, True])

    class Failing(OwnReader):
        async def next_batch(self, **limits):
            if next(fails):
                raise ConnectionRefusedError
            return await super().next_batch(**limits)

    async def rest(pause_s):
        pauses.append(pause_s)
        if len(pauses) == 5:
            raise asyncio.CancelledError

    monkeypatch.setattr("services.kernel.views.projection._rest", rest)
    await world.record(texts("thing-1", "a"))
    projection = world.projection()
    projection.open_reader = lambda _, partition, after: Failing(world.pool, partition, after)

    with pytest.raises(asyncio.CancelledError):
        await projection.run()

    assert pauses == [0.1, 0.2, 0.4, 0.1, 0.2]
