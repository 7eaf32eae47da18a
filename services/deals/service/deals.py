"""What deals answer: each RPC executes a command or asks a question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from rapport.deals.v1 import service_pb2 as pb
from rapport.deals.v1.service_pb2_grpc import DealsServiceServicer
from services.deals.deciders.deal import DECIDER, Command, decider_at
from services.deals.projections.deal_board import get_board
from services.deals.projections.deal_changes import list_deal_changes
from services.deals.projections.deals import DealsView, deal_of, existing_deal, list_deals
from services.deals.projections.pipelines import load_pipelines
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from services.deals.deal import State
    from services.deals.pipeline import Pipeline
    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel
    from services.kernel.views.as_of import DatedRequest

    M = TypeVar("M", bound=Message)


class DealsService(DealsServiceServicer):
    """Deals of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def OpenDeal(self, request: pb.OpenDealRequest, _: Any) -> pb.OpenDealResponse:
        deal_id = request.deal_id or str(self._kernel.new_id())
        return await self._execute(deal_id, request, pb.OpenDealResponse)

    async def UpdateDeal(self, request: pb.UpdateDealRequest, _: Any) -> pb.UpdateDealResponse:
        return await self._execute_on(request, pb.UpdateDealResponse)

    async def MoveDealStage(
        self, request: pb.MoveDealStageRequest, _: Any
    ) -> pb.MoveDealStageResponse:
        return await self._execute_on(request, pb.MoveDealStageResponse)

    async def MoveDealToPipeline(
        self, request: pb.MoveDealToPipelineRequest, _: Any
    ) -> pb.MoveDealToPipelineResponse:
        return await self._execute_on(request, pb.MoveDealToPipelineResponse)

    async def WinDeal(self, request: pb.WinDealRequest, _: Any) -> pb.WinDealResponse:
        return await self._execute_on(request, pb.WinDealResponse)

    async def LoseDeal(self, request: pb.LoseDealRequest, _: Any) -> pb.LoseDealResponse:
        return await self._execute_on(request, pb.LoseDealResponse)

    async def ReopenDeal(self, request: pb.ReopenDealRequest, _: Any) -> pb.ReopenDealResponse:
        return await self._execute_on(request, pb.ReopenDealResponse)

    async def DeleteDeal(self, request: pb.DeleteDealRequest, _: Any) -> pb.DeleteDealResponse:
        return await self._execute_on(request, pb.DeleteDealResponse)

    async def UndeleteDeal(
        self, request: pb.UndeleteDealRequest, _: Any
    ) -> pb.UndeleteDealResponse:
        return await self._execute_on(request, pb.UndeleteDealResponse)

    async def GetDeal(self, request: pb.GetDealRequest, _: Any) -> pb.GetDealResponse:
        workspace, moment, pipelines = await self._asked(request, request.read_token)
        row = await existing_deal(self._kernel.pool, workspace, request.name, moment)
        return pb.GetDealResponse(deal=deal_of(row.aggregate_id, row, pipelines))

    async def ListDeals(self, request: pb.ListDealsRequest, _: Any) -> pb.ListDealsResponse:
        workspace, moment, pipelines = await self._asked(request, request.read_token)
        return await list_deals(self._kernel.pool, workspace, request, pipelines, moment)

    async def ListDealChanges(
        self, request: pb.ListDealChangesRequest, _: Any
    ) -> pb.ListDealChangesResponse:
        await self._kernel.freshness.wait(DealsView.name, request.read_token)
        return await list_deal_changes(self._kernel.pool, current_caller().workspace, request)

    async def GetDealBoard(
        self, request: pb.GetDealBoardRequest, _: Any
    ) -> pb.GetDealBoardResponse:
        workspace, moment, pipelines = await self._asked(request, request.read_token)
        return await get_board(self._kernel.pool, workspace, request, pipelines, moment)

    async def _asked(
        self, request: DatedRequest, read_token: str
    ) -> tuple[str, datetime | None, dict[str, Pipeline]]:
        """Whose deals are asked for, as of when, and the pipelines there were then."""
        await self._kernel.freshness.wait(DealsView.name, read_token)
        workspace = current_caller().workspace
        moment = await read_moment(self._kernel.pool, self._kernel.clock, request)
        return workspace, moment, await load_pipelines(self._kernel.pool, workspace, moment)

    async def _execute_on(self, command: Any, response: Callable[..., M]) -> M:
        """Executes a command on the deal that it names."""
        return await self._execute(DECIDER.aggregate_id(command.name), command, response)

    async def _execute(self, deal_id: str, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on a deal and answers with what became of it."""
        pipelines = await load_pipelines(self._kernel.pool, current_caller().workspace)
        now = self._kernel.clock.now()

        def respond(decided: Decided[State]) -> M:
            deal = deal_of(deal_id, decided, pipelines)
            return response(deal=deal, write_token=decided.write_token)

        decider = decider_at(now, pipelines)
        return await self._kernel.commands.execute(decider, deal_id, command, respond)
