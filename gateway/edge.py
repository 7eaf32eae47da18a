"""The HTTP port: trackers, JSON for every unary RPC, and a page that says what there is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.catalog import FORWARDED
from gateway.http_calls import HttpCalls
from gateway.json_edge import JsonEdge
from gateway.keys import Keys
from gateway.peers import Peers
from gateway.rates import Rates
from gateway.settings import SettingsEdge
from gateway.tracking_edge import PIXELS, POSTS, TrackingEdge
from gateway.webhooks_edge import WEBHOOK_PATH, WebhooksEdge
from services.kernel.clock import SystemClock
from services.kernel.process.config import GatewayConfig
from services.kernel.process.metrics import RpcMetrics

VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
INDEX = """Rapport: one platform where a CRM and a customer data platform are the same system.

Send an API key: authorization: Bearer rk_..., or x-api-key: rk_...
gRPC with reflection is on the other port.

{routes}
"""


class Edge:
    """Trackers first, whose paths one look-up finds, then whatever else is asked."""

    def __init__(self, tracking: TrackingEdge, others: Starlette) -> None:
        self._tracking = tracking
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._tracking.door(scope["path"]) if scope["type"] == "http" else None
        if answer is None:
            await self._others(scope, receive, send)
            return
        with suppress(ClientDisconnect):
            response = await answer(Request(scope, receive))
            await response(scope, receive, send)


def make_edge(
    config: GatewayConfig, keys: Keys, peers: Peers, own: Any, metrics: RpcMetrics
) -> Edge:
    """Returns the application of the HTTP port; `own` answers the gateway's own RPCs."""
    calls = HttpCalls(metrics)
    json_edge = JsonEdge(calls, keys, peers, own)
    record = peers.callable(FORWARDED["events"][0].methods_by_name["RecordCustomerEvents"])
    rates = Rates(config.requests_per_s, config.requests_burst)
    tracking = TrackingEdge(calls, keys, rates, record, proxy_hops=config.proxy_hops)
    settings = SettingsEdge(calls, keys)
    # Anybody may make up addresses, which shall not push out of memory how much a source has sent.
    delivered = Rates(config.requests_per_s, config.requests_burst)
    webhooks = WebhooksEdge(calls, delivered, peers.deliver_webhook, SystemClock())
    page = INDEX.format(routes=_listed(json_edge, settings))

    async def index(_: Request) -> Response:
        return PlainTextResponse(page)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    others = Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", healthz),
            *settings.routes,
            *webhooks.routes,
            Route("/{path:path}", json_edge.handle, methods=VERBS),
        ]
    )
    return Edge(tracking, others)


def _listed(json_edge: JsonEdge, settings: SettingsEdge) -> str:
    """Returns a line for each path; of the many that trackers use, for the long ones."""
    tracked = [("POST", path, call) for path, call in POSTS.items() if path == f"/v1/{call}"]
    tracked += [("GET", path, call) for path, call in PIXELS.items() if path == f"/v1/pixel/{call}"]
    listed = [(verb, path, f"customer events, Segment's {call}") for verb, path, call in tracked]
    listed += [("GET", route.path, "settings of browser libraries") for route in settings.routes]
    listed.append(("POST", WEBHOOK_PATH, "a delivery to a webhook, signed by its sender"))
    listed += [(it.verb, it.template, it.method.full_name) for it in json_edge.router.bindings]
    listed.sort(key=lambda it: (it[1], it[0]))
    return "\n".join(f"{verb:7}{path:42} {what}" for verb, path, what in listed)
