"""Deliveries to webhooks over HTTP: other systems send in their own words, and sign.

There is no API key: the signature is the credential, and the events service checks it over the
very bytes that came. 200 says that the delivery need not be sent again, be it recorded or not
wanted; whatever else is answered, a sender that is worth its name sends it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from google.protobuf import json_format
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.http_calls import HttpCalls, admit, http_status
from gateway.json_edge import JSON
from gateway.peers import Deliver
from gateway.rates import Rates
from rapport.events.v1.webhook_deliveries_pb2 import DeliverWebhookRequest, DeliverWebhookResponse
from rapport.events.v1.webhooks_pb2 import WebhookOutcome
from services.kernel.clock import Clock
from services.kernel.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    RapportError,
    Reason,
)
from services.kernel.rpc.caller import INTERNAL_SCOPE, own_caller
from services.kernel.rpc.wire_errors import to_status

WEBHOOK_BODY_BYTES_MAX: Final = 512 * 1024
WEBHOOK_HEADERS_MAX: Final = 100
WEBHOOK_PATH: Final = "/v1/webhooks/wh_{address}"

_FORBIDDEN: Final = 403
_UNPROCESSABLE: Final = 422
_ADDRESS_CHARACTERS_MAX: Final = 97
# What belongs to a connection, or to the way of a request to us.
_KEPT_BACK: Final = frozenset({"connection", "cookie", "host", "te", "transfer-encoding"})


class WebhooksEdge:
    """Takes deliveries."""

    def __init__(self, calls: HttpCalls, rates: Rates, deliver: Deliver, clock: Clock) -> None:
        self._calls = calls
        self._rates = rates
        self._deliver = deliver
        self._clock = clock

    @property
    def routes(self) -> list[Route]:
        """Where deliveries come to; the names of webhooks hold no `_`."""
        return [Route(WEBHOOK_PATH, self.handle, methods=["POST"])]

    async def handle(self, request: Request) -> Response:
        """Answers one delivery."""

        async def respond() -> Response:
            address = request.path_params["address"][:_ADDRESS_CHARACTERS_MAX]
            self._rates.take(("webhook", address))
            body = await _body(request)
            scopes = frozenset({INTERNAL_SCOPE})
            caller = own_caller("services/gateway", clock=self._clock, scopes=scopes)
            admit(caller, INTERNAL_SCOPE)
            delivered = await self._deliver(
                DeliverWebhookRequest(
                    address_id=f"wh_{address}",
                    body=body,
                    headers=_at_most("headers", _headers(request.headers)),
                    query=_at_most("query", dict(request.query_params)),
                )
            )
            return _answer(delivered)

        return await self._calls.answer(request, "http/webhook", respond=respond, refuse=_refusal)


async def _body(request: Request) -> bytes:
    """The body, byte for byte: what is signed is what was sent, and not what it unpacks to."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        description = "the body of a delivery must not be packed: its signature is of what it says"
        raise InvalidArgument([FieldViolation("body", description, "encoding_unsupported")])
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > WEBHOOK_BODY_BYTES_MAX:
            raise InvalidArgument(
                [
                    FieldViolation(
                        "body",
                        f"the body is larger than {WEBHOOK_BODY_BYTES_MAX} bytes",
                        "payload_too_large",
                    )
                ],
                reason=Reason.LIMIT_REACHED,
                metadata={
                    "limit": "WEBHOOK_BODY_BYTES_MAX",
                    "maximum": str(WEBHOOK_BODY_BYTES_MAX),
                },
            )
    return bytes(body)


def _headers(headers: Headers) -> dict[str, str]:
    """The headers by name; one that came several times is one, as HTTP has it."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        if name not in _KEPT_BACK:
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _at_most(field: str, said: Mapping[str, str]) -> Mapping[str, str]:
    if len(said) > WEBHOOK_HEADERS_MAX:
        raise InvalidArgument.of(field, f"there are more than {WEBHOOK_HEADERS_MAX}")
    return said


def _answer(delivered: DeliverWebhookResponse) -> Response:
    """What became of a delivery: one that its mapping does not fit shall be sent again."""
    outcome = WebhookOutcome.Name(delivered.outcome).removeprefix("WEBHOOK_OUTCOME_").lower()
    content: dict[str, Any] = {"outcome": outcome}
    if delivered.detail:
        content["message"] = delivered.detail
    content["receipts"] = [_receipt(receipt) for receipt in delivered.receipts]
    if delivered.outcome == WebhookOutcome.WEBHOOK_OUTCOME_UNMAPPED:
        return _json({"code": "unmapped", **content}, status=_UNPROCESSABLE)
    return _json(content)


def _receipt(receipt: Any) -> dict[str, Any]:
    said = json_format.MessageToDict(receipt)
    said["outcome"] = said["outcome"].removeprefix("RECEIPT_OUTCOME_").lower()
    return said


def _refusal(error: RapportError, correlation_id: str) -> Response:
    code = next((it.reason for it in error.violations if it.reason), error.reason.lower())
    message = to_status(error, correlation_id=correlation_id).message
    # What is disabled may be enabled again, so this is not 410, which ends a subscription.
    status = _FORBIDDEN if isinstance(error, FailedPrecondition) else http_status(error)
    return _json({"code": code, "message": message}, status=status)


def _json(content: dict[str, Any], *, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type=JSON)
