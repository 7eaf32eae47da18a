"""The public services: what the gateway lets through, and which process answers them.

What is not named here does not exist for anybody outside, such as the `LogService` of each service.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from rapport.contacts.v1 import service_pb2 as contacts_pb2
from rapport.deals.v1 import (
    contracts_pb2,
    currencies_pb2,
    forecasts_pb2,
    pipelines_pb2,
    quotes_pb2,
    reports_pb2,
)
from rapport.deals.v1 import exports_pb2 as deal_exports_pb2
from rapport.deals.v1 import imports_pb2 as deal_imports_pb2
from rapport.deals.v1 import service_pb2 as deals_pb2
from rapport.events.v1 import (
    imports_pb2,
    orders_pb2,
    products_pb2,
    quarantine_pb2,
    retention_pb2,
    sources_pb2,
    suppressions_pb2,
    tracking_plans_pb2,
    transformations_pb2,
    webhooks_pb2,
)
from rapport.events.v1 import service_pb2 as events_pb2
from rapport.gateway.v1 import service_pb2 as gateway_pb2
from rapport.identity.v1 import (
    accounts_pb2,
    consents_pb2,
    erasures_pb2,
    explanations_pb2,
    flags_pb2,
    history_pb2,
    match_runs_pb2,
    match_suggestions_pb2,
    rule_sets_pb2,
    subject_exports_pb2,
    verdicts_pb2,
)
from rapport.identity.v1 import service_pb2 as identity_pb2
from rapport.segments.v1 import service_pb2 as segments_pb2

FORWARDED: Final[Mapping[str, tuple[ServiceDescriptor, ...]]] = MappingProxyType(
    {
        "contacts": (contacts_pb2.DESCRIPTOR.services_by_name["ContactsService"],),
        "deals": (
            deals_pb2.DESCRIPTOR.services_by_name["DealsService"],
            deal_imports_pb2.DESCRIPTOR.services_by_name["DealImportsService"],
            deal_exports_pb2.DESCRIPTOR.services_by_name["DealExportsService"],
            pipelines_pb2.DESCRIPTOR.services_by_name["PipelinesService"],
            currencies_pb2.DESCRIPTOR.services_by_name["CurrenciesService"],
            contracts_pb2.DESCRIPTOR.services_by_name["ContractsService"],
            quotes_pb2.DESCRIPTOR.services_by_name["QuotesService"],
            forecasts_pb2.DESCRIPTOR.services_by_name["ForecastsService"],
            reports_pb2.DESCRIPTOR.services_by_name["ReportsService"],
        ),
        "events": (
            events_pb2.DESCRIPTOR.services_by_name["EventsService"],
            sources_pb2.DESCRIPTOR.services_by_name["SourcesService"],
            suppressions_pb2.DESCRIPTOR.services_by_name["SuppressionsService"],
            quarantine_pb2.DESCRIPTOR.services_by_name["QuarantineService"],
            products_pb2.DESCRIPTOR.services_by_name["ProductsService"],
            orders_pb2.DESCRIPTOR.services_by_name["OrdersService"],
            tracking_plans_pb2.DESCRIPTOR.services_by_name["TrackingPlansService"],
            transformations_pb2.DESCRIPTOR.services_by_name["TransformationsService"],
            imports_pb2.DESCRIPTOR.services_by_name["ImportsService"],
            webhooks_pb2.DESCRIPTOR.services_by_name["WebhooksService"],
            retention_pb2.DESCRIPTOR.services_by_name["RetentionService"],
        ),
        "identity": (
            identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
            verdicts_pb2.DESCRIPTOR.services_by_name["VerdictsService"],
            flags_pb2.DESCRIPTOR.services_by_name["FlagsService"],
            explanations_pb2.DESCRIPTOR.services_by_name["ExplanationsService"],
            accounts_pb2.DESCRIPTOR.services_by_name["AccountsService"],
            history_pb2.DESCRIPTOR.services_by_name["HistoryService"],
            match_runs_pb2.DESCRIPTOR.services_by_name["MatchRunsService"],
            match_suggestions_pb2.DESCRIPTOR.services_by_name["MatchSuggestionsService"],
            rule_sets_pb2.DESCRIPTOR.services_by_name["RuleSetsService"],
            consents_pb2.DESCRIPTOR.services_by_name["ConsentsService"],
            subject_exports_pb2.DESCRIPTOR.services_by_name["SubjectExportsService"],
            erasures_pb2.DESCRIPTOR.services_by_name["ErasuresService"],
        ),
        "segments": (segments_pb2.DESCRIPTOR.services_by_name["SegmentsService"],),
    }
)
"""By the name of the process that answers, which is also the name of its address."""

OWN: Final[ServiceDescriptor] = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"]
"""What the gateway answers itself."""

PUBLIC: Final[tuple[ServiceDescriptor, ...]] = (
    *(service for services in FORWARDED.values() for service in services),
    OWN,
)
