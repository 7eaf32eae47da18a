"""The segments service, composed: `python -m services.segments` serves it."""

from __future__ import annotations

from rapport.identity.v1 import events_pb2 as identity_events_pb2
from rapport.segments.v1 import events_pb2, service_pb2, service_pb2_grpc
from services.kernel.clock import Clock, SystemClock
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Service, main
from services.kernel.views.projection import Consumer
from services.segments.policies import FactsPolicy
from services.segments.projections.agenda import TABLES
from services.segments.projections.facts import ProfileFactsView
from services.segments.projections.segments import SegmentsView
from services.segments.service import SegmentsService
from services.segments.upkeep import Upkeep, UpkeepMetrics


def compose(clock: Clock) -> Service:
    """The service on a clock: membership depends on what time it is."""
    return Service(
        name="segments",
        event_types=EventTypes(events_pb2),
        views=(SegmentsView(),),
        consumers=(
            Consumer(
                view=ProfileFactsView(),
                sources=("identity",),
                event_types=EventTypes(identity_events_pb2),
                policy=FactsPolicy(clock),
            ),
        ),
        servicers=lambda kernel: [
            (
                service_pb2.DESCRIPTOR.services_by_name["SegmentsService"],
                service_pb2_grpc.add_SegmentsServiceServicer_to_server,
                SegmentsService(kernel),
            )
        ],
        background=lambda kernel, registry: [Upkeep(kernel, UpkeepMetrics(registry)).run()],
        tables=TABLES,
    )


SERVICE = compose(SystemClock())

if __name__ == "__main__":
    main(SERVICE)
