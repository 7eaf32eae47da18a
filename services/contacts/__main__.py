"""The contacts service, composed: `python -m services.contacts` serves it."""

from __future__ import annotations

from rapport.contacts.v1 import events_pb2, service_pb2, service_pb2_grpc
from services.contacts.holdings import ContactHoldings
from services.contacts.projections import ContactsView
from services.contacts.service import ContactsService
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Service, main

SERVICE = Service(
    name="contacts",
    event_types=EventTypes(events_pb2),
    views=(ContactsView(),),
    servicers=lambda kernel: [
        (
            service_pb2.DESCRIPTOR.services_by_name["ContactsService"],
            service_pb2_grpc.add_ContactsServiceServicer_to_server,
            ContactsService(kernel),
        )
    ],
    holdings=ContactHoldings,
)

if __name__ == "__main__":
    main(SERVICE)
