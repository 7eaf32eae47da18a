"""The identity service, composed: `python -m services.identity` serves it."""

from __future__ import annotations

from rapport.contacts.v1 import events_pb2 as contacts_events
from rapport.deals.v1 import events_pb2 as deals_events
from rapport.events.v1 import events_pb2 as customer_events
from rapport.identity.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    events_pb2,
    explanations_pb2,
    explanations_pb2_grpc,
    service_pb2,
    service_pb2_grpc,
    verdicts_pb2,
    verdicts_pb2_grpc,
)
from services.identity.policies import TellProfileChanges
from services.identity.projections import ProfilesView
from services.identity.service.accounts import AccountsService
from services.identity.service.explanations import ExplanationsService
from services.identity.service.identity import IdentityService
from services.identity.service.verdicts import VerdictsService
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Service, main
from services.kernel.views.projection import Consumer

SERVICE = Service(
    name="identity",
    event_types=EventTypes(events_pb2),
    consumers=(
        Consumer(
            view=ProfilesView(),
            # Verdicts are of the own log.
            sources=("contacts", "deals", "events", "identity"),
            event_types=EventTypes(contacts_events, deals_events, customer_events, events_pb2),
            policy=TellProfileChanges(),
        ),
    ),
    servicers=lambda kernel: [
        (
            service_pb2.DESCRIPTOR.services_by_name["IdentityService"],
            service_pb2_grpc.add_IdentityServiceServicer_to_server,
            IdentityService(kernel),
        ),
        (
            verdicts_pb2.DESCRIPTOR.services_by_name["VerdictsService"],
            verdicts_pb2_grpc.add_VerdictsServiceServicer_to_server,
            VerdictsService(kernel),
        ),
        (
            explanations_pb2.DESCRIPTOR.services_by_name["ExplanationsService"],
            explanations_pb2_grpc.add_ExplanationsServiceServicer_to_server,
            ExplanationsService(kernel),
        ),
        (
            accounts_pb2.DESCRIPTOR.services_by_name["AccountsService"],
            accounts_pb2_grpc.add_AccountsServiceServicer_to_server,
            AccountsService(kernel),
        ),
    ],
)

if __name__ == "__main__":
    main(SERVICE)
