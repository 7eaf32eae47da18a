"""What comes out of quarantine is in a person's timeline when it happened, not when it came out."""

import dataclasses
import uuid

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType, Violation
from rapport.events.v1.quarantine_pb2 import ResubmitQuarantinedEventsRequest
from rapport.events.v1.quarantine_pb2_grpc import QuarantineServiceStub
from rapport.events.v1.service_pb2 import RecordCustomerEventsRequest
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.identity.v1.service_pb2 import ListTimelineRequest
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from services.events.__main__ import SERVICE as EVENTS
from services.events.door import Judgement, Verdict
from services.events.projections.doors import Doors
from services.identity.__main__ import SERVICE as IDENTITY

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
HOUR_S = 3600
FIRST_S = 1_760_000_000


@pytest.fixture
async def identity_database(postgres):
    """The URL of a database beside the one of events."""
    name = f"test_{uuid.uuid4().hex}"
    yield await postgres.create_database(name)
    await postgres.drop_database(name)


@pytest.fixture
async def people(start_service, identity_database):
    """Events, and identity that listens to nobody else."""
    consumer = IDENTITY.consumers[0]
    listens = dataclasses.replace(consumer, sources=("events",))
    service = dataclasses.replace(IDENTITY, consumers=(listens,))
    events = await start_service(EVENTS)
    identity = await start_service(service, database_url=identity_database, events=events.address)
    return events, identity


class Strict:
    """A plan that quarantines all that a source sends until it is mended."""

    is_mended = False

    def judge(self, opened):
        if self.is_mended or opened.event.user_id != "ada":
            return Judgement(Verdict.LET_IN, [])
        return Judgement(Verdict.QUARANTINE, [Violation(rule="unplanned", path="/name")])


@pytest.fixture
def plan(monkeypatch):
    """The plan of `sources/shop`."""
    plan = Strict()
    door_of = Doors.of

    async def of(self, workspace, source):
        door = await door_of(self, workspace, source)
        return dataclasses.replace(door, plan=plan) if source == "sources/shop" else door

    monkeypatch.setattr(Doors, "of", of)
    return plan


async def test_a_source_whose_plan_is_mended_fills_the_hours_it_missed(people, plan):
    events, identity = people
    recording = events.stub(EventsServiceStub)

    async def record(source, *told):
        sent = [
            CustomerEvent(
                message_id=f"m-{hour}",
                type=TRACK,
                name=name,
                user_id="ada",
                original_time={"seconds": FIRST_S + hour * HOUR_S},
            )
            for hour, name in told
        ]
        response = await recording.RecordCustomerEvents(
            RecordCustomerEventsRequest(customer_events=sent, source=source)
        )
        return response.write_token

    async def timeline(token):
        response = await identity.stub(IdentityServiceStub).ListTimeline(
            ListTimelineRequest(name="profiles/user_id:ada", read_token=token)
        )
        return [
            ((entry.occur_time.seconds - FIRST_S) // HOUR_S, entry.activity)
            for entry in response.entries
        ]

    await record("sources/shop", (1, "Cart Viewed"), (3, "Order Completed"))
    token = await record("sources/app", (0, "App Opened"), (2, "Coupon Seen"), (4, "App Closed"))
    assert [(4, "App Closed"), (2, "Coupon Seen"), (0, "App Opened")] == await timeline(token)
    plan.is_mended = True

    resubmitted = await events.stub(QuarantineServiceStub).ResubmitQuarantinedEvents(
        ResubmitQuarantinedEventsRequest(filter='source = "sources/shop"')
    )

    assert 0 == resubmitted.left_count
    assert [
        (4, "App Closed"),
        (3, "Order Completed"),
        (2, "Coupon Seen"),
        (1, "Cart Viewed"),
        (0, "App Opened"),
    ] == await timeline(resubmitted.write_token)
