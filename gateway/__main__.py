"""Runs the gateway: `python -m gateway`, configured by the environment, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from gateway.catalog import FORWARDED, OWN
from gateway.edge import make_edge
from gateway.keys import ApiKeys, Keys, KeysError, bearer_of
from gateway.peers import Peers
from gateway.proxy import Proxy
from gateway.service import GatewayService
from gateway.write_keys import WriteKeys
from rapport.gateway.v1.service_pb2_grpc import add_GatewayServiceServicer_to_server
from services.kernel.clock import SystemClock
from services.kernel.process import telemetry
from services.kernel.process.config import ConfigError, GatewayConfig
from services.kernel.process.metrics import RpcMetrics, new_registry, probes
from services.kernel.process.web import WebServer
from services.kernel.rpc.caller import Caller, CallerSigner
from services.kernel.rpc.pipeline import Authenticate, Metadata
from services.kernel.rpc.server import Server

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that runs: its two doors."""

    server: Server
    web: WebServer


@asynccontextmanager
async def running(config: GatewayConfig, registry: CollectorRegistry) -> AsyncIterator[Running]:
    """Runs a gateway until the block ends, then drains it: no new calls, those in flight finish."""
    clock = SystemClock()
    api_keys = ApiKeys(config.api_keys_file, config.key_pepper, clock)
    signer = CallerSigner(config.internal_secret, clock)
    metrics = RpcMetrics(registry)
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(Peers(config.peers, signer, clock))
        keys = Keys(api_keys, WriteKeys(peers.resolve_write_key, clock))
        authenticate = _by_key(keys)
        proxies = [
            Proxy(
                name,
                config.peers[name],
                descriptor,
                signer=signer,
                authenticate=authenticate,
            )
            for name, descriptors in FORWARDED.items()
            for descriptor in descriptors
        ]
        for proxy in proxies:
            stack.push_async_callback(proxy.close)
        own = GatewayService(peers.stubs)
        # Whom a proxy speaks for is our own question: RAPPORT_PROXY_HOPS.
        edge = make_edge(config, keys, peers, own, metrics)
        web = WebServer(config.http_address, edge, proxy_headers=False)
        server = Server(
            config.grpc_address,
            [
                *(proxy.served for proxy in proxies),
                (OWN, add_GatewayServiceServicer_to_server, own),
            ],
            authenticate=authenticate,
            metrics=metrics,
        )
        # gRPC's health says SERVING as soon as it listens, so it comes last and goes first.
        await web.start()
        try:
            await server.start()
            yield Running(server, web)
        finally:
            await asyncio.gather(
                server.stop(config.drain_timeout_s), web.stop(config.drain_timeout_s)
            )


def _by_key(keys: Keys) -> Authenticate:
    """Believes who holds a key; a caller that metadata from outside names is not even read."""

    async def authenticate(metadata: Metadata) -> Caller:
        return await keys.caller(bearer_of(metadata))

    return authenticate


async def serve(config: GatewayConfig) -> None:
    """Runs the gateway with its probes until it is told to stop."""
    registry = new_registry()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with running(config, registry) as gateway:
        watched = probes(registry, ready=lambda: gateway.server.serving)
        web = WebServer(config.metrics_address, watched)
        await web.start()
        _log.info("gateway.ready", grpc=config.grpc_address, http=config.http_address)
        await stop.wait()
        _log.info("gateway.draining")
        await web.stop()
    _log.info("gateway.stopped")


def main() -> None:
    """Reads the configuration and serves."""
    try:
        config = GatewayConfig.from_env(peers=tuple(FORWARDED))
    except ConfigError as error:
        sys.exit(str(error))
    telemetry.start_logging(config.name, log_format=config.log_format)
    tracing = telemetry.start_tracing(
        config.name, address=config.traces_address, ratio=config.trace_ratio
    )
    try:
        uvloop.run(serve(config))
    except KeysError as error:
        sys.exit(str(error))
    finally:
        if tracing is not None:
            tracing.shutdown()


if __name__ == "__main__":
    main()
