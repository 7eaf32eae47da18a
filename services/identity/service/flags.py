"""What identity is told about one identifier by people who know better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.identity.v1 import flags_pb2 as pb
from rapport.identity.v1.flags_pb2_grpc import FlagsServiceServicer
from services.identity.flags import Command, State, decider_about
from services.identity.projections import ProfilesView
from services.identity.projections.flags import list_flags
from services.identity.projections.rules_in_force import rules_of
from services.identity.service.verdicts import identified, named
from services.kernel.command.decider import Decided
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller

M = TypeVar("M", bound=Message)


class FlagsService(FlagsServiceServicer):
    """Flags of identifiers of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def BlockIdentifier(
        self, request: pb.BlockIdentifierRequest, _: Any
    ) -> pb.BlockIdentifierResponse:
        return await self._execute(request, pb.BlockIdentifierResponse)

    async def AllowIdentifier(
        self, request: pb.AllowIdentifierRequest, _: Any
    ) -> pb.AllowIdentifierResponse:
        return await self._execute(request, pb.AllowIdentifierResponse)

    async def ClearIdentifierFlag(
        self, request: pb.ClearIdentifierFlagRequest, _: Any
    ) -> pb.ClearIdentifierFlagResponse:
        return await self._execute(request, pb.ClearIdentifierFlagResponse)

    async def ListIdentifierFlags(
        self, request: pb.ListIdentifierFlagsRequest, _: Any
    ) -> pb.ListIdentifierFlagsResponse:
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        return await list_flags(self._kernel.pool, current_caller().workspace, request)

    async def _execute(self, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on the flag of an identifier."""
        workspace = current_caller().workspace
        rules = await rules_of(self._kernel.pool, workspace)
        about = identified(rules, workspace, command.identifier, "identifier")

        def respond(decided: Decided[State]) -> M:
            flag = pb.IdentifierFlag(
                identifier=named(about),
                kind=pb.FlagKind.ValueType(decided.state.kind),
                reason=decided.state.reason,
                decide_time=timestamp_of(decided.update_time),
                etag=decided.etag,
            )
            return response(flag=flag, write_token=decided.write_token)

        decider = decider_about(about)
        return await self._kernel.commands.execute(decider, about.node, command, respond)
