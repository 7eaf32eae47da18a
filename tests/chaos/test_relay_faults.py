"""Kill NATS, lose its disk, kill the relay at any moment: the feed comes to equal the log."""

import asyncio
import functools
import itertools
import os
import signal

import asyncpg
import pytest

from services.kernel.feed import feed
from services.kernel.feed.feed import FeedConnection
from services.kernel.log.listen import Listener
from services.kernel.log.log import APPENDED_CHANNEL
from services.kernel.testing import eventually
from tests.feed_world import connected, feed_world, running


@pytest.fixture
async def world(database, own_nats):
    async with feed_world(database, own_nats.url) as world:
        yield world


@pytest.fixture
async def connection(own_nats):
    async with connected(own_nats.url) as connection:
        yield connection


def restart(server, *, wipe=False):
    """Kills the server and starts it again. Blocks the loop, as a stalled process would."""
    server.kill()
    if wipe:
        server.wipe()
    server.start()


@pytest.mark.parametrize("wipe", [False, True], ids=["killed", "wiped"])
async def test_a_feed_that_is_killed_under_load_equals_the_log(
    world, connection, own_nats, chance, wipe
):
    relay = world.relay(connection, chunk_size=50, safety_poll_s=0.5)
    batches, size = 60, 40
    deaths = {chance.randrange(batches * size) for _ in range(3)}

    async def write():
        for _ in range(batches):
            await world.append(size)
            relay.wake()

    async def read(reader):
        events = []
        while len(events) < batches * size:
            events += await reader.next_batch(max_events=100, max_wait_s=0.5)
            due = {position for position in deaths if position <= len(events)}
            if due:
                deaths.difference_update(due)
                restart(own_nats, wipe=wipe)
        return events

    async with running(relay), world.reader(connection, owner_poll_s=0.1) as reader:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            reading = tasks.create_task(read(reader))
        await eventually(world.assert_same, within_s=30)
    assert reading.result() == await world.logged()


async def test_a_wiped_feed_is_refilled_with_the_same_numbers_and_bytes(
    world, connection, own_nats
):
    await world.append(3_000)
    async with running(world.relay(connection)):
        await eventually(world.assert_same)
        before = await world.carried()
        restart(own_nats, wipe=True)

        async def refilled():
            assert await world.carried() == before

        await eventually(refilled, within_s=30)


async def test_consumers_go_on_while_the_feed_is_down(world, connection, own_nats):
    relay = world.relay(connection)
    async with running(relay), world.reader(connection, owner_poll_s=0.05) as reader:
        await world.append(100)
        relay.wake()
        events = []
        async with asyncio.timeout(30):
            while len(events) < 100:
                events += await reader.next_batch(max_events=30, max_wait_s=1)
            own_nats.kill()
            await world.append(100)
            relay.wake()
            while len(events) < 200:
                events += await reader.next_batch(max_events=30, max_wait_s=1)

            async def noticed():
                assert relay.problem is not None

            await eventually(noticed)
            own_nats.start()
            await eventually(world.assert_same, within_s=20)
            await world.append(100)
            relay.wake()
            while len(events) < 300:
                events += await reader.next_batch(max_events=30, max_wait_s=1)
    assert events == await world.logged()


async def test_an_answer_lost_by_a_server_that_hangs_is_neither_repeated_nor_skipped(
    world, connection, own_nats, monkeypatch
):
    monkeypatch.setattr(feed, "REQUEST_TIMEOUT_S", 0.3)
    relay = world.relay(connection, chunk_size=10, safety_poll_s=0.2)
    async with running(relay), world.reader(connection, owner_poll_s=0.1) as reader:
        for _ in range(3):
            await world.append(500)
            relay.wake()
            os.kill(own_nats.pid, signal.SIGSTOP)
            try:

                async def noticed():
                    assert relay.problem is not None

                await eventually(noticed)
            finally:
                os.kill(own_nats.pid, signal.SIGCONT)
            await eventually(world.assert_same, within_s=20)
        events = []
        async with asyncio.timeout(20):
            while len(events) < 1_500:
                events += await reader.next_batch(max_events=500, max_wait_s=1)
    assert events == await world.logged()


async def test_relay_and_reader_start_before_nats(world, own_nats):
    own_nats.stop()
    await world.append(100)
    async with FeedConnection(own_nats.url, name="early") as connection:
        relay = world.relay(connection)
        async with running(relay), world.reader(connection, owner_poll_s=0.05) as reader:
            async with asyncio.timeout(10):
                events = await reader.next_batch(max_events=60, max_wait_s=5)
            own_nats.start()
            await eventually(world.assert_same, within_s=20)
            async with asyncio.timeout(10):
                while len(events) < 100:
                    events += await reader.next_batch(max_events=60, max_wait_s=5)
    assert events == await world.logged()


async def test_a_connection_to_nobody_can_be_closed(own_nats):
    own_nats.stop()
    async with FeedConnection(own_nats.url, name="early") as connection:
        assert not connection.is_up
        with pytest.raises(feed.FeedUnavailableError):
            connection.client()


async def test_a_relay_outlives_its_database(own_postgres, own_nats):
    url = await own_postgres.create_database("things")
    async with (
        feed_world(url, own_nats.url) as world,
        connected(own_nats.url) as connection,
    ):
        relay = world.relay(connection, safety_poll_s=600)
        listener = Listener(url, {APPENDED_CHANNEL: lambda _: relay.wake()})
        listening = asyncio.create_task(listener.run())
        async with running(relay):
            for _ in range(3):
                await world.append(20)
                await eventually(world.assert_same, within_s=20)
                own_postgres.kill()
                relay.wake()
                own_postgres.start()
                await world.pool.expire_connections()

                async def answers():
                    try:
                        await world.logged()
                        assert listener.is_up
                    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                        raise AssertionError from error

                await eventually(answers, within_s=20)
        listening.cancel()


async def test_a_relay_cancelled_at_any_moment_leaves_nothing_twice(world, connection):
    """Cancels at the first await, at the second, and so on; the next relay goes on."""
    for moment in range(40):
        await world.append(60)
        relay = world.relay(connection, chunk_size=3, safety_poll_s=600)
        async with asyncio.timeout(5):
            await cancelled_at(relay.run(), moment)
    async with running(world.relay(connection)):
        await eventually(world.assert_same)


async def cancelled_at(coroutine, moment):
    """Runs a coroutine as a task that is cancelled when it waits for the nth time."""
    task = asyncio.create_task(_CancelsItself(coroutine, moment).run())
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()


class _CancelsItself:
    def __init__(self, coroutine, moment):
        self._coroutine = coroutine
        self._moment = moment

    async def run(self):
        await self

    def __await__(self):
        steps = self._coroutine.__await__()
        resume = functools.partial(steps.send, None)
        for step in itertools.count():
            try:
                waited_for = resume()
            except StopIteration:
                return
            if step == self._moment:
                asyncio.current_task().cancel()
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001 - handed on, whatever it is.
                resume = functools.partial(steps.throw, error)
            else:
                resume = functools.partial(steps.send, None)


async def test_relays_that_die_and_start_at_random_keep_the_order(world, own_nats, chance):
    async def one_relay_after_another():
        async with connected(own_nats.url) as connection:
            while True:
                relay = world.relay(connection, chunk_size=10, safety_poll_s=0.05)
                await cancelled_at(relay.run(), chance.randrange(3, 60))

    lives = [asyncio.create_task(one_relay_after_another()) for _ in range(3)]
    for _ in range(60):
        await world.append(20)
    for life in lives:
        life.cancel()
    await asyncio.wait(lives)
    async with connected(own_nats.url) as connection, running(world.relay(connection)):
        await eventually(world.assert_same, within_s=20)
