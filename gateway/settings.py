"""What browser libraries load before they send: where to, and that nobody else is to be told.

Segment's asks its content network (`cdnURL`), RudderStack's its control plane (`configUrl`); both
may be this gateway.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.cors import allow_origin, preflight
from gateway.http_calls import HttpCalls, admit, basic_user
from gateway.json_edge import JSON
from gateway.keys import Keys
from gateway.tracking_edge import SCOPE, refusal

VERBS: Final = "GET, OPTIONS"


class SettingsEdge:
    """Answers libraries that hold a good write key."""

    def __init__(self, calls: HttpCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    @property
    def routes(self) -> list[Route]:
        """Where libraries ask."""
        verbs = ["GET", "OPTIONS"]
        return [
            Route(path, handle, methods=verbs)
            for paths, handle in (
                (("/v1/projects/{key}/settings", "/projects/{key}/settings"), self._segment),
                (("/sourceConfig", "/sourceConfig/"), self._rudder),
            )
            for path in paths
        ]

    async def _segment(self, request: Request) -> Response:
        return await self._answer(request, request.path_params["key"], segment_settings)

    async def _rudder(self, request: Request) -> Response:
        key = basic_user(request.headers.get("authorization"))
        return await self._answer(
            request, key or request.query_params.get("writeKey"), rudder_config
        )

    async def _answer(self, request: Request, key: str | None, settings: Any) -> Response:
        if request.method == "OPTIONS":
            return preflight(request, VERBS)

        async def respond() -> Response:
            admit(await self._keys.caller(key), SCOPE)
            headers = {"Cache-Control": "no-store"}
            content = orjson.dumps(settings(key, request))
            return Response(content, media_type=JSON, headers=headers)

        response = await self._calls.answer(
            request, "http/settings", respond=respond, refuse=refusal
        )
        return allow_origin(request, response)


def segment_settings(key: str, request: Request) -> dict[str, Any]:
    """Returns what analytics-next needs: events go to where the settings came from."""
    protocol = request.headers.get("x-forwarded-proto", request.url.scheme).partition(",")[0]
    return {
        "integrations": {
            "Segment.io": {
                "apiKey": key,
                "apiHost": f"{request.url.netloc}/v1",
                "protocol": protocol.strip(),
                "unbundledIntegrations": [],
            }
        },
        "plan": {"track": {"__default": {"enabled": True}}},
        # The library's own numbers would go to its maker.
        "metrics": {"sampleRate": 0},
        "analyticsNextEnabled": True,
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }


def rudder_config(key: str, _: Request) -> dict[str, Any]:
    """Returns what analytics-js needs: a source that is on and has no destination of its own."""
    unobserved = {"errors": {"enabled": False}, "metrics": {"enabled": False}}
    return {
        "source": {
            "id": key.split("_")[1] if "_" in key else key,
            "name": "rapport",
            "writeKey": key,
            "enabled": True,
            "workspaceId": "rapport",
            "connections": [],
            "destinations": [],
            "config": {"statsCollection": unobserved},
            "dataplanes": {},
        }
    }
