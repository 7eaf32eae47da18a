"""The events service, and who sends it customer events."""

import dataclasses
import uuid

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType, Violation
from rapport.events.v1.imports_pb2_grpc import ImportsServiceStub
from rapport.events.v1.quarantine_pb2 import (
    DiscardQuarantinedEventsRequest,
    ListQuarantinedEventsRequest,
    ResubmitQuarantinedEventsRequest,
)
from rapport.events.v1.quarantine_pb2_grpc import QuarantineServiceStub
from rapport.events.v1.service_pb2 import GetCustomerEventRequest, RecordCustomerEventsRequest
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events.__main__ import SERVICE
from services.events.door import Judgement, Verdict
from services.events.projections.doors import Doors
from tests.imports_world import Imports


@pytest.fixture
async def asked(start_service):
    """The running service."""
    return await start_service(SERVICE)


@pytest.fixture
def events(asked):
    """The service as the workspace `acme` sees it."""
    return asked.stub(EventsServiceStub)


@pytest.fixture
def sent():
    """Makes a customer event: `sent("m-1", name="Order Completed")`."""

    def sent(message_id=None, **changes):
        fields = {
            "message_id": str(uuid.uuid4()) if message_id is None else message_id,
            "type": CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
            "name": "Order Completed",
            "user_id": "u-1",
        }
        return CustomerEvent(**fields | changes)

    return sent


@pytest.fixture
def record(events):
    """Records customer events and returns the response: `await record(sent("m-1"))`."""

    async def record(*customer_events, source=""):
        return await events.RecordCustomerEvents(
            RecordCustomerEventsRequest(customer_events=customer_events, source=source)
        )

    return record


@pytest.fixture
def imports(asked):
    """The imports of the workspace `acme`."""
    return Imports(asked.stub(ImportsServiceStub), asked.stub(EventsServiceStub))


@pytest.fixture
def quarantine(asked):
    """What is in quarantine, as the workspace `acme` sees it."""
    return asked.stub(QuarantineServiceStub)


class NeedsTotal:
    """A stand-in for a tracking plan: properties need a `total`, unless nothing is needed."""

    def __init__(self):
        self.needed = "total"
        self.verdict = Verdict.QUARANTINE

    def judge(self, opened):
        if not self.needed or self.needed in opened.properties:
            return Judgement(Verdict.LET_IN, [])
        violation = Violation(
            rule="required",
            path=f"/properties/{self.needed}",
            detail="is missing",
            tracking_plan="trackingPlans/shop@1",
        )
        return Judgement(self.verdict, [violation])


@pytest.fixture
def plan(monkeypatch):
    """The plan of all sources of all workspaces; change `needed` and `verdict` as you like."""
    plan = NeedsTotal()
    door_of = Doors.of

    async def of(self, workspace, source):
        return dataclasses.replace(await door_of(self, workspace, source), plan=plan)

    monkeypatch.setattr(Doors, "of", of)
    return plan


@pytest.fixture
def resubmit(quarantine):
    """`await resubmit("a", "b", merge_patch=...)`."""

    async def resubmit(*message_ids, **fields):
        return await quarantine.ResubmitQuarantinedEvents(
            ResubmitQuarantinedEventsRequest(names=_quarantined(message_ids), **fields)
        )

    return resubmit


@pytest.fixture
def discard(quarantine):
    """`await discard("a", "b")`."""

    async def discard(*message_ids, comment="a test of the shop", **fields):
        return await quarantine.DiscardQuarantinedEvents(
            DiscardQuarantinedEventsRequest(
                names=_quarantined(message_ids), comment=comment, **fields
            )
        )

    return discard


@pytest.fixture
def waiting(quarantine):
    """The message ids in quarantine, in the order of a list."""

    async def waiting(**asked):
        request = ListQuarantinedEventsRequest(**asked)
        listed = await quarantine.ListQuarantinedEvents(request)
        return [each.customer_event.message_id for each in listed.quarantined_events]

    return waiting


@pytest.fixture
def got(events):
    """A customer event that was recorded, or NotFound."""

    async def got(message_id):
        name = f"customerEvents/{message_id}"
        response = await events.GetCustomerEvent(GetCustomerEventRequest(name=name))
        return response.customer_event

    return got


def _quarantined(message_ids):
    return [f"quarantinedEvents/{message_id}" for message_id in message_ids]
