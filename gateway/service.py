"""The RPCs that the gateway answers itself."""

from __future__ import annotations

from typing import Any

from gateway.customer360 import Stubs, compose
from rapport.gateway.v1.service_pb2 import GetCustomer360Request, GetCustomer360Response
from rapport.gateway.v1.service_pb2_grpc import GatewayServiceServicer
from services.kernel.rpc.caller import current_caller


class GatewayService(GatewayServiceServicer):
    """Answers what needs more than one service."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs

    async def GetCustomer360(
        self, request: GetCustomer360Request, _: Any
    ) -> GetCustomer360Response:
        return await compose(request, self._stubs, within_s=current_caller().remaining_s)
