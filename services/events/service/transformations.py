"""What the events service answers about transformations."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from rapport.events.v1 import transformations_pb2 as pb
from rapport.events.v1.transformations_pb2_grpc import TransformationsServiceServicer
from services.events.deciders.transformation import DECIDER, Command, State, checked, decider_with
from services.events.projections.transformations import (
    TRANSFORMATION_ROWS,
    TransformationsView,
    count_transformations,
    hash_key_of,
    list_transformations,
    transformation_of,
)
from services.events.transformation_preview import transformed
from services.events.transforming import compiled
from services.kernel.errors import InvalidArgument
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.events.projections.doors import Doors
    from services.kernel.command.decider import Decided, Decider
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)


class TransformationsService(TransformationsServiceServicer):
    """Transformations of the caller's workspace."""

    def __init__(self, kernel: Kernel, doors: Doors) -> None:
        self._kernel = kernel
        self._doors = doors

    async def CreateTransformation(
        self, request: pb.CreateTransformationRequest, _: Any
    ) -> pb.CreateTransformationResponse:
        own_id = request.transformation_id or str(self._kernel.new_id())
        count = await count_transformations(self._kernel.pool, current_caller().workspace)
        decider = decider_with(count)
        return await self._execute(decider, own_id, request, pb.CreateTransformationResponse)

    async def ConfigureTransformation(
        self, request: pb.ConfigureTransformationRequest, _: Any
    ) -> pb.ConfigureTransformationResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.ConfigureTransformationResponse)

    async def EnableTransformation(
        self, request: pb.EnableTransformationRequest, _: Any
    ) -> pb.EnableTransformationResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.EnableTransformationResponse)

    async def DisableTransformation(
        self, request: pb.DisableTransformationRequest, _: Any
    ) -> pb.DisableTransformationResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.DisableTransformationResponse)

    async def GetTransformation(
        self, request: pb.GetTransformationRequest, _: Any
    ) -> pb.GetTransformationResponse:
        return pb.GetTransformationResponse(
            transformation=await self._existing(request.name, request.read_token)
        )

    async def ListTransformations(
        self, request: pb.ListTransformationsRequest, _: Any
    ) -> pb.ListTransformationsResponse:
        await self._kernel.freshness.wait(TransformationsView.name, request.read_token)
        return await list_transformations(self._kernel.pool, current_caller().workspace, request)

    async def PreviewTransformation(
        self, request: pb.PreviewTransformationRequest, _: Any
    ) -> pb.PreviewTransformationResponse:
        """Changes samples as the door would change them, and records nothing."""
        if bool(request.name) == request.HasField("settings"):
            raise InvalidArgument.of("name", "either a name or settings are needed")
        if request.name:
            settings = (await self._existing(request.name, request.read_token)).settings
        else:
            settings = checked(request.settings)
        key = hash_key_of(self._kernel.derive_key, current_caller().workspace)
        transformation = compiled(request.name or "this", settings, hash_key=key)
        response = pb.PreviewTransformationResponse()
        for customer_event in request.customer_events:
            response.customer_events.append(transformed(transformation, customer_event))
            await asyncio.sleep(0)  # others are served between any two samples
        return response

    async def _existing(self, name: str, read_token: str) -> pb.Transformation:
        await self._kernel.freshness.wait(TransformationsView.name, read_token)
        workspace = current_caller().workspace
        row = await TRANSFORMATION_ROWS.existing(self._kernel.pool, workspace, name)
        return transformation_of(row.aggregate_id, row)

    async def _execute(
        self,
        decider: Decider[Command, State],
        own_id: str,
        command: Command,
        response: Callable[..., M],
    ) -> M:
        """Executes a command on a transformation and answers with what became of it."""

        def respond(decided: Decided[State]) -> M:
            transformation = transformation_of(own_id, decided)
            return response(transformation=transformation, write_token=decided.write_token)

        changed = await self._kernel.commands.execute(decider, own_id, command, respond)
        self._doors.forget(current_caller().workspace)
        return changed
