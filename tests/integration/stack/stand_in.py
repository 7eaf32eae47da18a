"""The least that a part of the platform can do: it reads its configuration and serves health.

`stand_in.py <name> [crash | deaf]`: one that crashes ends at once, a deaf one ignores SIGTERM.
"""

import asyncio
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy.stack.platform import SERVICES
from services.kernel.process.config import GatewayConfig, ServiceConfig


async def serve():
    name, *manners = sys.argv[1:]
    if "crash" in manners:
        sys.exit(f"{name} cannot start: this is why")
    config = (
        GatewayConfig.from_env(peers=SERVICES)
        if name == "gateway"
        else ServiceConfig.from_env(name, peers=SERVICES)
    )
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(config.grpc_address)
    await server.start()
    stop = asyncio.Event()
    heard = (lambda: None) if "deaf" in manners else stop.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard)
    await stop.wait()
    await server.stop(grace=1)


asyncio.run(serve())
