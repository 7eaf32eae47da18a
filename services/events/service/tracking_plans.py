"""What the events service answers about tracking plans."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rapport.events.v1 import tracking_plans_pb2 as pb
from rapport.events.v1.events_pb2 import TrackingPlanContent
from rapport.events.v1.tracking_plans_pb2_grpc import TrackingPlansServiceServicer
from services.events.deciders.tracking_plan import DECIDER, Command, State, checked, decider_with
from services.events.plan_diff import diff
from services.events.plan_inference import Inference
from services.events.plan_preview import Preview, reopened
from services.events.plans import compiled_plan
from services.events.projections.customer_events import VIEW as CUSTOMER_EVENTS
from services.events.projections.lookback import Lookback
from services.events.projections.tracking_plans import (
    TrackingPlansView,
    count_plans,
    existing_plan,
    list_tracking_plans,
    split_name,
    tracking_plan_of,
)
from services.kernel.errors import InvalidArgument
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.message import Message

    from services.events.projections.doors import Doors
    from services.kernel.command.decider import Decided, Decider
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)

INFER_DAYS_DEFAULT = 30
PREVIEW_DAYS_DEFAULT = 7


class TrackingPlansService(TrackingPlansServiceServicer):
    """Tracking plans of the caller's workspace."""

    def __init__(self, kernel: Kernel, doors: Doors) -> None:
        self._kernel = kernel
        self._doors = doors

    async def CreateTrackingPlan(
        self, request: pb.CreateTrackingPlanRequest, _: Any
    ) -> pb.CreateTrackingPlanResponse:
        plan_id = request.tracking_plan_id or str(self._kernel.new_id())
        count = await count_plans(self._kernel.pool, current_caller().workspace)
        decider = decider_with(count)
        return await self._execute(decider, plan_id, request, pb.CreateTrackingPlanResponse)

    async def DraftTrackingPlan(
        self, request: pb.DraftTrackingPlanRequest, _: Any
    ) -> pb.DraftTrackingPlanResponse:
        plan_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, plan_id, request, pb.DraftTrackingPlanResponse)

    async def PublishTrackingPlan(
        self, request: pb.PublishTrackingPlanRequest, _: Any
    ) -> pb.PublishTrackingPlanResponse:
        plan_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, plan_id, request, pb.PublishTrackingPlanResponse)

    async def ArchiveTrackingPlan(
        self, request: pb.ArchiveTrackingPlanRequest, _: Any
    ) -> pb.ArchiveTrackingPlanResponse:
        plan_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, plan_id, request, pb.ArchiveTrackingPlanResponse)

    async def GetTrackingPlan(
        self, request: pb.GetTrackingPlanRequest, _: Any
    ) -> pb.GetTrackingPlanResponse:
        return pb.GetTrackingPlanResponse(
            tracking_plan=await self._plan(request.name, request.read_token)
        )

    async def ListTrackingPlans(
        self, request: pb.ListTrackingPlansRequest, _: Any
    ) -> pb.ListTrackingPlansResponse:
        await self._kernel.freshness.wait(TrackingPlansView.name, request.read_token)
        return await list_tracking_plans(self._kernel.pool, current_caller().workspace, request)

    async def DiffTrackingPlan(
        self, request: pb.DiffTrackingPlanRequest, _: Any
    ) -> pb.DiffTrackingPlanResponse:
        plan_name, number = split_name(request.name)
        current = await self._plan(plan_name, request.read_token)
        after = current.draft if number is None else (await self._plan(request.name)).published
        base = request.base_version or current.version
        before = TrackingPlanContent()
        if base:
            before = (await self._plan(f"{plan_name}@{base}")).published
        found = diff(before, after)
        return pb.DiffTrackingPlanResponse(
            base_version=base,
            changes=found.changes,
            unplanned_policy=found.unplanned_policy,
            is_complete=found.is_complete,
        )

    async def InferTrackingPlan(
        self, request: pb.InferTrackingPlanRequest, _: Any
    ) -> pb.InferTrackingPlanResponse:
        """Made of the newest customer events, as many as there is time for."""
        await self._kernel.freshness.wait(CUSTOMER_EVENTS.name, request.read_token)
        days = request.days or INFER_DAYS_DEFAULT
        lookback = self._lookback(request.source, days, request.event_names)
        inference = Inference()
        async for customer_event in lookback.customer_events():
            inference.add(reopened(customer_event))
        content, left_out = inference.content()
        return pb.InferTrackingPlanResponse(
            content=content,
            looked_at=lookback.looked_at,
            is_complete=lookback.is_complete,
            rules_left_out=left_out,
        )

    async def PreviewTrackingPlan(
        self, request: pb.PreviewTrackingPlanRequest, _: Any
    ) -> pb.PreviewTrackingPlanResponse:
        """Judges the newest customer events, as many as there is time for."""
        if bool(request.name) == request.HasField("content"):
            raise InvalidArgument.of("name", "either a name or a content is needed")
        if request.name:
            plan = await self._plan(request.name, request.read_token)
            is_draft = split_name(request.name)[1] is None
            content = plan.draft if is_draft else plan.published
        else:
            content = checked(request.content)
        await self._kernel.freshness.wait(CUSTOMER_EVENTS.name, request.read_token)
        lookback = self._lookback(request.source, request.days or PREVIEW_DAYS_DEFAULT)
        preview = Preview(compiled_plan(request.name, content))
        async for customer_event in lookback.customer_events():
            preview.add(customer_event)
        return preview.response(is_complete=lookback.is_complete)

    async def _plan(self, name: str, read_token: str = "") -> pb.TrackingPlan:
        await self._kernel.freshness.wait(TrackingPlansView.name, read_token)
        return await existing_plan(self._kernel.pool, current_caller().workspace, name)

    def _lookback(self, source: str, days: int, names: Sequence[str] = ()) -> Lookback:
        caller = current_caller()
        return Lookback(
            pool=self._kernel.pool,
            event_types=self._kernel.event_types,
            workspace=caller.workspace,
            since=self._kernel.clock.now() - timedelta(days=days),
            source=source,
            event_names=names,
            remaining_s=caller.remaining_s,
        )

    async def _execute(
        self,
        decider: Decider[Command, State],
        plan_id: str,
        command: Command,
        response: Callable[..., M],
    ) -> M:
        """Executes a command on a tracking plan and answers with what became of it."""

        def respond(decided: Decided[State]) -> M:
            plan = tracking_plan_of(plan_id, decided)
            return response(tracking_plan=plan, write_token=decided.write_token)

        changed = await self._kernel.commands.execute(decider, plan_id, command, respond)
        self._doors.forget(current_caller().workspace)
        return changed
