"""What identity answers: profiles by whatever leads to them, and their timelines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rapport.identity.v1.service_pb2 import (
    BatchGetProfilesRequest,
    BatchGetProfilesResponse,
    GetProfileRequest,
    GetProfileResponse,
    ListProfilesRequest,
    ListProfilesResponse,
    ListTimelineRequest,
    ListTimelineResponse,
    WatchProfileRequest,
    WatchProfileResponse,
    WatchProfilesRequest,
    WatchProfilesResponse,
    WatchTimelineRequest,
    WatchTimelineResponse,
)
from rapport.identity.v1.service_pb2_grpc import IdentityServiceServicer
from services.identity.projections import (
    ProfilesView,
    batch_get_profiles,
    find_profile_id,
    get_profile,
    list_profiles,
    list_timeline,
)
from services.identity.projections.history import HistoryView
from services.identity.projections.past import get_profile_at
from services.identity.service.watching import Watching
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import read_moment, read_up_to


class IdentityService(IdentityServiceServicer):
    """Profiles of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def GetProfile(self, request: GetProfileRequest, _: Any) -> GetProfileResponse:
        kernel, workspace = self._kernel, await self._fresh_workspace(request.read_token)
        moment = await read_moment(kernel.pool, kernel.clock, request)
        if moment is None:
            profile = await get_profile(kernel.pool, workspace, request.name)
        else:
            await read_up_to(
                kernel.pool, kernel.freshness, kernel.log.service, HistoryView.name, moment
            )
            profile = await get_profile_at(kernel.pool, workspace, request.name, moment)
        return GetProfileResponse(profile=profile)

    async def BatchGetProfiles(
        self, request: BatchGetProfilesRequest, _: Any
    ) -> BatchGetProfilesResponse:
        workspace = await self._fresh_workspace(request.read_token)
        return await batch_get_profiles(self._kernel.pool, workspace, request.names)

    async def ListProfiles(self, request: ListProfilesRequest, _: Any) -> ListProfilesResponse:
        workspace = await self._fresh_workspace(request.read_token)
        return await list_profiles(self._kernel.pool, workspace, request)

    async def WatchProfile(
        self, request: WatchProfileRequest, _: Any
    ) -> AsyncIterator[WatchProfileResponse]:
        workspace = await self._fresh_workspace(request.read_token)
        async for response in Watching(self._kernel, workspace).profile(request.name):
            yield response

    async def WatchProfiles(
        self, request: WatchProfilesRequest, _: Any
    ) -> AsyncIterator[WatchProfilesResponse]:
        workspace = current_caller().workspace
        async for response in Watching(self._kernel, workspace).profiles(request):
            yield response

    async def ListTimeline(self, request: ListTimelineRequest, _: Any) -> ListTimelineResponse:
        workspace = await self._fresh_workspace(request.read_token)
        profile = await find_profile_id(self._kernel.pool, workspace, request.name)
        return await list_timeline(self._kernel.pool, workspace, profile, request)

    async def WatchTimeline(
        self, request: WatchTimelineRequest, _: Any
    ) -> AsyncIterator[WatchTimelineResponse]:
        workspace = current_caller().workspace
        async for response in Watching(self._kernel, workspace).timeline(request):
            yield response

    async def _fresh_workspace(self, read_token: str) -> str:
        """Waits for the view, then names the workspace that a call is confined to."""
        await self._kernel.freshness.wait(ProfilesView.name, read_token)
        return current_caller().workspace
