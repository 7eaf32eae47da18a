"""What identity is told about two identifiers by people who know better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.identity.v1 import verdicts_pb2 as pb
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.verdicts_pb2_grpc import VerdictsServiceServicer
from services.identity.decider import Command, Judged, State, decider_about
from services.identity.identifiers import Identifier, identifier
from services.identity.projections.history import HistoryView
from services.identity.projections.history_entries import list_verdicts
from services.identity.projections.rules_in_force import rules_of
from services.identity.projections.verdicts import count_others
from services.identity.rules import Rules
from services.identity.verdicts import in_order, pair_id
from services.kernel.command.decider import Decided
from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller

M = TypeVar("M", bound=Message)


class VerdictsService(VerdictsServiceServicer):
    """Verdicts on identifiers of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def LinkIdentifiers(
        self, request: pb.LinkIdentifiersRequest, _: Any
    ) -> pb.LinkIdentifiersResponse:
        return await self._execute(request, pb.LinkIdentifiersResponse)

    async def CutIdentifiers(
        self, request: pb.CutIdentifiersRequest, _: Any
    ) -> pb.CutIdentifiersResponse:
        return await self._execute(request, pb.CutIdentifiersResponse)

    async def ClearVerdict(
        self, request: pb.ClearVerdictRequest, _: Any
    ) -> pb.ClearVerdictResponse:
        return await self._execute(request, pb.ClearVerdictResponse)

    async def ListVerdicts(
        self, request: pb.ListVerdictsRequest, _: Any
    ) -> pb.ListVerdictsResponse:
        kernel, workspace = self._kernel, current_caller().workspace
        on = None
        if request.HasField("identifier"):
            rules = await rules_of(kernel.pool, workspace)
            on = identified(rules, workspace, request.identifier, "identifier")
        await kernel.freshness.wait(HistoryView.name, request.read_token)
        return await list_verdicts(kernel.pool, workspace, request, on)

    async def _execute(self, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on the verdict on two identifiers."""
        workspace = current_caller().workspace
        rules = await rules_of(self._kernel.pool, workspace)
        one, other = pair_named(rules, workspace, command.one, command.other)
        others = await count_others(self._kernel.pool, workspace, (other.node, one.node))

        def respond(decided: Decided[State]) -> M:
            verdict = pb.Verdict(
                one=named(one),
                other=named(other),
                kind=pb.VerdictKind.ValueType(decided.state.kind),
                reason=decided.state.reason,
                decide_time=timestamp_of(decided.update_time),
                etag=decided.etag,
            )
            return response(verdict=verdict, write_token=decided.write_token)

        decider = decider_about(Judged(one, other, others))
        return await self._kernel.commands.execute(decider, pair_id(one, other), command, respond)


def pair_named(
    rules: Rules, workspace: str, one: Named, other: Named
) -> tuple[Identifier, Identifier]:
    """Returns two identifiers as they are normalised, in the order in which facts name them."""
    first = identified(rules, workspace, one, "one")
    second = identified(rules, workspace, other, "other")
    if first == second:
        raise InvalidArgument.of("other", "is the same identifier as `one`")
    return in_order(first, second)


def identified(rules: Rules, workspace: str, said: Named, field: str) -> Identifier:
    """Returns an identifier as it is normalised; raises InvalidArgument where it is none."""
    if rules.named(said.type) is None:
        raise InvalidArgument.of(f"{field}.type", f"must be one of {rules.names()}")
    found = identifier(rules, workspace, said.type, said.value)
    if found is None:
        raise InvalidArgument.of(f"{field}.value", f"is no {said.type} that points to anybody")
    return found


def named(known: Identifier) -> Named:
    """Returns an identifier as the API shows it."""
    return Named(type=known.type, value=known.value)
