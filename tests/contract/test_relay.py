"""The feed equals the log: every event once, in order, at the sequence that is its position."""

import asyncio
import dataclasses

import nats
import pytest
from nats.js import api
from nats.js.errors import BadRequestError
from nats.js.manager import JetStreamManager

from rapport.common.v1.envelope_pb2 import Envelope
from services.kernel.feed.feed import (
    Feed,
    FeedConfigError,
    FeedConnection,
    ForeignFeedError,
    subject_of,
)
from services.kernel.log.listen import Listener
from services.kernel.log.log import APPENDED_CHANNEL
from services.kernel.log.recent import Recent
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


async def test_the_feed_equals_the_log_position_for_position(world, connection):
    await world.append(2_500)
    relay = world.relay(connection)
    async with running(relay):
        await eventually(world.assert_same)
        await world.append(10, stream="thing-2", workspace="globex")
        relay.wake()
        await eventually(world.assert_same)
    assert world.count("rapport_relay_published_total") == 2_510
    assert world.count("rapport_relay_lag_events") == 0


async def test_what_was_just_appended_is_relayed_as_the_log_would_give_it(world, connection):
    """Part of it from memory, part from the log, as another process appended that."""
    await world.append(3)
    for count in (500, 1, 40):
        world.log.recent.keep(await world.append(count), 1_000)
    await world.append(7, stream="thing-2", workspace="globex")
    world.log.recent.keep(await world.append(5), 1_000)
    async with running(world.relay(connection, chunk_size=100, recent=world.log.recent)):
        await eventually(world.assert_same)


async def test_what_another_process_appended_is_relayed_at_once(world, connection, monkeypatch):
    """The memory ends at the feed's tip, and says nothing of what follows."""
    monkeypatch.setattr("services.kernel.log.recent.RECENT_S_MAX", 1e9)
    world.log.recent.keep(await world.append(3), 1_000)
    relay = world.relay(connection, safety_poll_s=600, recent=world.log.recent)
    async with running(relay):
        await eventually(world.assert_same)
        await world.append(2)
        relay.wake()
        await eventually(world.assert_same)


async def test_what_no_longer_fits_into_memory_does_not_hold_the_relay_up(world, connection):
    """The tip is the last event of what is about to be forgotten."""
    recent = Recent(bytes_max=100)
    relay = world.relay(connection, safety_poll_s=600, recent=recent)
    async with running(relay):
        for count in (3, 2, 4):
            recent.keep(await world.append(count), 60)
            relay.wake()
            await eventually(world.assert_same)


async def test_an_append_wakes_the_relay_through_the_database(world, connection):
    relay = world.relay(connection, safety_poll_s=600)
    listener = Listener(world.database_url, {APPENDED_CHANNEL: lambda _: relay.wake()})
    listening = asyncio.create_task(listener.run())

    def up():
        assert listener.is_up

    await eventually(up)
    async with running(relay):
        await world.append(1)
        await eventually(world.assert_same)
        await world.append(1)
        await eventually(world.assert_same)
    listening.cancel()


async def test_a_subject_names_partition_workspace_and_type_and_nothing_unsafe():
    event = Envelope(partition=3, workspace="a b.>*", type="rapport.deals.v1.DealWon")
    assert subject_of("deals", event) == "deals.3.a_b___.DealWon"


async def test_two_relays_neither_duplicate_nor_interleave(world, connection, nats_url):
    async with connected(nats_url) as other:
        relays = [world.relay(connection, chunk_size=50), world.relay(other, chunk_size=70)]
        async with running(relays[0]), running(relays[1]):
            for _ in range(30):
                await world.append(40)
                for relay in relays:
                    relay.wake()
            await eventually(world.assert_same)


async def test_without_the_guard_two_relays_do_duplicate(world, connection, nats_url):
    await world.append(10)
    feed = Feed(connection, service=SERVICE, partition=0)
    await feed.create()
    events = await world.logged()
    async with connected(nats_url) as other:
        twin = Feed(other, service=SERVICE, partition=0)
        await asyncio.gather(
            feed.publish(events, guarded=False), twin.publish(events, guarded=False)
        )
    assert len(await world.carried()) == 20
    with pytest.raises(AssertionError):
        await world.assert_same()


async def test_a_deleted_stream_is_made_again_and_refilled_with_the_same_numbers(
    world, connection, jetstream
):
    relay = world.relay(connection, safety_poll_s=0.1)
    await world.append(100)
    async with running(relay):
        await eventually(world.assert_same)
        await jetstream.delete_stream(STREAM)
        await eventually(world.assert_same)
    assert world.count("rapport_relay_refills_total") >= 1


async def test_a_feed_that_lost_its_first_messages_goes_on_from_its_last(
    world, connection, jetstream
):
    await world.append(20)
    async with running(world.relay(connection)):
        await eventually(world.assert_same)
    for sequence in (1, 2, 20):
        await jetstream.delete_msg(STREAM, sequence)
    await world.append(5)
    async with running(world.relay(connection)):

        async def caught_up():
            assert [sequence for sequence, _ in await world.carried()] == [
                *range(3, 20),
                *range(21, 26),
            ]

        await eventually(caught_up)


async def test_a_feed_that_is_ahead_of_the_log_is_foreign_and_left_alone(
    world, connection, jetstream
):
    await world.append(3)
    feed = Feed(connection, service=SERVICE, partition=0)
    await feed.create()
    events = await world.logged()
    surplus = Envelope()
    surplus.CopyFrom(events[-1])
    surplus.position, surplus.event_id = 4, "another"
    await feed.publish([*events, surplus])
    before = await world.carried()
    relay = world.relay(connection)
    with pytest.raises(ForeignFeedError):
        await relay.run()
    assert "foreign" in relay.problem
    assert world.count("rapport_relay_foreign") == 1
    assert await world.carried() == before


async def test_a_feed_with_another_event_at_its_end_is_foreign(world, connection):
    await world.append(5)
    feed = Feed(connection, service=SERVICE, partition=0)
    await feed.create()
    events = (await world.logged())[:3]
    events[-1].event_id = "another"
    await feed.publish(events)
    with pytest.raises(ForeignFeedError):
        await world.relay(connection).run()
    assert len(await world.carried()) == 3


async def test_a_feed_that_holds_no_events_is_foreign(world, connection, jetstream):
    await world.append(5)
    feed = Feed(connection, service=SERVICE, partition=0)
    await feed.create()
    await jetstream.publish(f"{SERVICE}.0.acme.StringValue", b"\xff")
    with pytest.raises(ForeignFeedError):
        await world.relay(connection).run()


async def test_a_log_that_was_rewound_under_a_running_relay_makes_the_feed_foreign(
    world, connection
):
    await world.append(5)
    relay = world.relay(connection, safety_poll_s=600)
    task = asyncio.create_task(relay.run())
    await eventually(world.assert_same)
    await world.pool.execute(
        "alter table kernel.events disable trigger all;"
        "delete from kernel.events where position > 3;"
        "update kernel.heads set position = 3"
    )
    await world.append(5)
    relay.wake()
    with pytest.raises(ForeignFeedError):
        await asyncio.wait_for(task, timeout=10)
    assert len(await world.carried()) == 5


@pytest.mark.parametrize(
    "change", [{"max_msgs": 10}, {"max_age": 60}, {"discard": api.DiscardPolicy.OLD}]
)
async def test_a_stream_that_would_forget_events_is_refused(world, connection, jetstream, change):
    wrong = Feed(connection, service=SERVICE, partition=0)._config.evolve(**change)
    await jetstream.add_stream(wrong)
    with pytest.raises(FeedConfigError, match=next(iter(change))):
        await world.relay(connection).run()


async def test_an_answer_that_never_comes_leads_to_reading_the_feed_again(
    world, connection, monkeypatch
):
    """The chunk was stored, its answer lost: the relay must neither repeat nor skip."""
    publish, lost = Feed.publish, 0

    async def lose_every_other_answer(self, events, **options):
        nonlocal lost
        await publish(self, events, **options)
        lost += 1
        if lost % 2:
            raise TimeoutError

    monkeypatch.setattr(Feed, "publish", lose_every_other_answer)
    await world.append(200)
    async with running(world.relay(connection, chunk_size=20)):
        await eventually(world.assert_same)
    assert lost >= 10


async def test_large_events_go_in_chunks_by_their_size(world, connection):
    for _ in range(4):
        await world.append(6, size=400_000)
    async with running(world.relay(connection)):
        await eventually(world.assert_same)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400\r\n\r\n", b"INFO []\r\n", b"x" * 200_000])
async def test_a_connection_goes_on_trying_whatever_answers_at_its_address(answer):
    asked = 0

    async def serve(_, writer):
        nonlocal asked
        asked += 1
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with FeedConnection(f"nats://127.0.0.1:{port}", name="tests"):

            def asked_again():
                assert asked > 2

            await eventually(asked_again, within_s=10)


async def test_a_relay_waits_for_a_cluster_that_is_not_complete_yet(world, connection, monkeypatch):
    create, refused = JetStreamManager.add_stream, []

    async def refusing(self, *config):
        if not refused:
            refused.append(config)
            raise BadRequestError(code=400, err_code=10005, description="no suitable peers")
        return await create(self, *config)

    monkeypatch.setattr(JetStreamManager, "add_stream", refusing)
    await world.append(2)

    async with running(world.relay(connection)):
        await eventually(world.assert_same)
    assert refused


async def test_a_feed_kept_by_fewer_servers_than_wanted_is_refused(world, connection):
    await world.append(1)
    async with running(world.relay(connection)):
        await eventually(world.assert_same)

    with pytest.raises(FeedConfigError, match="num_replicas is 1, less than 3"):
        await world.relay(connection, replicas=3).run()


async def test_a_feed_kept_by_more_servers_than_wanted_is_as_good(world, connection, monkeypatch):
    await world.append(1)
    async with running(world.relay(connection)):
        await eventually(world.assert_same)
    ask = JetStreamManager.stream_info

    async def of_three_servers(self, name):
        info = await ask(self, name)
        info.config.num_replicas = 3
        return info

    monkeypatch.setattr(JetStreamManager, "stream_info", of_three_servers)
    await world.append(1)

    async with running(world.relay(connection)):
        await eventually(world.assert_same)


async def test_a_relay_asks_for_as_many_servers_as_it_is_told(world, connection, monkeypatch):
    create, asked = JetStreamManager.add_stream, []

    async def of_one_server(self, config):
        asked.append(config.num_replicas)
        return await create(self, dataclasses.replace(config, num_replicas=1))

    monkeypatch.setattr(JetStreamManager, "add_stream", of_one_server)

    with pytest.raises(FeedConfigError, match="less than 3"):
        await world.relay(connection, replicas=3).run()
    assert asked == [3]
