"""The numbers of a process, in a registry of its own, and the page where Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

UNKNOWN_METHOD = "unknown"
DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class RpcMetrics:
    """Counts the calls a process serves, by method and status code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.handled = Counter(
            "rapport_rpc_handled_total", "Calls answered.", ("method", "code"), registry=registry
        )
        self.duration_s = Histogram(
            "rapport_rpc_duration_seconds",
            "How long a call took until its status.",
            ("method",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "rapport_rpc_in_flight", "Calls being served.", ("method",), registry=registry
        )


def new_registry() -> CollectorRegistry:
    """Returns a registry with the numbers that Python and the operating system tell."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    return registry


def probes(registry: CollectorRegistry, *, ready: Callable[[], bool]) -> Starlette:
    """Returns the pages for the machines that watch: /metrics, /healthz (alive), /readyz."""

    async def metrics(_: Request) -> Response:
        page = prometheus_client.generate_latest(registry)
        return Response(page, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not ready\n", status_code=503)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )
