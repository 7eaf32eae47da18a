"""One message that comes by every door at once, and again, is one: HTTP, gRPC calls and streams."""

import asyncio
import uuid

import grpc
import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.service_pb2 import (
    ListCustomerEventsRequest,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
    StreamCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub

TIMEOUT_S = 20.0
ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE


@pytest.fixture
async def events(platform):
    async with grpc.aio.insecure_channel(platform["grpc"]) as channel:
        yield EventsServiceStub(channel)


async def test_by_http_by_calls_and_by_streams_each_message_counts_once(platform, door, events):
    run = uuid.uuid4().hex[:8]
    ids = [f"{run}-{number}" for number in range(20)]
    sent = [
        CustomerEvent(
            message_id=message_id,
            type=CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
            name="Order Completed",
            user_id=run,
        )
        for message_id in ids
    ]
    written = [
        {"type": "track", "event": "Order Completed", "messageId": message_id, "userId": run}
        for message_id in ids
    ]
    options = {
        "metadata": (("authorization", f"Bearer {platform['write_key']}"),),
        "timeout": TIMEOUT_S,
    }

    async def by_http():
        answer = await door.track(written)
        return [(r["messageId"], r["outcome"]) for r in answer["receipts"]]

    async def by_call():
        request = RecordCustomerEventsRequest(customer_events=sent)
        return told((await events.RecordCustomerEvents(request, **options)).receipts)

    async def by_stream():
        batches = [
            StreamCustomerEventsRequest(customer_events=batch) for batch in (sent[10:], sent[:15])
        ]
        answers = events.StreamCustomerEvents(iter(batches), **options)
        return [each async for answer in answers for each in told(answer.receipts)]

    def told(receipts):
        names = {ACCEPTED: "accepted", DUPLICATE: "duplicate"}
        return [(receipt.message_id, names[receipt.outcome]) for receipt in receipts]

    at_once = await asyncio.gather(*[way() for way in (by_http, by_call, by_stream) * 2])
    again = await asyncio.gather(by_http(), by_call(), by_stream())

    receipts = [receipt for answer in at_once for receipt in answer]
    assert sorted((message_id, "accepted") for message_id in ids) == sorted(
        receipt for receipt in receipts if receipt[1] == "accepted"
    )
    assert {"duplicate"} == {outcome for answer in again for _, outcome in answer}
    request = RecordCustomerEventsRequest(customer_events=sent)
    token = (await events.RecordCustomerEvents(request, **options)).write_token
    listed = await events.ListCustomerEvents(
        ListCustomerEventsRequest(filter=f'user_id = "{run}"', read_token=token),
        metadata=(("authorization", f"Bearer {platform['api_key']}"),),
        timeout=TIMEOUT_S,
    )
    assert sorted(ids) == sorted(each.message_id for each in listed.customer_events)
