"""What came is counted by hour, source, type, name and outcome, exactly as receipts said."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import SourceSettings
from rapport.events.v1.quarantine_pb2 import ResubmitQuarantinedEventsRequest
from rapport.events.v1.service_pb2 import (
    ListCustomerEventCountsRequest,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.events.v1.sources_pb2 import CreateSourceRequest
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from services.events.__main__ import SERVICE
from services.kernel.clock import FixedClock
from services.kernel.errors import InvalidArgument

NOON = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED


@pytest.fixture
def clock():
    """A clock that goes when it is told."""
    return FixedClock(NOON)


@pytest.fixture
async def asked(start_service, clock):
    """The service on that clock."""
    return await start_service(SERVICE, clock=clock)


@pytest.fixture
def counts(events):
    """All counts, a page of two at a time."""

    async def counts(read_token="", stub=events, **asked):
        found, page_token = [], ""
        while True:
            page = await stub.ListCustomerEventCounts(
                ListCustomerEventCountsRequest(
                    page_size=2, page_token=page_token, read_token=read_token, **asked
                )
            )
            found += page.counts
            page_token = page.next_page_token
            if not page_token:
                return found

    return counts


async def test_counts_add_up_to_the_receipts(asked, clock, record, sent, plan, counts):
    await asked.stub(SourcesServiceStub).CreateSource(
        CreateSourceRequest(
            source_id="app",
            display_name="App",
            settings=SourceSettings(allowed_types=[TRACK, PAGE], sampled_millionths=500_000),
        )
    )
    chance = random.Random(7)
    expected, token = Counter(), ""
    for number in range(12):
        source = chance.choice(["", "sources/app", "sources/web"])
        batch = [
            sent(
                f"m-{chance.randrange(60)}",
                type=chance.choice([TRACK, PAGE, 2]),
                name=chance.choice(["A", "B", ""]),
                user_id=chance.choice(["", "u-1", "u-2", "u-3", "u-4"]),
                properties=chance.choice(['{"total":1}', "{}", "{"]),
            )
            for _ in range(20)
        ]
        response = await record(*batch, source=source)
        token = response.write_token or token
        for customer_event, receipt in zip(batch, response.receipts, strict=True):
            name = customer_event.name if customer_event.type == TRACK else ""
            reason = receipt.reason if receipt.outcome != QUARANTINED else ""
            hour = clock.now().replace(minute=0)
            key = (hour, source, customer_event.type, name, receipt.outcome, reason)
            expected[key] += 1
        if number % 4 == 3:
            clock.advance(timedelta(minutes=31))

    found = await counts(token)

    assert 5 == len({outcome for *_, outcome, _ in expected})
    assert expected == {
        (
            each.hour.ToDatetime(tzinfo=UTC),
            each.source,
            each.type,
            each.name,
            each.outcome,
            each.reason,
        ): each.count
        for each in found
    }
    assert len(expected) == len(found)
    hours = [each.hour.seconds for each in found]
    assert sorted(hours, reverse=True) == hours
    assert 240 == sum(each.count for each in found)


async def test_what_leaves_quarantine_is_accepted_in_the_hour_it_came(
    clock, record, sent, plan, quarantine, counts
):
    await record(sent("a"))
    clock.advance(timedelta(hours=5))
    plan.needed = ""
    response = await quarantine.ResubmitQuarantinedEvents(
        ResubmitQuarantinedEventsRequest(names=["quarantinedEvents/a"])
    )

    found = await counts(response.write_token)

    assert {(ACCEPTED, 12, 1), (QUARANTINED, 12, 1)} == {
        (each.outcome, each.hour.ToDatetime().hour, each.count) for each in found
    }


async def test_a_filter_asks_the_fields(record, sent, counts):
    token = (await record(sent("a"), sent("b", name="Paid"), sent("c", user_id=""))).write_token

    async def names(filter_text):
        return sorted(each.name for each in await counts(token, filter=filter_text))

    assert ["Paid"] == await names('name = "Paid"')
    assert ["Order Completed"] == await names("outcome = REFUSED AND reason = NO_IDENTIFIER")
    assert ["Order Completed", "Paid"] == await names("outcome = ACCEPTED AND type = TRACK")
    assert [] == await names('hour > "2026-01-01T12:00:00Z"')
    assert [] == await names('source = "sources/shop"')
    with pytest.raises(InvalidArgument):
        await names("count > 1")


async def test_a_workspace_counts_its_own_only(asked, record, sent, counts):
    others = asked.stub(EventsServiceStub, workspace="globex")
    await record(sent("a"), sent("b", user_id=""))
    response = await others.RecordCustomerEvents(
        RecordCustomerEventsRequest(customer_events=[sent("a")])
    )

    found = await counts(response.write_token, stub=others)

    assert [(ACCEPTED, 1)] == [(each.outcome, each.count) for each in found]
