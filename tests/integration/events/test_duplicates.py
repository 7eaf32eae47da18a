"""Duplicates at every layer: whatever comes again, in whatever way, is there once."""

import asyncio
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from rapport.events.v1.events_pb2 import CustomerEventRetracted
from rapport.events.v1.quarantine_pb2 import (
    DiscardQuarantinedEventsRequest,
    ResubmitQuarantinedEventsRequest,
)
from rapport.events.v1.service_pb2 import (
    GetCustomerEventRequest,
    ListCustomerEventsRequest,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
    StreamCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events.__main__ import SERVICE
from services.events.door import Door
from services.events.recording import Recorder
from services.kernel.log.log import Append, NewEvent, Origin, read_heads, read_partition
from services.kernel.testing import eventually
from services.kernel.views.view import append_with_views

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED


@pytest.fixture(params=[1, 3], ids=["one partition", "three partitions"])
def partitions(request):
    return request.param


@pytest.fixture
async def asked(start_service, partitions):
    """The service with some partitions."""
    return await start_service(SERVICE, partitions=partitions)


def outcomes(response):
    return [receipt.outcome for receipt in response.receipts]


def places(response):
    return [(receipt.partition, receipt.position) for receipt in response.receipts]


async def streamed(stub, *batches):
    """The answers to a stream of batches."""

    async def requests():
        for batch in batches:
            yield StreamCustomerEventsRequest(customer_events=batch)

    return [answer async for answer in stub.StreamCustomerEvents(requests())]


async def logged(asked, workspace="acme"):
    """The types in the log by stream."""
    found = {}
    for partition in await read_heads(asked.kernel.pool):
        for event in await read_partition(asked.kernel.pool, partition, after=0):
            if event.workspace == workspace:
                found.setdefault(event.stream, []).append(event.type.rpartition(".")[2])
    return found


async def listed(events, token):
    """The message ids of the list, in its order."""
    response = await events.ListCustomerEvents(
        ListCustomerEventsRequest(read_token=token, page_size=1000)
    )
    return [each.message_id for each in response.customer_events]


async def test_in_one_batch_in_two_at_once_by_call_and_stream_each_counts_once(
    asked, events, record, sent
):
    ids = [f"m-{number:02}" for number in range(30)]
    batch = [sent(message_id) for message_id in [*ids, *ids[:10]]]

    answers = await asyncio.gather(
        record(*batch),
        record(*reversed(batch)),
        streamed(events, batch[:20], batch[10:], batch),
        streamed(events, batch),
    )

    responses = [*answers[:2], *answers[2], *answers[3]]
    receipts = [receipt for response in responses for receipt in response.receipts]
    accepted = [each.message_id for each in receipts if each.outcome == ACCEPTED]
    assert ids == sorted(accepted)
    assert {ACCEPTED, DUPLICATE} == {each.outcome for each in receipts}
    where = {(each.message_id, each.partition, each.position) for each in receipts}
    assert len(ids) == len(where) == len(await logged(asked))
    tokens = [response.write_token for response in responses]
    assert [ids] * len(tokens) == [sorted(await listed(events, token)) for token in tokens]


async def test_a_call_that_is_repeated_makes_up_the_same_ids_and_another_call_others(asked, sent):
    """Who repeats a call tells its correlation id again, and the same customer events."""
    doors = SimpleNamespace(of=AsyncMock(return_value=Door()))
    recorder = Recorder(asked.kernel, doors)

    async def record(call):
        batch = [sent(""), sent(""), sent("", name="Cart Viewed")]
        return await recorder.record(Origin("acme", "tests", call, ""), batch, source="")

    first, again, other = await record("call-1"), await record("call-1"), await record("call-2")

    assert [ACCEPTED] * 3 == outcomes(first) == outcomes(other)
    assert [DUPLICATE] * 3 == outcomes(again)
    assert places(first) == places(again)
    assert 6 == len(await logged(asked))


async def test_after_a_restart_and_a_log_that_grew_it_is_known(
    asked, start_service, partitions, record, sent
):
    first = await record(sent("a"), sent("b"))
    for number in range(20):
        await record(*[sent(f"m-{number}-{n}") for n in range(100)])
    await asked.running.server.stop(2)
    later = await start_service(SERVICE, partitions=partitions)

    again = await later.stub(EventsServiceStub).RecordCustomerEvents(
        RecordCustomerEventsRequest(customer_events=[sent("b"), sent("a"), sent("c")])
    )

    assert [DUPLICATE, DUPLICATE, ACCEPTED] == outcomes(again)
    assert places(first) == places(again)[1::-1]


async def test_across_sources_it_is_one_and_across_workspaces_two(asked, events, record, sent):
    others = asked.stub(EventsServiceStub, workspace="globex")

    mine = [await record(sent("a"), source=source) for source in ("sources/a", "sources/b", "")]
    theirs = await others.RecordCustomerEvents(
        RecordCustomerEventsRequest(customer_events=[sent("a")])
    )

    assert [[ACCEPTED], [DUPLICATE], [DUPLICATE]] == [outcomes(each) for each in mine]
    assert [ACCEPTED] == outcomes(theirs)
    got = await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/a"))
    assert "sources/a" == got.customer_event.source
    assert 1 == len(await logged(asked)) == len(await logged(asked, "globex"))


async def test_what_is_or_was_in_quarantine_is_known(asked, events, record, sent, plan, quarantine):
    first = await record(sent("a"), sent("a"), sent("b"), sent("c"))
    assert [QUARANTINED, DUPLICATE, QUARANTINED, QUARANTINED] == outcomes(first)

    waiting = await record(sent("a"), sent("a", properties='{"total":1}'))
    assert [DUPLICATE, DUPLICATE] == outcomes(waiting)
    plan.needed = ""
    assert [DUPLICATE] == outcomes(await record(sent("a")))
    resubmitted = await quarantine.ResubmitQuarantinedEvents(
        ResubmitQuarantinedEventsRequest(names=["quarantinedEvents/a", "quarantinedEvents/b"])
    )
    discarded = await quarantine.DiscardQuarantinedEvents(
        DiscardQuarantinedEventsRequest(names=["quarantinedEvents/c"], comment="x")
    )
    again = await record(sent("a"), sent("b"), sent("c"))

    assert [DUPLICATE] * 3 == outcomes(again)
    # A duplicate points to what became of the first, and its token is worth that.
    assert places(resubmitted) + places(discarded) == places(again)
    assert ["a", "b"] == sorted(await listed(events, again.write_token))


async def test_what_was_taken_back_is_new_when_it_comes_again(asked, events, record, sent):
    await record(sent("a"), sent("b"))
    retracted = Append(
        Origin("acme", "imports", "", ""),
        "message-a",
        [NewEvent(CustomerEventRetracted(message_id="a"))],
    )
    async with asked.kernel.pool.acquire() as tx, tx.transaction():
        await append_with_views(tx, asked.kernel.log, asked.kernel.views, [retracted])

    again, third = await record(sent("a"), sent("b")), await record(sent("a"))

    assert [[ACCEPTED, DUPLICATE], [DUPLICATE]] == [outcomes(again), outcomes(third)]
    assert 3 == len((await logged(asked))["message-a"])
    assert ["a", "b"] == sorted(await listed(events, again.write_token))
    assert ["a", "b"] == sorted(await listed(events, third.write_token))


async def test_what_was_refused_was_never_there(record, sent):
    assert [REFUSED, ACCEPTED, DUPLICATE] == outcomes(
        await record(sent("a", user_id=""), sent("a"), sent("a"))
    )
    assert [REFUSED] == outcomes(await record(sent("b", user_id="")))
    assert [ACCEPTED] == outcomes(await record(sent("b")))


async def test_a_list_that_hears_of_everything_twice_has_it_once(
    asked, events, record, sent, start_service, partitions
):
    """Two processes follow one feed, and lose their leases while they are at it."""
    ids = [f"m-{number:02}" for number in range(40)]
    token = (await record(*[sent(message_id) for message_id in ids])).write_token
    await listed(events, token)
    other = await start_service(SERVICE, partitions=partitions)
    for pool in (asked.kernel.pool, other.kernel.pool):
        # Whoever follows is fenced, and reads again from the checkpoint on.
        await pool.execute("update kernel.checkpoints set epoch = epoch + 1")
    token = (await record(*[sent(message_id) for message_id in [*ids, "new"]])).write_token

    found = await eventually(lambda: _found(events, token))

    assert [*ids, "new"] == sorted(found)


async def _found(events, token):
    found = await listed(events, token)
    assert found
    return found
