"""A message id is recorded once for ever, whoever sends it how often, and receipts say where."""

import asyncio

import pytest

from rapport.events.v1.service_pb2 import (
    GetCustomerEventRequest,
    ListCustomerEventsRequest,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events import recording
from services.events.__main__ import SERVICE
from services.kernel.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from services.kernel.log.log import read_heads, read_partition
from services.kernel.testing import eventually

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED


def outcomes(response):
    return [receipt.outcome for receipt in response.receipts]


async def recorded_ids(asked):
    """The streams of the whole log, in order."""
    return [event.stream for event in await read_partition(asked.kernel.pool, 0, after=0)]


async def test_each_customer_event_gets_its_receipt_in_order(record, sent):
    response = await record(sent("a"), sent("b", user_id=""), sent("a"), sent("c"))

    assert [("a", ACCEPTED, 1), ("b", REFUSED, 0), ("a", DUPLICATE, 1), ("c", ACCEPTED, 2)] == [
        (receipt.message_id, receipt.outcome, receipt.position) for receipt in response.receipts
    ]
    assert "NO_IDENTIFIER" == response.receipts[1].reason


async def test_what_was_acknowledged_can_be_got_at_once(record, events, sent):
    await record(sent("a", properties='{"total":12.5}'))

    got = await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/a"))

    assert '{"total":12.5}' == got.customer_event.properties
    assert got.customer_event.receive_time.seconds > 0


@pytest.mark.parametrize("message_id", ["a/b", "ünï→🎉", "a b%20", "x" * 100, "é" * 100, "a-"])
async def test_a_message_id_may_hold_anything(record, events, sent, message_id):
    assert [ACCEPTED] == outcomes(await record(sent(message_id)))
    assert [DUPLICATE] == outcomes(await record(sent(message_id)))

    name = f"customerEvents/{message_id}"
    got = await events.GetCustomerEvent(GetCustomerEventRequest(name=name))

    assert message_id == got.customer_event.message_id


async def test_ids_that_look_alike_are_different(record, sent):
    alike = ["a", "A", "a ", "\u00e5", "a\u030a", "message-a"]

    assert [ACCEPTED] * 6 == outcomes(await record(*[sent(each) for each in alike]))


async def test_what_was_never_recorded_is_not_found(events):
    with pytest.raises(NotFound):
        await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/a"))
    for name in ("a", "customerEvents/", "contacts/a", "customerEvents/\0"):
        with pytest.raises(InvalidArgument):
            await events.GetCustomerEvent(GetCustomerEventRequest(name=name))


async def test_a_workspace_knows_only_its_own_message_ids(asked, record, sent):
    others = asked.stub(EventsServiceStub, workspace="globex")
    await record(sent("a"))

    response = await others.RecordCustomerEvents(
        RecordCustomerEventsRequest(customer_events=[sent("a"), sent("b")])
    )

    assert [ACCEPTED, ACCEPTED] == outcomes(response)
    mine = asked.stub(EventsServiceStub)
    with pytest.raises(NotFound):
        await mine.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/b"))


async def test_a_batch_sent_again_changes_nothing_and_answers_the_same_places(asked, record, sent):
    batch = [sent(f"m-{number}") for number in range(50)]
    first = await record(*batch)

    again = await record(*reversed(batch))

    assert [DUPLICATE] * 50 == outcomes(again)
    assert [r.position for r in first.receipts] == [r.position for r in again.receipts][::-1]
    assert {0: 50} == await read_heads(asked.kernel.pool)
    assert first.write_token == again.write_token


async def test_the_token_of_a_batch_of_duplicates_is_worth_the_first_one(record, events, sent):
    await record(sent("a"))
    again = await record(sent("a"))

    listed = await events.ListCustomerEvents(
        ListCustomerEventsRequest(read_token=again.write_token)
    )

    assert ["a"] == [each.message_id for each in listed.customer_events]


async def test_concurrent_batches_record_each_message_id_once(asked, record, sent):
    ids = [f"m-{number}" for number in range(40)]
    batches = [ids[start : start + 25] + ids[: start // 2] for start in range(0, 40, 2)]

    responses = await asyncio.gather(
        *[record(*[sent(message_id) for message_id in batch]) for batch in batches]
    )

    receipts = [receipt for response in responses for receipt in response.receipts]
    accepted = [receipt.message_id for receipt in receipts if receipt.outcome == ACCEPTED]
    assert sorted(ids) == sorted(accepted)
    places = {(receipt.message_id, receipt.position) for receipt in receipts}
    assert len(ids) == len(places)
    logged = await recorded_ids(asked)
    assert {(f"message-{name}") for name in ids} == set(logged)
    assert all(logged[position - 1] == f"message-{name}" for name, position in places)


async def test_two_processes_record_each_message_id_once(asked, start_service, sent):
    second = await start_service(SERVICE)
    stubs = [process.stub(EventsServiceStub) for process in (asked, second)]
    batch = RecordCustomerEventsRequest(customer_events=[sent(f"m-{n}") for n in range(200)])

    responses = await asyncio.gather(
        *[stub.RecordCustomerEvents(batch) for stub in stubs for _ in range(4)]
    )

    accepted = [outcome for each in responses for outcome in outcomes(each)].count(ACCEPTED)
    assert 200 == accepted == len(set(await recorded_ids(asked)))
    places = {tuple(r.position for r in response.receipts) for response in responses}
    assert 1 == len(places)


async def test_a_batch_of_refused_ones_is_answered_and_lands_nowhere(asked, record, sent):
    response = await record(sent("a", user_id=""), sent("b", type=99))

    assert ["NO_IDENTIFIER", "TYPE_UNKNOWN"] == [r.reason for r in response.receipts]
    assert {0: 0} == await read_heads(asked.kernel.pool)


async def test_a_batch_is_as_large_as_the_limit_says_and_not_one_larger(record, sent):
    batch = [sent(f"m-{number}") for number in range(2_500)]

    assert [ACCEPTED] * 2_500 == outcomes(await record(*batch))
    with pytest.raises(InvalidArgument):
        await record(*batch, sent("one more"))
    with pytest.raises(InvalidArgument):
        await record()


async def test_as_many_bytes_wait_as_the_limit_says_and_not_one_more(
    asked, record, sent, monkeypatch
):
    batch = [sent("a"), sent("b")]
    size = sum(each.ByteSize() for each in batch)
    monkeypatch.setattr(recording, "IN_FLIGHT_BYTES_MAX", size)
    async with asked.kernel.pool.acquire() as blocking, blocking.transaction():
        await asked.kernel.log.lock_heads(blocking, {0})
        waiting = asyncio.create_task(record(*batch))
        await eventually(lambda: _lock_waits(asked.kernel.pool))
        with pytest.raises(ResourceExhausted) as refusal:
            await record(sent("c"))

    assert "IN_FLIGHT_BYTES_MAX" == refusal.value.metadata["limit"]
    assert [ACCEPTED, ACCEPTED] == outcomes(await waiting)
    assert [ACCEPTED] == outcomes(await record(sent("c")))


async def test_a_made_up_message_id_is_told_and_found(record, events, sent):
    response = await record(sent(""), sent(""))

    first, second = [receipt.message_id for receipt in response.receipts]
    assert first != second
    await events.GetCustomerEvent(GetCustomerEventRequest(name=f"customerEvents/{second}"))


async def test_an_answer_that_got_lost_after_the_commit_is_told_again(
    asked, record, sent, monkeypatch
):
    """The commit arrives, its answer does not: the sender hears UNAVAILABLE and tries again."""
    lost = []
    commit = type(asked.kernel.group_commit)._commit

    async def losing_the_answer(self, group):
        await commit(self, group)
        if not lost:
            lost.append(True)
            raise ConnectionResetError("the connection was lost after the commit")

    monkeypatch.setattr(type(asked.kernel.group_commit), "_commit", losing_the_answer)

    with pytest.raises(Unavailable):
        await record(sent("a"), sent("b"))
    response = await record(sent("a"), sent("b"))

    assert [(DUPLICATE, 1), (DUPLICATE, 2)] == [(r.outcome, r.position) for r in response.receipts]
    assert {0: 2} == await read_heads(asked.kernel.pool)


async def test_a_connection_killed_before_the_commit_leaves_nothing(asked, record, sent):
    """A batch waits for the head while its connection is killed: it was not recorded."""
    async with asked.kernel.pool.acquire() as blocking, blocking.transaction():
        await asked.kernel.log.lock_heads(blocking, {0})
        waiting = asyncio.create_task(record(sent("a")))
        await eventually(lambda: _kill_who_waits(asked.kernel.pool))
        with pytest.raises(Unavailable):
            await waiting

    assert {0: 0} == await read_heads(asked.kernel.pool)
    assert [ACCEPTED] == outcomes(await record(sent("a")))


WAITING = """
select pid from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query like '%kernel.heads%'
"""


async def _lock_waits(pool):
    assert await pool.fetch(WAITING)


async def _kill_who_waits(pool):
    assert await pool.fetch(f"select pg_terminate_backend(pid) from ({WAITING}) waiting")


async def test_others_are_served_while_a_batch_is_judged(plan, record, sent, monkeypatch):
    """Rules may take their time with each customer event."""
    monkeypatch.setattr(recording, "JUDGING_S_MAX", 0)
    plan.needed = ""
    judge, judged, turns = plan.judge, [], set()

    def counting(opened):
        judged.append(opened.event.message_id)
        return judge(opened)

    monkeypatch.setattr(plan, "judge", counting)

    def other():
        turns.add(len(judged))
        if len(judged) < 20:
            asyncio.get_running_loop().call_soon(other)

    other()
    await record(*[sent() for _ in range(20)])

    assert set(range(21)) == turns
