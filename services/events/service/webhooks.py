"""What the events service answers about webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rapport.events.v1 import webhooks_pb2 as pb
from rapport.events.v1.events_pb2 import WebhookSignature
from rapport.events.v1.webhooks_pb2_grpc import WebhooksServiceServicer
from services.events import webhook_signature
from services.events.deciders.webhook import DECIDER, Command, Issued, State, decider_with
from services.events.projections.webhooks import (
    WEBHOOK_ROWS,
    Secret,
    WebhooksView,
    believed,
    list_webhooks,
    secrets_of,
    webhook_of,
)
from services.events.schema import refusal_of
from services.events.service.webhook_deliveries import means, seen
from services.events.service.webhook_secrets import WebhookSecrets
from services.events.webhook_mapping import CompiledMapping
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.events.projections.webhooks import Row
    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel

ADDRESS_PREFIX = "wh_"
ADDRESS_DIGITS = 40
SECRET_ID_DIGITS = 16

M = TypeVar("M", bound="Message")


class WebhooksService(WebhooksServiceServicer):
    """Webhooks of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def CreateWebhook(
        self, request: pb.CreateWebhookRequest, _: Any
    ) -> pb.CreateWebhookResponse:
        webhook_id = request.webhook_id or str(self._kernel.new_id())
        if request.secret:
            signature = webhook_signature.checked(request.signature)
            webhook_signature.check_secret(signature, request.secret)
        response = await self._execute(
            webhook_id, request, pb.CreateWebhookResponse, given=request.secret
        )
        response.secret = self._shown(response.webhook)
        return response

    async def ConfigureWebhook(
        self, request: pb.ConfigureWebhookRequest, _: Any
    ) -> pb.ConfigureWebhookResponse:
        webhook_id = DECIDER.aggregate_id(request.name)
        return await self._execute(webhook_id, request, pb.ConfigureWebhookResponse)

    async def EnableWebhook(
        self, request: pb.EnableWebhookRequest, _: Any
    ) -> pb.EnableWebhookResponse:
        webhook_id = DECIDER.aggregate_id(request.name)
        return await self._execute(webhook_id, request, pb.EnableWebhookResponse)

    async def DisableWebhook(
        self, request: pb.DisableWebhookRequest, _: Any
    ) -> pb.DisableWebhookResponse:
        webhook_id = DECIDER.aggregate_id(request.name)
        return await self._execute(webhook_id, request, pb.DisableWebhookResponse)

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, _: Any
    ) -> pb.RotateWebhookSecretResponse:
        webhook_id = DECIDER.aggregate_id(request.name)
        if request.secret:
            row = await self._existing(request.name)
            signature = WebhookSignature.FromString(row.state.signature)
            webhook_signature.check_secret(signature, request.secret)
        response = await self._execute(
            webhook_id, request, pb.RotateWebhookSecretResponse, given=request.secret
        )
        response.secret = self._shown(response.webhook)
        return response

    async def GetWebhook(self, request: pb.GetWebhookRequest, _: Any) -> pb.GetWebhookResponse:
        await self._kernel.freshness.wait(WebhooksView.name, request.read_token)
        row = await self._existing(request.name)
        secrets = await self._secrets(row)
        return pb.GetWebhookResponse(webhook=webhook_of(row.aggregate_id, row, secrets))

    async def ListWebhooks(
        self, request: pb.ListWebhooksRequest, _: Any
    ) -> pb.ListWebhooksResponse:
        await self._kernel.freshness.wait(WebhooksView.name, request.read_token)
        return await list_webhooks(self._kernel.pool, current_caller().workspace, request)

    async def PreviewWebhook(
        self, request: pb.PreviewWebhookRequest, _: Any
    ) -> pb.PreviewWebhookResponse:
        await self._kernel.freshness.wait(WebhooksView.name, request.read_token)
        row = await self._existing(request.name)
        signature = WebhookSignature.FromString(row.state.signature)
        headers = {name.lower(): value for name, value in request.headers.items()}
        now = self._kernel.clock.now()
        secrets = self._of(row.aggregate_id)
        problem = webhook_signature.problem(
            signature,
            [
                secrets.opened(it.secret_id, it.sealed)
                for it in believed(await self._secrets(row), now)
            ],
            body=request.body,
            headers=headers,
            now_s=now.timestamp(),
        )
        tried = row.state.mapping
        if request.HasField("mapping"):
            CompiledMapping(request.mapping)
            tried = request.mapping.SerializeToString(deterministic=True)
        delivery = seen(row, request.body, headers, dict(request.query))
        outcome, detail, found = means(tried, delivery)
        response = pb.PreviewWebhookResponse(
            signature_problem=problem, outcome=outcome, detail=detail
        )
        for customer_event in found:
            customer_event.source = row.state.source
            refusal = refusal_of(customer_event)
            response.customer_events.add(
                customer_event=customer_event,
                reason=refusal.reason if refusal else "",
                detail=refusal.detail if refusal else "",
            )
        return response

    async def _execute(
        self, webhook_id: str, command: Command, response: Callable[..., M], *, given: str = ""
    ) -> M:
        """Executes a command on a webhook and answers with what became of it.

        Of the secrets a response tells the newest, which is what a repeated request sees. The one
        that was given is neither in the command nor in what remembers it, but for its fingerprint.
        """
        secrets = self._of(webhook_id)
        secret_id = self._kernel.new_id().hex[-SECRET_ID_DIGITS:]
        sealed = secrets.seal(secret_id, given) if given else b""
        if given:
            command = _without_secret(command, secrets.fingerprint(given))
        address = self._kernel.derive_key(f"webhook-address/{self._kernel.new_id()}").hex()
        issued = Issued(f"{ADDRESS_PREFIX}{address[:ADDRESS_DIGITS]}", secret_id, sealed)

        def respond(decided: Decided[State]) -> M:
            state = decided.state
            told = pb.WebhookSecret(secret_id=state.secret_id, is_given=state.is_secret_given)
            webhook = webhook_of(webhook_id, decided, ())
            webhook.secrets.append(told)
            return response(webhook=webhook, write_token=decided.write_token)

        return await self._kernel.commands.execute(
            decider_with(issued), webhook_id, command, respond
        )

    def _shown(self, webhook: pb.Webhook) -> str:
        """The newest secret if it is ours, derived anew: it is kept nowhere."""
        newest = webhook.secrets[0]
        webhook_id = DECIDER.aggregate_id(webhook.name)
        return "" if newest.is_given else self._of(webhook_id).ours(newest.secret_id)

    def _of(self, webhook_id: str) -> WebhookSecrets:
        workspace = current_caller().workspace
        return WebhookSecrets(self._kernel.derive_key, workspace, webhook_id)

    async def _existing(self, name: str) -> Row:
        return await WEBHOOK_ROWS.existing(self._kernel.pool, current_caller().workspace, name)

    async def _secrets(self, row: Row) -> list[Secret]:
        found = await secrets_of(self._kernel.pool, row.workspace, [row.aggregate_id])
        return found.get(row.aggregate_id, [])


def _without_secret(command: Command, fingerprint: str) -> Command:
    copy = type(command)()
    copy.CopyFrom(command)  # type: ignore[arg-type]  # a copy is of its own type
    if isinstance(copy, pb.CreateWebhookRequest | pb.RotateWebhookSecretRequest):
        copy.secret = fingerprint
    return copy
