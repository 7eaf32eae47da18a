"""The events service, and who sends it customer events."""

import uuid

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.service_pb2 import RecordCustomerEventsRequest
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events.__main__ import SERVICE


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

    async def record(*customer_events):
        return await events.RecordCustomerEvents(
            RecordCustomerEventsRequest(customer_events=customer_events)
        )

    return record
