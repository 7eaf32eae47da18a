"""A reader hands out each position once and in order, whatever the feed does."""

import asyncio

import nats
import pytest

from services.kernel.errors import Unavailable
from services.kernel.feed.feed import Feed, ForeignFeedError
from services.kernel.testing import eventually
from tests.feed_world import SERVICE, STREAM, connected, feed_world, running


@pytest.fixture
async def world(database, nats_url):
    async with feed_world(database, nats_url) as world:
        yield world


@pytest.fixture
async def connection(nats_url):
    async with connected(nats_url) as connection:
        yield connection


@pytest.fixture
async def jetstream(nats_url):
    client = await nats.connect(nats_url)
    yield client.jetstream()
    await client.close()


async def read(reader, count, *, max_events=500, within_s=20.0):
    """Reads until `count` events came."""
    events = []
    async with asyncio.timeout(within_s):
        while len(events) < count:
            events += await reader.next_batch(max_events=max_events, max_wait_s=1)
    return events


async def relayed(world, connection):
    """Brings the feed up to the log."""
    async with running(world.relay(connection)):
        await eventually(world.assert_same)


async def test_a_reader_reads_the_log_in_order_from_a_position(world, connection):
    await world.append(3_000)
    await relayed(world, connection)
    async with world.reader(connection, after=700) as reader:
        events = await read(reader, 2_300)
        assert reader.position == 3_000
    assert events == (await world.logged())[700:]
    assert world.count("rapport_reader_owner_events_total") == 0


async def test_a_batch_is_what_is_there_and_never_more_than_asked(world, connection):
    await world.append(10)
    await relayed(world, connection)
    async with world.reader(connection) as reader:
        first = await reader.next_batch(max_events=4, max_wait_s=5)
        rest = await read(reader, 10 - len(first))
        assert await reader.next_batch(max_events=100, max_wait_s=0.05) == []

    # How much has arrived by then is for the network to say.
    assert 1 <= len(first) <= 4
    assert list(range(1, 11)) == [event.position for event in (*first, *rest)]


async def test_a_waiting_reader_gets_a_new_event_at_once(world, connection):
    relay = world.relay(connection)
    async with running(relay), world.reader(connection) as reader:
        await eventually(lambda: _assert_runs(relay))
        waiting = asyncio.create_task(reader.next_batch(max_events=10, max_wait_s=20))
        await world.append(1)
        relay.wake()
        async with asyncio.timeout(5):
            assert [event.position for event in await waiting] == [1]


def _assert_runs(relay):
    assert relay.problem is None


async def test_holes_are_filled_by_the_owner_and_counted(world, connection, jetstream):
    await world.append(50)
    await relayed(world, connection)
    for sequence in (1, 2, 20, 21, 22, 49):
        await jetstream.delete_msg(STREAM, sequence)
    async with world.reader(connection) as reader:
        events = await read(reader, 50)
    assert events == await world.logged()
    assert world.count("rapport_reader_holes_total") == 3


async def test_a_hole_at_the_end_is_found_when_the_feed_stays_quiet(world, connection, jetstream):
    await world.append(10)
    await relayed(world, connection)
    await jetstream.delete_msg(STREAM, 10)
    async with world.reader(connection, quiet_max_s=0.2) as reader:
        assert await read(reader, 10) == await world.logged()


async def test_a_hole_waits_for_an_owner_that_does_not_answer(world, connection, jetstream):
    await world.append(10)
    await relayed(world, connection)
    await jetstream.delete_msg(STREAM, 5)
    refusals = 3

    async def read_owner(partition, after_position, limit):
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise Unavailable(SERVICE)
        return await world.read_owner(partition, after_position, limit)

    async with world.reader(connection, hole_reader=read_owner, owner_poll_s=0.05) as reader:
        assert await read(reader, 10) == await world.logged()
    assert refusals == 0


async def test_a_feed_that_goes_on_where_its_owner_ends_is_foreign(world, connection, jetstream):
    await world.append(10)
    await relayed(world, connection)
    await jetstream.delete_msg(STREAM, 1)

    async def read_nothing(partition, after_position, limit):
        return []

    async with world.reader(connection, hole_reader=read_nothing) as reader:
        with pytest.raises(ForeignFeedError):
            await read(reader, 10)


async def test_a_message_whose_position_is_not_its_sequence_is_foreign(world, connection):
    await world.append(3)
    feed = Feed(connection, service=SERVICE, partition=0)
    await feed.create()
    events = await world.logged()
    await feed.publish(events[1:], guarded=False)
    async with world.reader(connection) as reader:
        with pytest.raises(ForeignFeedError):
            await read(reader, 3)


async def test_a_message_under_another_subject_is_foreign(world, connection, jetstream):
    await world.append(1)
    await Feed(connection, service=SERVICE, partition=0).create()
    body = (await world.logged())[0].SerializeToString()
    await jetstream.publish(f"{SERVICE}.0.globex.StringValue", body)
    async with world.reader(connection) as reader:
        with pytest.raises(ForeignFeedError):
            await read(reader, 1)


async def test_without_a_feed_the_owner_is_read_and_then_the_feed_again(world, connection):
    await world.append(100)
    async with world.reader(connection, owner_poll_s=0.05, quiet_max_s=600) as reader:
        first = await read(reader, 100)
        assert world.count("rapport_reader_owner_events_total") == 100
        relay = world.relay(connection)
        async with running(relay):
            await eventually(world.assert_same)
            await reader.next_batch(max_events=1, max_wait_s=0.2)
            await world.append(50)
            relay.wake()
            second = await read(reader, 50)
    assert first + second == await world.logged()


async def test_a_reader_ahead_of_an_emptied_feed_goes_on_when_it_is_refilled(
    world, connection, jetstream
):
    await world.append(500)
    await relayed(world, connection)
    async with world.reader(connection, owner_poll_s=0.05) as reader:
        first = await read(reader, 500)
        await jetstream.delete_stream(STREAM)
        assert await reader.next_batch(max_events=10, max_wait_s=0.1) == []
        relay = world.relay(connection, chunk_size=50)
        async with running(relay):
            await world.append(10)
            relay.wake()
            second = await read(reader, 10)
    assert first + second == await world.logged()


async def test_a_reader_of_a_lagging_feed_is_served_by_the_owner(world, connection):
    await world.append(100)
    await relayed(world, connection)
    await world.append(1_000)
    async with world.reader(connection, quiet_max_s=0.1) as reader:
        assert await read(reader, 1_100) == await world.logged()
    assert world.count("rapport_reader_owner_events_total") == 1_000


async def test_events_that_come_again_are_dropped(world, connection):
    """The owner was faster than the feed, which then brings the same events."""
    await world.append(100)
    relay = world.relay(connection)
    await Feed(connection, service=SERVICE, partition=0).create()
    async with world.reader(connection, quiet_max_s=0.05) as reader:
        first = await read(reader, 100)
        async with running(relay):
            await eventually(world.assert_same)
            await world.append(1)
            relay.wake()
            second = await read(reader, 1)
    assert first + second == await world.logged()
    assert world.count("rapport_reader_duplicates_total") == 100


async def test_twenty_thousand_events_pass_relay_and_reader(world, connection):
    for _ in range(4):
        await world.append(5_000)
    async with running(world.relay(connection)), world.reader(connection) as reader:
        events = await read(reader, 20_000, max_events=1_000)
    assert [event.position for event in events] == list(range(1, 20_001))
    assert events == await world.logged()
