"""The segments service, composed: `python -m services.segments` serves it."""

from __future__ import annotations

from rapport.identity.v1 import events_pb2 as identity_events_pb2
from rapport.segments.v1 import events_pb2, service_pb2, service_pb2_grpc
from services.kernel.clock import Clock, SystemClock
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Kernel, Service, main
from services.kernel.rpc.server import Served, served
from services.kernel.views.projection import Consumer
from services.segments.holdings import SegmentHoldings
from services.segments.policies import FactsPolicy
from services.segments.projections.agenda import TABLES
from services.segments.projections.facts import ProfileFactsView
from services.segments.projections.segments import SegmentsView
from services.segments.service import SegmentsService
from services.segments.upkeep import Upkeep, UpkeepMetrics


def servicers(kernel: Kernel) -> tuple[Served, ...]:
    """What the service answers."""
    return (served(service_pb2, service_pb2_grpc, SegmentsService(kernel)),)


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
        servicers=servicers,
        background=lambda kernel, registry: [Upkeep(kernel, UpkeepMetrics(registry)).run()],
        tables=TABLES,
        holdings=SegmentHoldings,
    )


SERVICE = compose(SystemClock())

if __name__ == "__main__":
    main(SERVICE)
