"""The events service, composed: `python -m services.events` serves it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from rapport.events.v1 import (
    events_pb2,
    imports_pb2,
    imports_pb2_grpc,
    orders_pb2,
    orders_pb2_grpc,
    products_pb2,
    products_pb2_grpc,
    quarantine_pb2,
    quarantine_pb2_grpc,
    retention_pb2,
    retention_pb2_grpc,
    service_pb2,
    service_pb2_grpc,
    sources_pb2,
    sources_pb2_grpc,
    suppressions_pb2,
    suppressions_pb2_grpc,
    tracking_plans_pb2,
    tracking_plans_pb2_grpc,
    transformations_pb2,
    transformations_pb2_grpc,
    webhook_deliveries_pb2,
    webhook_deliveries_pb2_grpc,
    webhooks_pb2,
    webhooks_pb2_grpc,
    write_keys_pb2,
    write_keys_pb2_grpc,
)
from services.events.projections import importing, sought, uploads
from services.events.projections.commerce import CommerceView
from services.events.projections.counts import TURNED_AWAY_TABLES
from services.events.projections.customer_events import SOURCE, VIEW
from services.events.projections.doors import Doors
from services.events.projections.imports import ImportsView
from services.events.projections.quarantine import QuarantineView
from services.events.projections.retention_rules import RetentionRulesView
from services.events.projections.sources import SourcesView
from services.events.projections.suppressions import SuppressionsView
from services.events.projections.tracking_plans import TrackingPlansView
from services.events.projections.transformations import TransformationsView
from services.events.projections.webhooks import WebhooksView
from services.events.recording import Recorder
from services.events.service.commerce import OrdersService, ProductsService
from services.events.service.customer_events import EventsService
from services.events.service.imports import ImportsService
from services.events.service.quarantine import QuarantineService
from services.events.service.retention import RetentionService
from services.events.service.sources import SourcesService, WriteKeysService
from services.events.service.suppressions import SuppressionsService
from services.events.service.tracking_plans import TrackingPlansService
from services.events.service.transformations import TransformationsService
from services.events.service.webhook_deliveries import WebhookDeliveriesService
from services.events.service.webhooks import WebhooksService
from services.events.upkeep.gauges import EventsGauges, GaugesUpkeep
from services.events.upkeep.holdings import EventsHoldings
from services.events.upkeep.importing import IMPORTS_AT_ONCE_MAX, ImportMetrics, ImportUpkeep
from services.events.upkeep.retaining import RetentionMetrics, RetentionUpkeep
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Kernel, Service, main
from services.kernel.rpc.server import Served, served
from services.kernel.views.projection import Consumer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from services.kernel.erasing.erasing import Erasing

EVENT_TYPES = EventTypes(events_pb2)


def servicers(kernel: Kernel) -> tuple[Served, ...]:
    """What the service answers."""
    doors = Doors(kernel.pool, kernel.derive_key)
    recorder = Recorder(kernel, doors)
    return (
        served(service_pb2, service_pb2_grpc, EventsService(kernel, recorder)),
        served(sources_pb2, sources_pb2_grpc, SourcesService(kernel, doors)),
        served(suppressions_pb2, suppressions_pb2_grpc, SuppressionsService(kernel, doors)),
        served(quarantine_pb2, quarantine_pb2_grpc, QuarantineService(kernel, doors)),
        served(products_pb2, products_pb2_grpc, ProductsService(kernel)),
        served(orders_pb2, orders_pb2_grpc, OrdersService(kernel)),
        served(tracking_plans_pb2, tracking_plans_pb2_grpc, TrackingPlansService(kernel, doors)),
        served(
            transformations_pb2, transformations_pb2_grpc, TransformationsService(kernel, doors)
        ),
        served(imports_pb2, imports_pb2_grpc, ImportsService(kernel)),
        served(retention_pb2, retention_pb2_grpc, RetentionService(kernel)),
        served(write_keys_pb2, write_keys_pb2_grpc, WriteKeysService(kernel)),
        served(webhooks_pb2, webhooks_pb2_grpc, WebhooksService(kernel)),
        served(
            webhook_deliveries_pb2,
            webhook_deliveries_pb2_grpc,
            WebhookDeliveriesService(kernel, recorder),
        ),
    )


def background(kernel: Kernel, registry: CollectorRegistry) -> list[Coroutine[Any, Any, None]]:
    """What the service does by itself."""
    recorder = Recorder(kernel, Doors(kernel.pool, kernel.derive_key))
    imports = ImportUpkeep(kernel, recorder, ImportMetrics(registry))
    gauges = GaugesUpkeep(kernel, EventsGauges(registry))
    return [gauges.run(), *(imports.run() for _ in range(IMPORTS_AT_ONCE_MAX))]


def sweeping(
    kernel: Kernel, erasing: Erasing, registry: CollectorRegistry
) -> list[Coroutine[Any, Any, None]]:
    """What the service erases by itself."""
    return [RetentionUpkeep(kernel, erasing, RetentionMetrics(registry)).run()]


SERVICE = Service(
    name=SOURCE,
    event_types=EVENT_TYPES,
    # What people decide, and decide about, is read at once. Customer events are not folded as they
    # are recorded: that is the hot path, and their lists follow the log.
    views=(
        SourcesView(),
        SuppressionsView(),
        QuarantineView(),
        TrackingPlansView(),
        TransformationsView(),
        ImportsView(),
        WebhooksView(),
        RetentionRulesView(),
    ),
    consumers=(
        Consumer(VIEW, sources=(SOURCE,), event_types=EVENT_TYPES),
        Consumer(CommerceView(), sources=(SOURCE,), event_types=EVENT_TYPES),
    ),
    servicers=servicers,
    background=background,
    tables=TURNED_AWAY_TABLES + uploads.TABLES + importing.TABLES + sought.TABLES,
    holdings=EventsHoldings,
    sweeping=sweeping,
)

if __name__ == "__main__":
    main(SERVICE)
