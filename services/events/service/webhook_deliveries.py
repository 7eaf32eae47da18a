"""What came to a webhook: believed if its signature is right, and recorded for its source."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import WebhookMapping, WebhookPreset, WebhookSignature
from rapport.events.v1.service_pb2 import ReceiptOutcome
from rapport.events.v1.webhook_deliveries_pb2 import DeliverWebhookRequest, DeliverWebhookResponse
from rapport.events.v1.webhook_deliveries_pb2_grpc import WebhookDeliveriesServiceServicer
from rapport.events.v1.webhooks_pb2 import WebhookOutcome
from services.events import webhook_signature
from services.events.deciders.webhook import DECIDER
from services.events.projections.counts import count_turned_away
from services.events.projections.webhooks import believed, secrets_of, webhook_at
from services.events.receipts import Tally
from services.events.service.webhook_secrets import WebhookSecrets
from services.events.webhook_mapping import CompiledMapping, Delivery, Unmapped
from services.kernel.errors import FailedPrecondition, InvalidArgument, NotFound, Unauthenticated
from services.kernel.log.log import Origin
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.events.projections.webhooks import Row
    from services.events.recording import Recorder
    from services.kernel.process.runtime import Kernel

MAPPINGS_MAX = 1000
"""Mappings that are kept compiled."""

_MAPPED = WebhookOutcome.WEBHOOK_OUTCOME_MAPPED
_SKIPPED = WebhookOutcome.WEBHOOK_OUTCOME_SKIPPED
_UNMAPPED = WebhookOutcome.WEBHOOK_OUTCOME_UNMAPPED
_REASONS = {_SKIPPED: "WEBHOOK_SKIPPED", _UNMAPPED: "WEBHOOK_UNMAPPED"}
_NO_TYPE = CustomerEventType.CUSTOMER_EVENT_TYPE_UNSPECIFIED
# What a delivery to nobody is checked against.
_NOBODY = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_STANDARD_WEBHOOKS)

Meaning = tuple[WebhookOutcome.ValueType, str, list[CustomerEvent]]


class WebhookDeliveriesService(WebhookDeliveriesServiceServicer):
    """Deliveries to webhooks of all workspaces, for the gateway."""

    def __init__(self, kernel: Kernel, recorder: Recorder) -> None:
        self._kernel = kernel
        self._recorder = recorder

    async def DeliverWebhook(
        self, request: DeliverWebhookRequest, _: Any
    ) -> DeliverWebhookResponse:
        headers = dict(request.headers)
        row = await webhook_at(self._kernel.pool, request.address_id)
        problem = await self._problem(row, request.body, headers)
        if row is None:
            raise NotFound(f"webhooks/{request.address_id}")
        if problem:
            raise Unauthenticated(problem)
        if row.state.is_disabled:
            message = "this webhook is disabled: nothing that comes to it is taken"
            raise FailedPrecondition(message, resource=row.state.address_id, state="DISABLED")
        delivery = seen(row, request.body, headers, dict(request.query))
        outcome, detail, found = means(row.state.mapping, delivery)
        if outcome != _MAPPED:
            tally = Tally(_NO_TYPE, "", ReceiptOutcome.RECEIPT_OUTCOME_REFUSED, _REASONS[outcome])
            await count_turned_away(self._kernel, row.workspace, row.state.source, {tally: 1})
            return DeliverWebhookResponse(outcome=outcome, detail=detail)
        recorded = await self._recorder.record(
            Origin(
                row.workspace,
                row.state.source,
                current_caller().correlation_id,
                causation_id="",
            ),
            found,
            source=row.state.source,
        )
        return DeliverWebhookResponse(
            outcome=outcome, receipts=recorded.receipts, write_token=recorded.write_token
        )

    async def _problem(self, row: Row | None, body: bytes, headers: Mapping[str, str]) -> str:
        """Why a delivery is not believed. One to nobody takes as long as one that is wrong."""
        workspace, webhook_id = ("", "") if row is None else (row.workspace, row.aggregate_id)
        now = self._kernel.clock.now()
        found = await secrets_of(self._kernel.pool, workspace, [webhook_id])
        secrets = WebhookSecrets(self._kernel.derive_key, workspace, webhook_id)
        signature = _NOBODY if row is None else WebhookSignature.FromString(row.state.signature)
        tried = [(it.secret_id, it.sealed) for it in believed(found.get(webhook_id, ()), now)]
        return webhook_signature.problem(
            signature,
            [secrets.opened(*secret) for secret in tried or [("", b"")]],
            body=body,
            headers=headers,
            now_s=now.timestamp(),
        )


def seen(row: Row, body: bytes, headers: Mapping[str, str], query: Mapping[str, str]) -> Delivery:
    """A delivery as its mapping sees it: without what is secret."""
    signature = WebhookSignature.FromString(row.state.signature)
    hidden = webhook_signature.secret_headers(signature)
    return Delivery(
        webhook=DECIDER.name(row.aggregate_id),
        body=body,
        headers={name: value for name, value in headers.items() if name not in hidden},
        query=query,
        delivery_id=webhook_signature.delivery_id(signature, headers),
    )


def means(mapping: bytes, delivery: Delivery) -> Meaning:
    """What becomes of a delivery that is believed, why, and the customer events it is."""
    try:
        found = _compiled(mapping).customer_events(delivery)
    except Unmapped as unmapped:
        return _UNMAPPED, str(unmapped), []
    except InvalidArgument as error:
        # It was taken by rules that have changed since.
        return _UNMAPPED, error.message, []
    if not found:
        return _SKIPPED, "the mapping does not want it", []
    return _MAPPED, "", found


@lru_cache(maxsize=MAPPINGS_MAX)
def _compiled(mapping: bytes) -> CompiledMapping:
    return CompiledMapping(WebhookMapping.FromString(mapping))
