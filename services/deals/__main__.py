"""The deals service, composed: `python -m services.deals` serves it."""

from __future__ import annotations

from rapport.deals.v1 import events_pb2, service_pb2, service_pb2_grpc
from services.deals.projections import DealsView
from services.deals.service import DealsService
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Service, main

SERVICE = Service(
    name="deals",
    event_types=EventTypes(events_pb2),
    views=(DealsView(),),
    servicers=lambda kernel: [
        (
            service_pb2.DESCRIPTOR.services_by_name["DealsService"],
            service_pb2_grpc.add_DealsServiceServicer_to_server,
            DealsService(kernel),
        )
    ],
)

if __name__ == "__main__":
    main(SERVICE)
