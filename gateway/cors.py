"""What a browser asks before a page may send to us, and what it wants to hear with each answer.

A write key is the whole credential and is sent on purpose, never by the browser itself as a cookie
would be, so a page of any origin may send.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from services.kernel.process.telemetry import CORRELATION_METADATA

MAX_AGE_S: Final = 86_400

_HEADERS: Final = "authorization, content-type, content-encoding, x-api-key"
_EXPOSED: Final = f"retry-after, x-ratelimit-reset, {CORRELATION_METADATA}"
_NO_CONTENT: Final = 204


def allow_origin(request: Request, response: Response) -> Response:
    """Lets the page that asked read the answer."""
    origin = request.headers.get("origin")
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = origin or "*"
    if origin:
        # What `sendBeacon` sends is sent with credentials, i.e. cookies; we look at none.
        headers["Access-Control-Allow-Credentials"] = "true"
        headers["Access-Control-Expose-Headers"] = _EXPOSED
        headers["Vary"] = "Origin"
    return response


def preflight(request: Request, verbs: str) -> Response:
    """Answers what a browser asks first: it may send what it wants to send."""
    response = Response(status_code=_NO_CONTENT)
    response.headers["Access-Control-Allow-Methods"] = verbs
    response.headers["Access-Control-Allow-Headers"] = (
        request.headers.get("access-control-request-headers") or _HEADERS
    )
    response.headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return allow_origin(request, response)
