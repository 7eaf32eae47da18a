"""The identity service, composed: `python -m services.identity` serves it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from rapport.contacts.v1 import events_pb2 as contacts_events
from rapport.deals.v1 import events_pb2 as deals_events
from rapport.events.v1 import events_pb2 as customer_events
from rapport.identity.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    consents_pb2,
    consents_pb2_grpc,
    erasures_pb2,
    erasures_pb2_grpc,
    events_pb2,
    explanations_pb2,
    explanations_pb2_grpc,
    flags_pb2,
    flags_pb2_grpc,
    history_pb2,
    history_pb2_grpc,
    match_runs_pb2,
    match_runs_pb2_grpc,
    match_suggestions_pb2,
    match_suggestions_pb2_grpc,
    rule_sets_pb2,
    rule_sets_pb2_grpc,
    service_pb2,
    service_pb2_grpc,
    subject_exports_pb2,
    subject_exports_pb2_grpc,
    verdicts_pb2,
    verdicts_pb2_grpc,
)
from services.identity.holdings import IdentityHoldings
from services.identity.policies import TellProfileChanges
from services.identity.projections import ProfilesView, erasure_work, match_progress, rule_builds
from services.identity.projections.erasures import ErasuresView
from services.identity.projections.history import HistoryView
from services.identity.projections.match_runs import MatchRunsView
from services.identity.projections.match_suggestions import MatchSuggestionsView
from services.identity.projections.purposes import PurposesView
from services.identity.projections.rule_sets import RuleSetsView
from services.identity.service.accounts import AccountsService
from services.identity.service.consents import ConsentsService
from services.identity.service.erasures import ErasuresService
from services.identity.service.explanations import ExplanationsService
from services.identity.service.flags import FlagsService
from services.identity.service.history import HistoryService
from services.identity.service.identity import IdentityService
from services.identity.service.match_runs import MatchRunsService
from services.identity.service.match_suggestions import MatchSuggestionsService
from services.identity.service.rule_sets import RuleSetsService
from services.identity.service.subject_exports import OTHERS, SubjectExportsService
from services.identity.service.verdicts import VerdictsService
from services.identity.upkeep.erasing import ErasureMetrics, ErasureUpkeep
from services.identity.upkeep.match_running import MatchRunMetrics, MatchUpkeep
from services.identity.upkeep.rule_switching import RuleSetUpkeep
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Kernel, Service, main
from services.kernel.rpc.server import served
from services.kernel.views.projection import Consumer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# Verdicts and rule sets are of the own log.
FACTS = EventTypes(contacts_events, deals_events, customer_events, events_pb2)
# Somewhat more work per fact, and whoever asks meanwhile waits a fifth as long for a batch.
BATCH_SIZE_ASKED = 200


def background(kernel: Kernel, registry: CollectorRegistry) -> list[Coroutine[Any, Any, None]]:
    """What the service does by itself."""
    return [
        MatchUpkeep(kernel, MatchRunMetrics(registry)).run(),
        RuleSetUpkeep(kernel, FACTS).run(),
        ErasureUpkeep(kernel, ErasureMetrics(registry)).run(),
    ]


SERVICE = Service(
    name="identity",
    may_ask=OTHERS,
    event_types=EventTypes(events_pb2),
    # What people decide about is read at once.
    views=(
        MatchRunsView(),
        MatchSuggestionsView(),
        RuleSetsView(),
        PurposesView(),
        ErasuresView(),
    ),
    consumers=(
        Consumer(
            view=ProfilesView(),
            # Verdicts, flags and consents are of the own log.
            sources=("contacts", "deals", "events", "identity"),
            event_types=FACTS,
            policy=TellProfileChanges(),
            batch_size_asked=BATCH_SIZE_ASKED,
        ),
        Consumer(
            view=HistoryView(),
            sources=("identity",),
            event_types=EventTypes(events_pb2),
            batch_size_asked=BATCH_SIZE_ASKED,
        ),
    ),
    servicers=lambda kernel: [
        served(service_pb2, service_pb2_grpc, IdentityService(kernel)),
        served(verdicts_pb2, verdicts_pb2_grpc, VerdictsService(kernel)),
        served(flags_pb2, flags_pb2_grpc, FlagsService(kernel)),
        served(explanations_pb2, explanations_pb2_grpc, ExplanationsService(kernel)),
        served(accounts_pb2, accounts_pb2_grpc, AccountsService(kernel)),
        served(history_pb2, history_pb2_grpc, HistoryService(kernel)),
        served(match_runs_pb2, match_runs_pb2_grpc, MatchRunsService(kernel)),
        served(match_suggestions_pb2, match_suggestions_pb2_grpc, MatchSuggestionsService(kernel)),
        served(rule_sets_pb2, rule_sets_pb2_grpc, RuleSetsService(kernel)),
        served(consents_pb2, consents_pb2_grpc, ConsentsService(kernel)),
        served(subject_exports_pb2, subject_exports_pb2_grpc, SubjectExportsService(kernel)),
        served(erasures_pb2, erasures_pb2_grpc, ErasuresService(kernel)),
    ],
    background=background,
    holdings=IdentityHoldings,
    tables=match_progress.TABLES + rule_builds.TABLES + erasure_work.TABLES,
)

if __name__ == "__main__":
    main(SERVICE)
