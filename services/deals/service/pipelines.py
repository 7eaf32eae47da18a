"""What deals answer about pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rapport.deals.v1 import pipelines_pb2 as pb
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceServicer
from services.deals.deciders.pipeline import DECIDER, Command, decider_with, stage_ids
from services.deals.projections.pipelines import (
    PipelinesView,
    count_pipelines,
    existing_pipeline,
    list_pipelines,
    pipeline_of,
)
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.deals.pipeline import Pipeline
    from services.kernel.command.decider import Decided, Decider
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)


class PipelinesService(PipelinesServiceServicer):
    """Pipelines of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def CreatePipeline(
        self, request: pb.CreatePipelineRequest, _: Any
    ) -> pb.CreatePipelineResponse:
        pipeline_id = request.pipeline_id or str(self._kernel.new_id())
        decider = await self._counting()
        return await self._execute(decider, pipeline_id, request, pb.CreatePipelineResponse)

    async def RenamePipeline(
        self, request: pb.RenamePipelineRequest, _: Any
    ) -> pb.RenamePipelineResponse:
        pipeline_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, pipeline_id, request, pb.RenamePipelineResponse)

    async def ArchivePipeline(
        self, request: pb.ArchivePipelineRequest, _: Any
    ) -> pb.ArchivePipelineResponse:
        pipeline_id = DECIDER.aggregate_id(request.name)
        decider = await self._counting()
        return await self._execute(decider, pipeline_id, request, pb.ArchivePipelineResponse)

    async def RestorePipeline(
        self, request: pb.RestorePipelineRequest, _: Any
    ) -> pb.RestorePipelineResponse:
        pipeline_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, pipeline_id, request, pb.RestorePipelineResponse)

    async def AddStage(self, request: pb.AddStageRequest, _: Any) -> pb.AddStageResponse:
        pipeline_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, pipeline_id, request, pb.AddStageResponse)

    async def ChangeStage(self, request: pb.ChangeStageRequest, _: Any) -> pb.ChangeStageResponse:
        pipeline_id, _stage_id = stage_ids(request.name)
        return await self._execute(DECIDER, pipeline_id, request, pb.ChangeStageResponse)

    async def ArrangeStages(
        self, request: pb.ArrangeStagesRequest, _: Any
    ) -> pb.ArrangeStagesResponse:
        pipeline_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, pipeline_id, request, pb.ArrangeStagesResponse)

    async def ArchiveStage(
        self, request: pb.ArchiveStageRequest, _: Any
    ) -> pb.ArchiveStageResponse:
        pipeline_id, _stage_id = stage_ids(request.name)
        return await self._execute(DECIDER, pipeline_id, request, pb.ArchiveStageResponse)

    async def RestoreStage(
        self, request: pb.RestoreStageRequest, _: Any
    ) -> pb.RestoreStageResponse:
        pipeline_id, _stage_id = stage_ids(request.name)
        return await self._execute(DECIDER, pipeline_id, request, pb.RestoreStageResponse)

    async def GetPipeline(self, request: pb.GetPipelineRequest, _: Any) -> pb.GetPipelineResponse:
        kernel = self._kernel
        await kernel.freshness.wait(PipelinesView.name, request.read_token)
        moment = await read_moment(kernel.pool, kernel.clock, request)
        workspace = current_caller().workspace
        pipeline = await existing_pipeline(kernel.pool, workspace, request.name, moment)
        return pb.GetPipelineResponse(pipeline=pipeline)

    async def ListPipelines(
        self, request: pb.ListPipelinesRequest, _: Any
    ) -> pb.ListPipelinesResponse:
        kernel = self._kernel
        await kernel.freshness.wait(PipelinesView.name, request.read_token)
        moment = await read_moment(kernel.pool, kernel.clock, request)
        return await list_pipelines(kernel.pool, current_caller().workspace, request, moment)

    async def _counting(self) -> Decider[Command, Pipeline]:
        """The rules for a workspace that has as many pipelines as this one."""
        others = await count_pipelines(self._kernel.pool, current_caller().workspace)
        return decider_with(others)

    async def _execute(
        self,
        decider: Decider[Command, Pipeline],
        pipeline_id: str,
        command: Command,
        response: Callable[..., M],
    ) -> M:
        """Executes a command on a pipeline and answers with what became of it."""

        def respond(decided: Decided[Pipeline]) -> M:
            pipeline = pipeline_of(pipeline_id, decided)
            return response(pipeline=pipeline, write_token=decided.write_token)

        return await self._kernel.commands.execute(decider, pipeline_id, command, respond)
