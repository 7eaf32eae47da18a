"""What identity answers when it is asked why."""

from __future__ import annotations

from typing import Any

from rapport.identity.v1 import explanations_pb2 as pb
from rapport.identity.v1.explanations_pb2_grpc import ExplanationsServiceServicer
from services.identity.projections import ProfilesView
from services.identity.projections.explanations import explain_pair, explain_profile
from services.identity.projections.rules_in_force import rules_of
from services.identity.service.verdicts import pair_named
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller


class ExplanationsService(ExplanationsServiceServicer):
    """Why profiles of the caller's workspace are as they are."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def ExplainProfile(
        self, request: pb.ExplainProfileRequest, _: Any
    ) -> pb.ExplainProfileResponse:
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        return await explain_profile(self._kernel.pool, current_caller().workspace, request.name)

    async def ExplainPair(self, request: pb.ExplainPairRequest, _: Any) -> pb.ExplainPairResponse:
        workspace = current_caller().workspace
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        rules = await rules_of(self._kernel.pool, workspace)
        one, other = pair_named(rules, workspace, request.one, request.other)
        return await explain_pair(self._kernel.pool, workspace, one, other)
