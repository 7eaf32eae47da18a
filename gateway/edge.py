"""The HTTP port: trackers, JSON for every unary RPC, and a page that says what there is."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.catalog import FORWARDED
from gateway.http_calls import HttpCalls
from gateway.json_edge import JsonEdge
from gateway.keys import ApiKeys
from gateway.peers import Peers
from gateway.tracking_edge import TrackingEdge
from services.kernel.process.metrics import RpcMetrics

VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
INDEX = """Rapport: one platform where a CRM and a customer data platform are the same system.

Send an API key: authorization: Bearer rk_..., or x-api-key: rk_...
gRPC with reflection is on the other port.

{routes}
"""


def make_edge(keys: ApiKeys, peers: Peers, own: Any, metrics: RpcMetrics) -> Starlette:
    """Returns the application of the HTTP port; `own` answers the gateway's own RPCs."""
    calls = HttpCalls(metrics)
    json_edge = JsonEdge(calls, keys, peers, own)
    record = peers.callable(FORWARDED["events"][0].methods_by_name["RecordCustomerEvents"])
    tracking = TrackingEdge(calls, keys, record)
    listed = [
        ("POST", route.path, "customer events, Segment's protocol") for route in tracking.routes
    ]
    listed += [(it.verb, it.template, it.method.full_name) for it in json_edge.router.bindings]
    listed.sort(key=lambda it: (it[1], it[0]))
    page = INDEX.format(
        routes="\n".join(f"{verb:7}{path:42} {what}" for verb, path, what in listed)
    )

    async def index(_: Request) -> Response:
        return PlainTextResponse(page)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", healthz),
            *tracking.routes,
            *tracking.refusing_routes(set(VERBS) - {"POST"}),
            Route("/{path:path}", json_edge.handle, methods=VERBS),
        ]
    )
