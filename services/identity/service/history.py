"""What identity answers about the past of profiles."""

from __future__ import annotations

from typing import Any

from rapport.identity.v1 import history_pb2 as pb
from rapport.identity.v1.history_pb2_grpc import HistoryServiceServicer
from services.identity.projections import ProfilesView
from services.identity.projections.history import HistoryView
from services.identity.projections.history_entries import list_profile_history
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import read_up_to


class HistoryService(HistoryServiceServicer):
    """What became of profiles of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def ListProfileHistory(
        self, request: pb.ListProfileHistoryRequest, _: Any
    ) -> pb.ListProfileHistoryResponse:
        kernel = self._kernel
        if request.read_token:
            await kernel.freshness.wait(ProfilesView.name, request.read_token)
            await read_up_to(
                kernel.pool, kernel.freshness, kernel.log.service, HistoryView.name, None
            )
        workspace = current_caller().workspace
        return await list_profile_history(kernel.pool, kernel.event_types, workspace, request)
