"""What identity answers about the rules of resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rapport.identity.v1 import rule_sets_pb2 as pb
from rapport.identity.v1.rule_sets_pb2_grpc import RuleSetsServiceServicer
from services.identity.deciders.rule_set import DECIDER, PUBLISHED, Command, State, decider_with
from services.identity.projections.rule_builds import with_build
from services.identity.projections.rule_sets import (
    IN_FORCE,
    RULE_SET_ROWS,
    RuleSetsView,
    count_rule_sets,
    list_rule_sets,
    rule_set_in_force,
    rule_set_of,
)
from services.identity.rule_sets import written_as
from services.identity.rules import DEFAULT
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.kernel.command.decider import Decided, Decider
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)


class RuleSetsService(RuleSetsServiceServicer):
    """Rule sets of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def DraftRuleSet(
        self, request: pb.DraftRuleSetRequest, _: Any
    ) -> pb.DraftRuleSetResponse:
        own_id = request.rule_set_id or str(self._kernel.new_id())
        count = await count_rule_sets(self._kernel.pool, current_caller().workspace)
        return await self._execute(decider_with(count), own_id, request, pb.DraftRuleSetResponse)

    async def PreviewRuleSet(
        self, request: pb.PreviewRuleSetRequest, _: Any
    ) -> pb.PreviewRuleSetResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.PreviewRuleSetResponse)

    async def PublishRuleSet(
        self, request: pb.PublishRuleSetRequest, _: Any
    ) -> pb.PublishRuleSetResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.PublishRuleSetResponse)

    async def DiscardRuleSet(
        self, request: pb.DiscardRuleSetRequest, _: Any
    ) -> pb.DiscardRuleSetResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.DiscardRuleSetResponse)

    async def GetRuleSet(self, request: pb.GetRuleSetRequest, _: Any) -> pb.GetRuleSetResponse:
        await self._kernel.freshness.wait(RuleSetsView.name, request.read_token)
        pool, workspace = self._kernel.pool, current_caller().workspace
        if request.name == IN_FORCE:
            return pb.GetRuleSetResponse(rule_set=await self._in_force(workspace))
        row = await RULE_SET_ROWS.existing(pool, workspace, request.name)
        shown = rule_set_of(row.aggregate_id, row)
        return pb.GetRuleSetResponse(
            rule_set=await with_build(pool, workspace, row.aggregate_id, shown)
        )

    async def ListRuleSets(
        self, request: pb.ListRuleSetsRequest, _: Any
    ) -> pb.ListRuleSetsResponse:
        await self._kernel.freshness.wait(RuleSetsView.name, request.read_token)
        return await list_rule_sets(self._kernel.pool, current_caller().workspace, request)

    async def _in_force(self, workspace: str) -> pb.RuleSet:
        """Returns the rule set in force, or what is built in, which nobody drafted."""
        row = await rule_set_in_force(self._kernel.pool, workspace)
        if row is not None:
            return rule_set_of(row.aggregate_id, row)
        return pb.RuleSet(name=IN_FORCE, rules=written_as(DEFAULT), state=PUBLISHED)

    async def _execute(
        self,
        decider: Decider[Command, State],
        own_id: str,
        command: Command,
        response: Callable[..., M],
    ) -> M:
        """Executes a command on a rule set and answers with what became of it."""

        def respond(decided: Decided[State]) -> M:
            rule_set = rule_set_of(own_id, decided)
            return response(rule_set=rule_set, write_token=decided.write_token)

        return await self._kernel.commands.execute(decider, own_id, command, respond)
