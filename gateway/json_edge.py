"""JSON over HTTP for every unary RPC, where its proto binds it.

Errors read as AIP-193 says: `{"error": {code, status, message, details}}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import Request
from starlette.responses import Response

from gateway.bindings import Found, Router
from gateway.catalog import PUBLIC
from gateway.http_calls import HttpCalls, admit, http_status, read_body
from gateway.json_requests import read_object, read_query, request_of, say, to_json
from gateway.keys import Keys, bearer_of
from gateway.peers import Peers
from services.kernel.errors import InvalidArgument, RapportError, Unimplemented
from services.kernel.rpc.methods import Method
from services.kernel.rpc.server import REQUEST_BYTES_MAX
from services.kernel.rpc.validation import validate
from services.kernel.rpc.wire_errors import CODES, to_status

REQUEST_ID_HEADER: Final = "idempotency-key"
JSON: Final = "application/json"

_REQUEST_ID: Final = "request_id"
_NOT_FOUND: Final = 404
_METHOD_NOT_ALLOWED: Final = 405

Call = Callable[[Message], Awaitable[Message]]


class JsonEdge:
    """Answers HTTP requests by calling the RPC they mean."""

    def __init__(self, calls: HttpCalls, keys: Keys, peers: Peers, own: Any) -> None:
        self.router = Router(PUBLIC)
        self._calls = calls
        self._keys = keys
        bound = {it.method.full_name: it.method for it in self.router.bindings}
        self._methods = {
            name: (Method.of(method), _call(method, peers, own)) for name, method in bound.items()
        }

    async def handle(self, request: Request) -> Response:
        """Answers one request."""
        raw_path = request.scope.get("raw_path") or request.url.path.encode()
        path = raw_path.decode("ascii", "replace")
        found = self.router.find(request.method, path)
        if found is None:
            return await self._lost(request, path)

        async def respond() -> Response:
            method, call = self._methods[found.binding.method.full_name]
            admit(await self._keys.caller(bearer_of(request.headers)), method.scope)
            message = await _message(request, found)
            return Response(to_json(await call(message)), media_type=JSON)

        name = f"http/{found.binding.method.full_name}"
        return await self._calls.answer(request, name, respond=respond, refuse=refusal)

    async def _lost(self, request: Request, path: str) -> Response:
        verbs = self.router.verbs(path)

        async def respond() -> Response:
            raise Unimplemented(f"{request.method} {path[:100]}")

        def refuse(error: RapportError, correlation_id: str) -> Response:
            status = _METHOD_NOT_ALLOWED if verbs else _NOT_FOUND
            # A tracker that was sent to a wrong path reads these two, or comes again and again.
            told = {"code": error.reason.lower(), "message": error.message}
            response = refusal(error, correlation_id, status=status, **told)
            if verbs:
                response.headers["Allow"] = ", ".join(verbs)
            return response

        return await self._calls.answer(request, "http/unknown", respond=respond, refuse=refuse)


def refusal(
    error: RapportError, correlation_id: str, *, status: int | None = None, **more: str
) -> Response:
    """Returns an error as JSON, and what more there is to be said beside it."""
    code = http_status(error) if status is None else status
    travelling = to_status(error, correlation_id=correlation_id)
    content = {
        "error": {
            "code": code,
            "status": CODES[type(error)].name,
            "message": travelling.message,
            "details": [json_format.MessageToDict(detail) for detail in travelling.details],
        },
        **more,
    }
    return Response(orjson.dumps(content), status_code=code, media_type=JSON)


async def _message(request: Request, found: Found) -> Message:
    """Returns the request message that path, query, headers and body say together."""
    descriptor = found.binding.method.input_type
    said = read_query(descriptor, request.query_params.multi_items())
    if found.binding.takes_body:
        body = read_object(await read_body(request, bytes_max=REQUEST_BYTES_MAX))
        for name, field in descriptor.fields_by_name.items():
            if field.json_name in said and {name, field.json_name} & body.keys():
                raise InvalidArgument.of(name, "is said in the query and in the body; say it once")
        said |= body
    for name, value in found.fields.items():
        say(said, descriptor.fields_by_name[name], value)
    request_id = request.headers.get(REQUEST_ID_HEADER, "").strip('" ')
    if request_id and _REQUEST_ID in descriptor.fields_by_name:
        say(said, descriptor.fields_by_name[_REQUEST_ID], request_id)
    message: Message = GetMessageClass(descriptor)()
    request_of(message, said)
    return message


def _call(method: MethodDescriptor, peers: Peers, own: Any) -> Call:
    """Returns what answers a method: the service behind, or the gateway itself."""
    if peers.answers(method.containing_service):
        return peers.callable(method)
    answer = getattr(own, method.name)

    async def call(message: Message) -> Message:
        validate(message)
        response: Message = await answer(message, None)
        return response

    return call
