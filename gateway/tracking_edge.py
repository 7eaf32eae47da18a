"""The Segment tracking protocol over HTTP: existing trackers send to us unchanged.

Always exactly 200 once a request was taken, with a receipt per event; else `{code, message}`. Two
widely used clients take any other 2xx, and an error without these two words, for a reason to send
everything again.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway import tracking
from gateway.cors import allow_origin, preflight
from gateway.http_calls import HttpCalls, admit, basic_user, http_status, read_body
from gateway.json_edge import JSON
from gateway.keys import Keys, bearer_of, is_key
from gateway.pixels import GIF, read_query
from gateway.rates import Rates
from gateway.tracking import Batch
from gateway.tracking_items import CALLS, Document
from rapport.events.v1.service_pb2 import (
    RecordCustomerEventsRequest,
    RecordCustomerEventsResponse,
)
from services.kernel.clock import new_id
from services.kernel.errors import FailedPrecondition, RapportError, Unimplemented
from services.kernel.rpc.caller import current_caller
from services.kernel.rpc.wire_errors import to_status

SCOPE: Final = "events.write"
BATCH: Final = "batch"
ANY: Final = "any"
"""Whatever the body says: a batch when it holds one, else the call of its own type."""

RECEIPT_HEADER: Final = "rapport-receipt"
"""Beside the picture of a pixel, which has no room for it: the receipt, as JSON."""

_FORBIDDEN: Final = 403
_METHOD_NOT_ALLOWED: Final = 405
_SHORT: Final = {
    "t": "track",
    "i": "identify",
    "p": "page",
    "s": "screen",
    "g": "group",
    "a": "alias",
    "b": BATCH,
}
_NAMES: Final = {call: call for call in (*CALLS, BATCH)} | _SHORT | {"import": BATCH}


def _posts() -> dict[str, str]:
    """Trackers' paths: with and without /v1, long and short, and where `sendBeacon` sends to."""
    prefixes = ("/v1", "", "/beacon/v1", "/v1/beacon", "/beacon")
    paths = {f"{prefix}/{name}": call for prefix in prefixes for name, call in _NAMES.items()}
    return paths | dict.fromkeys(("/v1/beacon", "/beacon", "/beacon/v1"), ANY)


def _pixels() -> dict[str, str]:
    prefixes = ("/v1/pixel", "/pixel/v1", "/pixel")
    return {f"{prefix}/{call}": call for prefix in prefixes for call in CALLS}


POSTS: Final[Mapping[str, str]] = MappingProxyType(_posts())
"""Where trackers post to, and which call each path means."""

PIXELS: Final[Mapping[str, str]] = MappingProxyType(_pixels())
"""Where pictures are asked for, and which call each means."""

Record = Callable[[RecordCustomerEventsRequest], Awaitable[RecordCustomerEventsResponse]]
Answer = Callable[[Request], Awaitable[Response]]


class TrackingEdge:
    """Takes batches, and each of the calls alone, by post, beacon and pixel.

    `proxy_hops` is how many proxies in front of us write down whom they speak for.
    """

    def __init__(
        self, calls: HttpCalls, keys: Keys, rates: Rates, record: Record, *, proxy_hops: int = 0
    ) -> None:
        self._calls = calls
        self._keys = keys
        self._rates = rates
        self._record = record
        self._proxy_hops = proxy_hops

    def door(self, path: str) -> Answer | None:
        """Returns what answers at a path, with or without a slash at its end."""
        path = path.rstrip("/")
        if path in POSTS:
            return self._post(POSTS[path])
        if path in PIXELS:
            return self._pixel(PIXELS[path])
        return None

    def _post(self, call: str) -> Answer:
        async def answer(request: Request) -> Response:
            if request.method == "OPTIONS":
                return preflight(request, "POST, OPTIONS")
            if request.method != "POST":
                return await self._wrong_verb(request, "POST, OPTIONS")

            async def respond() -> Response:
                return _json(await self._take(call, request))

            return await self._answer(request, call, respond)

        return answer

    def _pixel(self, call: str) -> Answer:
        async def answer(request: Request) -> Response:
            if request.method == "OPTIONS":
                return preflight(request, "GET, OPTIONS")
            if request.method != "GET":
                return await self._wrong_verb(request, "GET, OPTIONS")

            async def respond() -> Response:
                document = read_query(call, request.query_params.multi_items())
                await self._admit(_key_of_head(request) or tracking.write_key_of(document))
                around = {"context": self._seen(request)} | {"batch": [{**document, "type": call}]}
                taken = await self._recorded(_read(BATCH, around))
                headers = {
                    "Cache-Control": "no-store",
                    # A header is ASCII; what a message id holds is not.
                    RECEIPT_HEADER: json.dumps(taken["receipts"][0]),
                }
                return Response(GIF, media_type="image/gif", headers=headers)

            return await self._answer(request, f"pixel/{call}", respond)

        return answer

    async def _answer(
        self, request: Request, call: str, respond: Callable[[], Awaitable[Response]]
    ) -> Response:
        response = await self._calls.answer(
            request, f"http/{call}", respond=respond, refuse=refusal
        )
        return allow_origin(request, response)

    async def _take(self, call: str, request: Request) -> dict[str, Any]:
        """Records what was posted; who shows a key at once is asked who they are at once."""
        key, item_key = _key_of_head(request), None
        if key is not None and is_key(key):
            await self._admit(key)
        document = tracking.read_document(
            await read_body(request, bytes_max=tracking.BODY_BYTES_MAX)
        )
        if key is None or not is_key(key):
            # A bearer token that is not ours comes from trackers that log in elsewhere.
            in_body = tracking.write_key_of(document)
            item_key = None if in_body else tracking.item_key_of(document)
            await self._admit(in_body or item_key or key)
        return await self._recorded(_read(call, document, ip=self._ip(request), item_key=item_key))

    async def _admit(self, key: str | None) -> None:
        admit(await self._keys.caller(key), SCOPE)
        caller = current_caller()
        self._rates.take((caller.workspace, caller.actor))

    async def _recorded(self, batch: Batch) -> dict[str, Any]:
        response = RecordCustomerEventsResponse()
        if batch.request.customer_events:
            response = await self._record(batch.request)
        return batch.answer(response)

    async def _wrong_verb(self, request: Request, allowed: str) -> Response:
        async def respond() -> Response:
            raise Unimplemented(f"{request.method} {request.url.path[:100]}")

        def refuse(_: RapportError, __: str) -> Response:
            message = f"only {allowed} are answered here"
            content = {"code": "method_not_allowed", "message": message}
            response = _json(content, status=_METHOD_NOT_ALLOWED)
            response.headers["Allow"] = allowed
            return response

        response = await self._calls.answer(request, "http/unknown", respond=respond, refuse=refuse)
        return allow_origin(request, response)

    def _ip(self, request: Request) -> str:
        """Where a request came from, as far as the proxies in front of us are to be believed."""
        if self._proxy_hops:
            passed = request.headers.get("x-forwarded-for", "").split(",")
            return passed[-self._proxy_hops].strip() if len(passed) >= self._proxy_hops else ""
        return request.client.host if request.client else ""

    def _seen(self, request: Request) -> dict[str, Any]:
        """What a picture's request tells of the device and of the page it is on."""
        told = {
            "ip": self._ip(request),
            "userAgent": request.headers.get("user-agent"),
            "page": {"url": referer} if (referer := request.headers.get("referer")) else None,
        }
        return {name: value for name, value in told.items() if value}


def refusal(error: RapportError, correlation_id: str) -> Response:
    """Returns why a request as a whole was refused, in the two words that trackers read."""
    if isinstance(error, FailedPrecondition):
        # The one state that forbids sending: somebody switched the source off.
        return _json({"code": "source_disabled", "message": error.message}, status=_FORBIDDEN)
    code = next((it.reason for it in error.violations if it.reason), error.reason.lower())
    message = to_status(error, correlation_id=correlation_id).message
    return _json({"code": code, "message": message}, status=http_status(error))


def _key_of_head(request: Request) -> str | None:
    """Returns the write key from the headers or the query, one of our own form if there is one."""
    given = [
        basic_user(request.headers.get("authorization")),
        bearer_of(request.headers),
        request.query_params.get("writeKey") if request.url.query else None,
    ]
    present = [key for key in given if key]
    return next((key for key in present if is_key(key)), present[0] if present else None)


def _read(call: str, document: Document, *, ip: str = "", item_key: str | None = None) -> Batch:
    if call == BATCH or (call == ANY and "batch" in document):
        return tracking.read_batch(
            document, new_message_id=_new_message_id, ip=ip, item_key=item_key
        )
    call = str(document.get("type")) if call == ANY else call
    return tracking.read_single(call, document, new_message_id=_new_message_id, ip=ip)


def _new_message_id() -> str:
    """Made here and not by the service: a call that is tried again has the same ids again."""
    return str(new_id())


def _json(content: dict[str, Any], *, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type=JSON)
