"""What deals answer: each RPC executes a command or asks a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.deals.v1.service_pb2 import (
    GetDealBoardRequest,
    GetDealBoardResponse,
    GetDealRequest,
    GetDealResponse,
    ListDealsRequest,
    ListDealsResponse,
    LoseDealRequest,
    LoseDealResponse,
    MoveDealStageRequest,
    MoveDealStageResponse,
    OpenDealRequest,
    OpenDealResponse,
    WinDealRequest,
    WinDealResponse,
)
from rapport.deals.v1.service_pb2_grpc import DealsServiceServicer
from services.deals.deciders.deal import DECIDER, Command, State
from services.deals.projections.deals import DEAL_ROWS, DealsView, deal_of, get_board, list_deals
from services.kernel.command.decider import Decided
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller

M = TypeVar("M", bound=Message)


class DealsService(DealsServiceServicer):
    """Deals of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def OpenDeal(self, request: OpenDealRequest, _: Any) -> OpenDealResponse:
        deal_id = request.deal_id or str(self._kernel.new_id())
        return await self._execute(deal_id, request, OpenDealResponse)

    async def MoveDealStage(self, request: MoveDealStageRequest, _: Any) -> MoveDealStageResponse:
        deal_id = DECIDER.aggregate_id(request.name)
        return await self._execute(deal_id, request, MoveDealStageResponse)

    async def WinDeal(self, request: WinDealRequest, _: Any) -> WinDealResponse:
        deal_id = DECIDER.aggregate_id(request.name)
        return await self._execute(deal_id, request, WinDealResponse)

    async def LoseDeal(self, request: LoseDealRequest, _: Any) -> LoseDealResponse:
        deal_id = DECIDER.aggregate_id(request.name)
        return await self._execute(deal_id, request, LoseDealResponse)

    async def GetDeal(self, request: GetDealRequest, _: Any) -> GetDealResponse:
        await self._kernel.freshness.wait(DealsView.name, request.read_token)
        workspace = current_caller().workspace
        row = await DEAL_ROWS.existing(self._kernel.pool, workspace, request.name)
        return GetDealResponse(deal=deal_of(row.aggregate_id, row))

    async def ListDeals(self, request: ListDealsRequest, _: Any) -> ListDealsResponse:
        await self._kernel.freshness.wait(DealsView.name, request.read_token)
        return await list_deals(self._kernel.pool, current_caller().workspace, request)

    async def GetDealBoard(self, request: GetDealBoardRequest, _: Any) -> GetDealBoardResponse:
        await self._kernel.freshness.wait(DealsView.name, request.read_token)
        workspace = current_caller().workspace
        return await get_board(self._kernel.pool, workspace, request.deals_per_stage)

    async def _execute(self, deal_id: str, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on a deal and answers with what became of it."""

        def respond(decided: Decided[State]) -> M:
            return response(deal=deal_of(deal_id, decided), write_token=decided.write_token)

        return await self._kernel.commands.execute(DECIDER, deal_id, command, respond)
