"""The deals service, composed: `python -m services.deals` serves it."""

from __future__ import annotations

from rapport.deals.v1 import (
    contracts_pb2,
    contracts_pb2_grpc,
    currencies_pb2,
    currencies_pb2_grpc,
    events_pb2,
    exports_pb2,
    exports_pb2_grpc,
    forecasts_pb2,
    forecasts_pb2_grpc,
    imports_pb2,
    imports_pb2_grpc,
    pipelines_pb2,
    pipelines_pb2_grpc,
    quotes_pb2,
    quotes_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
    service_pb2,
    service_pb2_grpc,
)
from services.deals.holdings import DealHoldings
from services.deals.projections.contracts import ContractsView
from services.deals.projections.currencies import CurrenciesView
from services.deals.projections.deals import DealsView
from services.deals.projections.forecast_submissions import ForecastSubmissionsView
from services.deals.projections.pipelines import PipelinesView
from services.deals.projections.quotas import QuotasView
from services.deals.projections.quote_rows import QuotesView
from services.deals.service.contracts import ContractsService
from services.deals.service.currencies import CurrenciesService
from services.deals.service.deal_exports import DealExportsService
from services.deals.service.deal_imports import DealImportsService
from services.deals.service.deals import DealsService
from services.deals.service.forecasts import ForecastsService
from services.deals.service.pipelines import PipelinesService
from services.deals.service.quotes import QuotesService
from services.deals.service.reports import ReportsService
from services.deals.upkeep.reminders import ReminderMetrics, Reminders
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Kernel, Service, main
from services.kernel.rpc.server import Served, served

EVENT_TYPES = EventTypes(events_pb2)


def servicers(kernel: Kernel) -> tuple[Served, ...]:
    """What the service answers."""
    return (
        served(service_pb2, service_pb2_grpc, DealsService(kernel)),
        served(imports_pb2, imports_pb2_grpc, DealImportsService(kernel)),
        served(exports_pb2, exports_pb2_grpc, DealExportsService(kernel)),
        served(pipelines_pb2, pipelines_pb2_grpc, PipelinesService(kernel)),
        served(currencies_pb2, currencies_pb2_grpc, CurrenciesService(kernel)),
        served(contracts_pb2, contracts_pb2_grpc, ContractsService(kernel)),
        served(quotes_pb2, quotes_pb2_grpc, QuotesService(kernel)),
        served(forecasts_pb2, forecasts_pb2_grpc, ForecastsService(kernel)),
        served(reports_pb2, reports_pb2_grpc, ReportsService(kernel)),
    )


SERVICE = Service(
    name="deals",
    event_types=EVENT_TYPES,
    views=(
        PipelinesView(),
        DealsView(),
        CurrenciesView(),
        ContractsView(),
        QuotesView(),
        QuotasView(),
        ForecastSubmissionsView(),
    ),
    servicers=servicers,
    holdings=DealHoldings,
    background=lambda kernel, registry: [Reminders(kernel, ReminderMetrics(registry)).run()],
)

if __name__ == "__main__":
    main(SERVICE)
