"""Whoever has very many streams batches: few are on their way at once, all answered in order."""

import asyncio
from contextlib import suppress

import pytest

from rapport.events.v1.service_pb2 import ReceiptOutcome, StreamCustomerEventsRequest
from rapport.events.v1.sources_pb2 import CreateSourceRequest, DisableSourceRequest
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from services.events.recording import Recorder
from services.events.service.customer_events import STREAM_BATCHES_IN_FLIGHT_MAX
from services.kernel.errors import FailedPrecondition, InvalidArgument, Unavailable
from services.kernel.log.log import read_heads
from services.kernel.testing import eventually

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
WITHIN_S = 10.0


def batch(*customer_events, source=""):
    return StreamCustomerEventsRequest(customer_events=customer_events, source=source)


class Client:
    """A client that sends when it is told, and takes answers when it is told."""

    def __init__(self, events):
        self._sending = asyncio.Queue()
        self.sent = 0
        self.answers = aiter(events.StreamCustomerEvents(self._requests()))

    async def _requests(self):
        while (request := await self._sending.get()) is not None:
            yield request
            self.sent += 1

    def send(self, request):
        """Sends a batch; None says that there are no more."""
        self._sending.put_nowait(request)

    async def answer(self):
        """The next answer."""
        async with asyncio.timeout(WITHIN_S):
            return await anext(self.answers)

    async def rest(self):
        """All answers until the stream ends."""
        async with asyncio.timeout(WITHIN_S):
            return [answer async for answer in self.answers]


@pytest.fixture
def client(events):
    return Client(events)


def told(answers):
    return [[receipt.message_id for receipt in answer.receipts] for answer in answers]


async def test_each_batch_is_answered_in_its_order_and_the_stream_ends(client, sent, asked):
    for number in range(30):
        client.send(batch(sent(f"a-{number}"), sent(f"b-{number}")))
    client.send(None)

    answers = await client.rest()

    assert [[f"a-{n}", f"b-{n}"] for n in range(30)] == told(answers)
    assert {ACCEPTED} == {each.outcome for answer in answers for each in answer.receipts}
    assert all(answer.write_token for answer in answers)
    assert {0: 60} == await read_heads(asked.kernel.pool)


async def test_a_client_may_wait_for_each_answer(client, sent):
    for number in range(5):
        client.send(batch(sent(f"m-{number}"), sent("again")))
        answer = await client.answer()
        assert [ACCEPTED, DUPLICATE if number else ACCEPTED] == [
            receipt.outcome for receipt in answer.receipts
        ]
    client.send(None)

    assert [] == await client.rest()


async def test_a_stream_without_a_batch_ends_at_once(client):
    client.send(None)

    assert [] == await client.rest()


async def test_made_up_message_ids_are_new_in_each_batch(client, sent):
    for _ in range(3):
        client.send(batch(sent(""), sent("")))
    client.send(None)

    ids = [message_id for ids in told(await client.rest()) for message_id in ids]

    assert 6 == len(set(ids))


async def test_no_more_batches_are_on_their_way_than_the_limit_says(
    asked, client, sent, monkeypatch
):
    client.send(batch(sent("first")))
    await client.answer()
    recording, most = set(), []
    record = Recorder.record

    async def counted(self, origin, customer_events, **options):
        recording.add(origin.correlation_id)
        most.append(len(recording))
        try:
            return await record(self, origin, customer_events, **options)
        finally:
            recording.remove(origin.correlation_id)

    monkeypatch.setattr(Recorder, "record", counted)
    async with asked.kernel.pool.acquire() as blocking, blocking.transaction():
        await asked.kernel.log.lock_heads(blocking, {0})
        for number in range(20):
            client.send(batch(sent(f"m-{number}")))
        client.send(None)
        await eventually(lambda: _count(recording, STREAM_BATCHES_IN_FLIGHT_MAX))
        assert STREAM_BATCHES_IN_FLIGHT_MAX == len(most)

    answers = await client.rest()

    assert [[f"m-{number}"] for number in range(20)] == told(answers)
    assert STREAM_BATCHES_IN_FLIGHT_MAX == max(most)
    assert 20 == len(most)


async def test_who_takes_no_answers_cannot_go_on_sending(asked, client, sent):
    """The answers pile up, so the batches do: the sender is held back by the flow of the stream."""
    client.send(batch(sent("first")))
    await client.answer()
    # Refused ones cost little and have long receipts.
    refused = [sent("x" * 90 + f"{n}", user_id="") for n in range(500)]
    for _ in range(400):
        client.send(batch(*refused))
    seen = 0
    with suppress(AssertionError):
        while True:
            seen = await eventually(lambda before=seen: _further(client, before), within_s=1.0)

    assert 1 < client.sent < 400
    assert 500 == len((await client.answer()).receipts)
    await client.answers.aclose()


async def test_a_bad_batch_ends_the_stream_behind_the_good_ones(client, sent, asked):
    for request in (batch(sent("a")), batch(sent("b")), batch(), batch(sent("c"))):
        client.send(request)
    client.send(None)

    assert [["a"], ["b"]] == told([await client.answer(), await client.answer()])
    with pytest.raises(InvalidArgument):
        await client.answer()
    assert {0: 2} == await read_heads(asked.kernel.pool)


async def test_a_source_that_is_disabled_meanwhile_ends_the_stream(asked, client, sent):
    sources = asked.stub(SourcesServiceStub)
    await sources.CreateSource(CreateSourceRequest(source_id="shop", display_name="Shop"))
    client.send(batch(sent("a"), source="sources/shop"))
    await client.answer()
    await sources.DisableSource(DisableSourceRequest(name="sources/shop"))

    client.send(batch(sent("b"), source="sources/shop"))

    with pytest.raises(FailedPrecondition):
        await client.answer()


async def test_a_server_that_stops_answers_what_it_took_and_says_so(asked, client, sent):
    client.send(batch(sent("a")))
    await client.answer()
    async with asked.kernel.pool.acquire() as blocking, blocking.transaction():
        await asked.kernel.log.lock_heads(blocking, {0})
        client.send(batch(sent("b")))
        await eventually(lambda: _lock_waits(asked.kernel.pool))
        stopping = asyncio.create_task(asked.running.server.stop(5))
        await eventually(lambda: _stopped(asked))

    assert [["b"]] == told([await client.answer()])
    with pytest.raises(Unavailable):
        await client.answer()
    async with asyncio.timeout(WITHIN_S):
        await stopping


async def test_a_client_that_goes_away_leaves_nothing_behind(asked, events, client, sent, record):
    client.send(batch(sent("a")))
    await client.answer()

    await client.answers.aclose()

    assert DUPLICATE == (await record(sent("a"))).receipts[0].outcome


def _count(recording, number):
    assert number == len(recording)


def _further(client, before):
    assert client.sent > before
    return client.sent


async def _lock_waits(pool):
    assert await pool.fetch(
        """select from pg_stat_activity where datname = current_database()
        and wait_event_type = 'Lock' and query like '%kernel.heads%'"""
    )


def _stopped(asked):
    assert not asked.running.server.serving
