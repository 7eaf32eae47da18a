"""Asks a process over gRPC whether it serves (grpc.health.v1), as a Kubernetes probe would."""

import asyncio
import time

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from deploy.stack.child import Child
from deploy.stack.errors import StackError

CHECK = "/grpc.health.v1.Health/Check"
ASK_TIMEOUT_S = 1.0
ASK_INTERVAL_S = 0.05
# A process that is just starting refuses connections for a moment, so reconnect eagerly.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


async def wait_serving(address: str, child: Child, *, within_s: float) -> None:
    """Returns when the process serves; raises when it ended or its time is over."""
    deadline = time.monotonic() + within_s
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        while not await _serves(channel):
            if not child.runs:
                raise StackError(f"the process ended with {child.exit_code}")
            if time.monotonic() > deadline:
                raise StackError(f"{address} does not serve after {within_s:g} s")
            await asyncio.sleep(ASK_INTERVAL_S)


async def _serves(channel: grpc.aio.Channel) -> bool:
    check = channel.unary_unary(
        CHECK,
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    try:
        answer = await check(HealthCheckRequest(), timeout=ASK_TIMEOUT_S)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == HealthCheckResponse.SERVING)
