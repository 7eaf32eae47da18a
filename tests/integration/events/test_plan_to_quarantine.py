"""What a published plan kept in quarantine is recorded once the plan was published anew."""

import json
from datetime import UTC, datetime

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    SourceSettings,
    TrackingPlanContent,
    TrackingPlanRule,
    ViolationPolicy,
)
from rapport.events.v1.quarantine_pb2 import (
    ListQuarantinedEventsRequest,
    QuarantineOutcome,
    ResubmitQuarantinedEventsRequest,
)
from rapport.events.v1.service_pb2 import ListCustomerEventsRequest, ReceiptOutcome
from rapport.events.v1.sources_pb2 import CreateSourceRequest
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from rapport.events.v1.tracking_plans_pb2 import (
    CreateTrackingPlanRequest,
    DraftTrackingPlanRequest,
    PublishTrackingPlanRequest,
)
from rapport.events.v1.tracking_plans_pb2_grpc import TrackingPlansServiceStub

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
RECORDED = QuarantineOutcome.QUARANTINE_OUTCOME_RECORDED
STILL = QuarantineOutcome.QUARANTINE_OUTCOME_STILL_QUARANTINED

PLAN, SOURCE = "trackingPlans/shop", "sources/shop"
THEN = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
ORDERS = 'tracking_plan = "trackingPlans/shop@1"'


def content_of(price_type):
    """A plan whose orders need a price of some type."""
    schema = {
        "properties": {
            "properties": {"properties": {"price": {"type": price_type}}, "required": ["price"]}
        }
    }
    rule = TrackingPlanRule(
        type=CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
        event_name="Order Completed",
        schema=json.dumps(schema),
        policy=ViolationPolicy.VIOLATION_POLICY_QUARANTINE,
    )
    return TrackingPlanContent(rules=[rule])


@pytest.fixture
async def plans(asked):
    """Tracking plans, one of which is published and holds what the source sends to numbers."""
    plans = asked.stub(TrackingPlansServiceStub)
    await plans.CreateTrackingPlan(
        CreateTrackingPlanRequest(
            tracking_plan_id="shop", display_name="Shop", content=content_of("number")
        )
    )
    await plans.PublishTrackingPlan(PublishTrackingPlanRequest(name=PLAN))
    settings = SourceSettings(tracking_plan=PLAN)
    await asked.stub(SourcesServiceStub).CreateSource(
        CreateSourceRequest(source_id="shop", display_name="Shop", settings=settings)
    )
    return plans


async def test_what_a_plan_kept_is_recorded_at_its_own_time_once_the_plan_was_mended(
    plans, record, sent, quarantine, events, waiting, got
):
    priced = sent("text", properties='{"price":"3.50"}')
    bare = sent("bare", properties="{}")
    good = sent("good", properties='{"price":3.5}')
    for customer_event in (priced, bare, good):
        customer_event.original_time.FromDatetime(THEN)
    told = await record(priced, bare, good, source=SOURCE)

    listed = await quarantine.ListQuarantinedEvents(ListQuarantinedEventsRequest(filter=ORDERS))
    kept = {
        each.customer_event.message_id: each.customer_event for each in listed.quarantined_events
    }
    found = {
        message_id: [(it.rule, it.path, it.tracking_plan) for it in each.violations]
        for message_id, each in kept.items()
    }

    assert [QUARANTINED, QUARANTINED, ACCEPTED] == [it.outcome for it in told.receipts]
    assert found == {
        "text": [("type", "/properties/price", "trackingPlans/shop@1")],
        "bare": [("required", "/properties/price", "trackingPlans/shop@1")],
    }

    await plans.DraftTrackingPlan(
        DraftTrackingPlanRequest(name=PLAN, content=content_of(["number", "string"]))
    )
    drafted = await resubmitted(quarantine)
    await plans.PublishTrackingPlan(PublishTrackingPlanRequest(name=PLAN))
    published = await resubmitted(quarantine)

    # A draft is in force nowhere; what the new version does not mend waits on.
    assert {"text": STILL, "bare": STILL} == outcomes(drafted)
    assert {"text": RECORDED, "bare": STILL} == outcomes(published)
    assert ["bare"] == await waiting()
    recorded = await got("text")
    assert [] == list(recorded.violations)
    assert THEN == recorded.occur_time.ToDatetime(tzinfo=UTC)
    assert kept["text"].receive_time == recorded.receive_time
    assert ("3.50", SOURCE) == (json.loads(recorded.properties)["price"], recorded.source)
    in_its_place = await events.ListCustomerEvents(
        ListCustomerEventsRequest(
            filter='occur_time < "2020-02-04T00:00:00Z"', read_token=published.write_token
        )
    )
    assert {"good", "text"} == {it.message_id for it in in_its_place.customer_events}
    again = await record(sent("text", properties='{"price":"3.50"}'), source=SOURCE)
    assert [DUPLICATE] == [it.outcome for it in again.receipts]


async def resubmitted(quarantine):
    return await quarantine.ResubmitQuarantinedEvents(
        ResubmitQuarantinedEventsRequest(filter=ORDERS)
    )


def outcomes(response):
    return {it.name.removeprefix("quarantinedEvents/"): it.outcome for it in response.receipts}
