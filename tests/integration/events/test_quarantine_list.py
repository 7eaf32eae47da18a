"""What is in quarantine is listed by what it says and what it breaks, to its own workspace only."""

import pytest

from rapport.events.v1.quarantine_pb2 import (
    DiscardQuarantinedEventsRequest,
    GetQuarantinedEventRequest,
    ListQuarantinedEventsRequest,
    QuarantineOutcome,
    ResubmitQuarantinedEventsRequest,
)
from rapport.events.v1.quarantine_pb2_grpc import QuarantineServiceStub
from services.kernel.errors import NotFound

NOT_THERE = QuarantineOutcome.QUARANTINE_OUTCOME_NOT_THERE
EVERYTHING = 'receive_time > "1970-01-01T00:00:00Z"'


def outcomes(response):
    return [receipt.outcome for receipt in response.receipts]


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ('message_id = "a"', "a"),
        ("type = CUSTOMER_EVENT_TYPE_PAGE", "b"),
        ('name = "Cart*"', "c"),
        ("cart", "c"),
        ('user_id = "u-2"', "b"),
        ('anonymous_id = "an-1"', "c"),
        ('group_id = "g"', "c"),
        ('source = "sources/shop"', "d"),
        ("NOT source:*", "abc"),
        ("rules:required", "abcd"),
        ("rules:type", ""),
        ('paths:"/properties/total"', "abcd"),
        ('tracking_plan = "trackingPlans/shop@1"', "abcd"),
        ('occur_time < "2020-01-02T00:00:00Z"', "a"),
        ('receive_time > "2020-01-02T00:00:00Z"', "abcd"),
        ('quarantine_time > "2020-01-02T00:00:00Z"', "abcd"),
    ],
)
async def test_a_filter_asks_the_fields(plan, record, sent, waiting, filter_text, expected):
    await record(
        sent("a", original_time={"seconds": 1_577_836_800}),
        sent("b", type=3, name="", user_id="u-2"),
        sent("c", name="Cart Viewed", anonymous_id="an-1", group_id="g"),
    )
    await record(sent("d"), source="sources/shop")

    assert list(expected) == sorted(await waiting(filter=filter_text))


async def test_a_walk_goes_through_pages_in_the_order_asked(plan, record, sent, quarantine):
    await record(*[sent(f"m-{n:02}", name=f"N{n % 3}") for n in range(10)])
    walked, token = [], ""
    while True:
        page = await quarantine.ListQuarantinedEvents(
            ListQuarantinedEventsRequest(page_size=3, page_token=token, order_by="name desc")
        )
        walked += [each.customer_event.name for each in page.quarantined_events]
        token = page.next_page_token
        if not token:
            break
        await record(sent())

    assert ["N2"] * 3 + ["N1"] * 3 + ["N0"] * 4 == walked


async def test_a_workspace_has_its_own_quarantine(asked, plan, record, sent, waiting):
    theirs = asked.stub(QuarantineServiceStub, workspace="globex")
    await record(sent("a"))
    plan.needed = ""

    listed = await theirs.ListQuarantinedEvents(ListQuarantinedEventsRequest())
    assert not listed.quarantined_events
    with pytest.raises(NotFound):
        await theirs.GetQuarantinedEvent(GetQuarantinedEventRequest(name="quarantinedEvents/a"))
    for asked_for in ({"names": ["quarantinedEvents/a"]}, {"filter": EVERYTHING}):
        resubmitted = await theirs.ResubmitQuarantinedEvents(
            ResubmitQuarantinedEventsRequest(**asked_for)
        )
        discarded = await theirs.DiscardQuarantinedEvents(
            DiscardQuarantinedEventsRequest(**asked_for, comment="none of theirs")
        )
        expected = [NOT_THERE] if "names" in asked_for else []
        assert expected == outcomes(resubmitted) == outcomes(discarded)
    assert ["a"] == await waiting()
