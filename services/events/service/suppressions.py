"""What the events service answers about identifiers that are refused at the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rapport.events.v1 import suppressions_pb2 as pb
from rapport.events.v1.suppressions_pb2_grpc import SuppressionsServiceServicer
from services.events.deciders.suppression import DECIDER, Command, State
from services.events.projections.suppressions import (
    SuppressionsView,
    list_suppressions,
    suppression_key,
    suppression_of,
)
from services.events.suppressed import TYPES, hash_of, normalised
from services.kernel.errors import InvalidArgument
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.events.projections.doors import Doors
    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)


class SuppressionsService(SuppressionsServiceServicer):
    """Suppressed identifiers of the caller's workspace."""

    def __init__(self, kernel: Kernel, doors: Doors) -> None:
        self._kernel = kernel
        self._doors = doors

    async def SuppressIdentifier(
        self, request: pb.SuppressIdentifierRequest, _: Any
    ) -> pb.SuppressIdentifierResponse:
        return await self._execute(request, pb.SuppressIdentifierResponse)

    async def UnsuppressIdentifier(
        self, request: pb.UnsuppressIdentifierRequest, _: Any
    ) -> pb.UnsuppressIdentifierResponse:
        return await self._execute(request, pb.UnsuppressIdentifierResponse)

    async def ListSuppressions(
        self, request: pb.ListSuppressionsRequest, _: Any
    ) -> pb.ListSuppressionsResponse:
        await self._kernel.freshness.wait(SuppressionsView.name, request.read_token)
        return await list_suppressions(self._kernel.pool, current_caller().workspace, request)

    async def _execute(self, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on the suppression of an identifier."""
        workspace = current_caller().workspace
        if command.type not in TYPES:
            raise InvalidArgument.of("type", f"must be one of {', '.join(TYPES)}")
        if not normalised(command.type, command.value):
            raise InvalidArgument.of("value", f"is no {command.type}")
        key = suppression_key(self._kernel.derive_key, workspace)
        suppression_id = hash_of(key, command.type, command.value)

        def respond(decided: Decided[State]) -> M:
            suppression = suppression_of(suppression_id, decided)
            suppression.type = command.type
            return response(suppression=suppression, write_token=decided.write_token)

        changed = await self._kernel.commands.execute(DECIDER, suppression_id, command, respond)
        self._doors.forget(workspace)
        return changed
