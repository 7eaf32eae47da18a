"""What identity answers about match runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.identity.v1 import match_runs_pb2 as pb
from rapport.identity.v1.match_runs_pb2_grpc import MatchRunsServiceServicer
from services.identity.deciders.match_run import DECIDER, Command, State
from services.identity.projections.match_input import check_filter
from services.identity.projections.match_progress import NO_PROGRESS, read_progress
from services.identity.projections.match_runs import (
    MatchRunsView,
    count_open,
    get_run,
    list_runs,
    run_of,
)
from services.kernel.command.decider import Decided, Decider
from services.kernel.errors import ResourceExhausted
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller

# Runs of a workspace that go on or wait for their turn.
OPEN_RUNS_MAX = 10

M = TypeVar("M", bound=Message)


def _refuse(_command: Command, _state: State) -> Sequence[Message]:
    raise ResourceExhausted("OPEN_RUNS_MAX", OPEN_RUNS_MAX)


FULL = replace(DECIDER, decide=_refuse)
"""The rules where no run can be started any more: one that was is still answered for."""


class MatchRunsService(MatchRunsServiceServicer):
    """Match runs of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def StartMatchRun(
        self, request: pb.StartMatchRunRequest, _: Any
    ) -> pb.StartMatchRunResponse:
        check_filter(request.filter)
        count = await count_open(self._kernel.pool, current_caller().workspace)
        decider = DECIDER if count < OPEN_RUNS_MAX else FULL
        run_id = request.match_run_id or str(self._kernel.new_id())
        return await self._execute(run_id, request, pb.StartMatchRunResponse, decider)

    async def CancelMatchRun(
        self, request: pb.CancelMatchRunRequest, _: Any
    ) -> pb.CancelMatchRunResponse:
        run_id = DECIDER.aggregate_id(request.name)
        return await self._execute(run_id, request, pb.CancelMatchRunResponse)

    async def GetMatchRun(self, request: pb.GetMatchRunRequest, _: Any) -> pb.GetMatchRunResponse:
        await self._kernel.freshness.wait(MatchRunsView.name, request.read_token)
        workspace = current_caller().workspace
        return pb.GetMatchRunResponse(
            match_run=await get_run(self._kernel.pool, workspace, request.name)
        )

    async def ListMatchRuns(
        self, request: pb.ListMatchRunsRequest, _: Any
    ) -> pb.ListMatchRunsResponse:
        await self._kernel.freshness.wait(MatchRunsView.name, request.read_token)
        return await list_runs(self._kernel.pool, current_caller().workspace, request)

    async def _execute(
        self,
        run_id: str,
        command: Command,
        response: Callable[..., M],
        decider: Decider[Command, State] = DECIDER,
    ) -> M:
        """Executes a command on a run and answers with what became of it."""
        workspace = current_caller().workspace
        known = await read_progress(self._kernel.pool, workspace, [run_id])

        def respond(decided: Decided[State]) -> M:
            shown = run_of(run_id, decided, known.get(run_id, NO_PROGRESS))
            return response(match_run=shown, write_token=decided.write_token)

        return await self._kernel.commands.execute(decider, run_id, command, respond)
