"""The Segment tracking protocol over HTTP: existing trackers send to us unchanged.

Always exactly 200 once a batch was taken, with a receipt per event; else `{code, message}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import tracking
from gateway.http_calls import HttpCalls, admit, basic_user, http_status, read_body
from gateway.json_edge import JSON
from gateway.keys import ApiKeys, bearer_of
from gateway.tracking import Batch, Document
from rapport.events.v1.service_pb2 import (
    RecordCustomerEventsRequest,
    RecordCustomerEventsResponse,
)
from services.kernel.clock import new_id
from services.kernel.errors import RapportError, Unimplemented
from services.kernel.rpc.wire_errors import to_status

SCOPE: Final = "events.write"

_METHOD_NOT_ALLOWED: Final = 405

Record = Callable[[RecordCustomerEventsRequest], Awaitable[RecordCustomerEventsResponse]]


class TrackingEdge:
    """Takes batches, and each of the six calls alone."""

    def __init__(self, calls: HttpCalls, keys: ApiKeys, record: Record) -> None:
        self._calls = calls
        self._keys = keys
        self._record = record

    @property
    def routes(self) -> list[Route]:
        """Where trackers send to."""
        single = [
            Route(f"/v1/{call}", self._handler(call, _single(call)), methods=["POST"])
            for call in tracking.CALLS
        ]
        return [Route("/v1/batch", self._handler("batch", _batch), methods=["POST"]), *single]

    def refusing_routes(self, verbs: Iterable[str]) -> list[Route]:
        """Where whoever comes with one of these verbs is told the right one."""

        async def refuse(request: Request) -> Response:
            return await self._calls.answer(
                request, "http/unknown", respond=_unknown(request), refuse=_wrong_verb
            )

        return [Route(route.path, refuse, methods=list(verbs)) for route in self.routes]

    def _handler(
        self, call: str, read: Callable[[Document], Batch]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            async def respond() -> Response:
                body = await read_body(request, bytes_max=tracking.BODY_BYTES_MAX)
                document = tracking.read_document(body)
                admit(self._keys.caller(_key(request, document)), SCOPE)
                return _json(await self._recorded(read(document)))

            return await self._calls.answer(
                request, f"http/{call}", respond=respond, refuse=_refusal
            )

        return handle

    async def _recorded(self, batch: Batch) -> dict[str, Any]:
        response = RecordCustomerEventsResponse()
        if batch.customer_events:
            response = await self._record(
                RecordCustomerEventsRequest(customer_events=batch.customer_events)
            )
        return batch.answer(response)


def _key(request: Request, document: Document) -> str | None:
    """Returns the write key, wherever a tracker puts it."""
    return (
        basic_user(request.headers.get("authorization"))
        or bearer_of(request.headers)
        or tracking.write_key_of(document)
    )


def _batch(document: Document) -> Batch:
    return tracking.read_batch(document, new_message_id=_new_message_id)


def _single(call: str) -> Callable[[Document], Batch]:
    return lambda document: tracking.read_single(call, document, new_message_id=_new_message_id)


def _new_message_id() -> str:
    """Made here and not by the service: a call that is tried again has the same ids again."""
    return str(new_id())


def _refusal(error: RapportError, correlation_id: str) -> Response:
    code = next((it.reason for it in error.violations if it.reason), error.reason.lower())
    message = to_status(error, correlation_id=correlation_id).message
    return _json({"code": code, "message": message}, status=http_status(error))


def _unknown(request: Request) -> Callable[[], Awaitable[Response]]:
    async def respond() -> Response:
        raise Unimplemented(f"{request.method} {request.url.path}")

    return respond


def _wrong_verb(_: RapportError, __: str) -> Response:
    content = {"code": "method_not_allowed", "message": "only POST is answered here"}
    response = _json(content, status=_METHOD_NOT_ALLOWED)
    response.headers["Allow"] = "POST"
    return response


def _json(content: dict[str, Any], *, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type=JSON)
