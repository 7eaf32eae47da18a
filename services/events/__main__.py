"""The events service: `python -m services.events` serves, with words behind it operates."""

from __future__ import annotations

from rapport.events.v1 import events_pb2, service_pb2, service_pb2_grpc
from services.events.projections import SOURCE, VIEW
from services.events.service import EventsService
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Kernel, Service, main
from services.kernel.rpc.server import Served
from services.kernel.views.projection import Consumer

EVENT_TYPES = EventTypes(events_pb2)


def servicers(kernel: Kernel) -> tuple[Served, ...]:
    """What the service answers."""
    return (
        (
            service_pb2.DESCRIPTOR.services_by_name["EventsService"],
            service_pb2_grpc.add_EventsServiceServicer_to_server,
            EventsService(kernel),
        ),
    )


SERVICE = Service(
    name=SOURCE,
    event_types=EVENT_TYPES,
    # Recording is the hot path: nothing is folded in its transaction, the list follows the feed.
    consumers=(Consumer(VIEW, sources=(SOURCE,), event_types=EVENT_TYPES),),
    servicers=servicers,
)

if __name__ == "__main__":
    main(SERVICE)
