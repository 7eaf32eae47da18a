"""The events service, composed: `python -m services.events` serves it."""

from __future__ import annotations

from rapport.events.v1 import (
    events_pb2,
    service_pb2,
    service_pb2_grpc,
    sources_pb2,
    sources_pb2_grpc,
    suppressions_pb2,
    suppressions_pb2_grpc,
    write_keys_pb2,
    write_keys_pb2_grpc,
)
from services.events.projections.counts import TURNED_AWAY_TABLES
from services.events.projections.customer_events import SOURCE, VIEW
from services.events.projections.doors import Doors
from services.events.projections.sources import SourcesView
from services.events.projections.suppressions import SuppressionsView
from services.events.recording import Recorder
from services.events.service.customer_events import EventsService
from services.events.service.sources import SourcesService, WriteKeysService
from services.events.service.suppressions import SuppressionsService
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Kernel, Service, main
from services.kernel.rpc.server import Served
from services.kernel.views.projection import Consumer

EVENT_TYPES = EventTypes(events_pb2)


def servicers(kernel: Kernel) -> tuple[Served, ...]:
    """What the service answers."""
    doors = Doors(kernel.pool)
    recorder = Recorder(kernel, doors)
    return (
        (
            service_pb2.DESCRIPTOR.services_by_name["EventsService"],
            service_pb2_grpc.add_EventsServiceServicer_to_server,
            EventsService(kernel, recorder),
        ),
        (
            sources_pb2.DESCRIPTOR.services_by_name["SourcesService"],
            sources_pb2_grpc.add_SourcesServiceServicer_to_server,
            SourcesService(kernel, doors),
        ),
        (
            suppressions_pb2.DESCRIPTOR.services_by_name["SuppressionsService"],
            suppressions_pb2_grpc.add_SuppressionsServiceServicer_to_server,
            SuppressionsService(kernel, doors),
        ),
        (
            write_keys_pb2.DESCRIPTOR.services_by_name["WriteKeysService"],
            write_keys_pb2_grpc.add_WriteKeysServiceServicer_to_server,
            WriteKeysService(kernel),
        ),
    )


SERVICE = Service(
    name=SOURCE,
    event_types=EVENT_TYPES,
    # What people decide is read at once. Customer events are not folded as they are recorded: that
    # is the hot path, and their list follows the log.
    views=(SourcesView(), SuppressionsView()),
    consumers=(Consumer(VIEW, sources=(SOURCE,), event_types=EVENT_TYPES),),
    servicers=servicers,
    tables=TURNED_AWAY_TABLES,
)

if __name__ == "__main__":
    main(SERVICE)
