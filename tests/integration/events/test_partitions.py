"""A log in several partitions is one service to whoever asks."""

import pytest

from rapport.events.v1.service_pb2 import ListCustomerEventsRequest, ReceiptOutcome
from services.events.__main__ import SERVICE
from services.kernel.log.log import read_heads
from services.kernel.log.tokens import decode_write_token

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE


@pytest.fixture
async def asked(start_service):
    """The service with three partitions."""
    return await start_service(SERVICE, partitions=3)


async def test_a_message_id_stays_in_its_partition(asked, record, sent):
    batch = [sent(f"m-{number}") for number in range(60)]
    first, again = await record(*batch), await record(*batch)

    assert [ACCEPTED] * 60 == [receipt.outcome for receipt in first.receipts]
    assert [DUPLICATE] * 60 == [receipt.outcome for receipt in again.receipts]
    places = [(receipt.partition, receipt.position) for receipt in first.receipts]
    assert places == [(receipt.partition, receipt.position) for receipt in again.receipts]
    heads = await read_heads(asked.kernel.pool)
    assert sorted(places) == [(p, n) for p, head in heads.items() for n in range(1, head + 1)]
    for token in (first.write_token, again.write_token):
        assert heads == {each.partition: each.position for each in decode_write_token(token)}


async def test_a_walk_leads_through_all_partitions(record, events, sent):
    token = (await record(*[sent(f"m-{number:02}") for number in range(60)])).write_token
    walked, page_token = [], ""
    while True:
        response = await events.ListCustomerEvents(
            ListCustomerEventsRequest(page_size=9, page_token=page_token, read_token=token)
        )
        walked += [each.message_id for each in response.customer_events]
        page_token = response.next_page_token
        if not page_token:
            break
        await record(sent(), sent(), sent())

    assert [f"m-{number:02}" for number in range(60)] == sorted(walked)
