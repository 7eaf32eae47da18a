"""The deals service, composed: `python -m services.deals` serves it."""

from __future__ import annotations

from rapport.deals.v1 import events_pb2, service_pb2, service_pb2_grpc
from services.deals.projections.deals import DealsView
from services.deals.service.deals import DealsService
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Kernel, Service, main
from services.kernel.rpc.server import Served, served

EVENT_TYPES = EventTypes(events_pb2)


def servicers(kernel: Kernel) -> tuple[Served, ...]:
    """What the service answers."""
    return (served(service_pb2, service_pb2_grpc, DealsService(kernel)),)


SERVICE = Service(
    name="deals",
    event_types=EVENT_TYPES,
    views=(DealsView(),),
    servicers=servicers,
)

if __name__ == "__main__":
    main(SERVICE)
