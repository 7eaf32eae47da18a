"""What the events service answers about for how long customer events are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rapport.events.v1 import retention_pb2 as pb
from rapport.events.v1.events_pb2 import RetentionSettings
from rapport.events.v1.retention_pb2_grpc import RetentionServiceServicer
from services.events.anonymised import PREFIX
from services.events.deciders.retention_rule import DECIDER, Command, State, checked, decider_with
from services.events.projections.customer_events import VIEW
from services.events.projections.retention_rules import (
    RETENTION_RULE_ROWS,
    RetentionRulesView,
    count_old,
    count_rules,
    list_rules,
    rule_of,
    taken,
)
from services.events.retention import MESSAGES, anonymises, before
from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import timestamp_of
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.events.projections.retention_rules import Row
    from services.kernel.command.decider import Decided, Decider
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)


class RetentionService(RetentionServiceServicer):
    """Rules of retention of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def CreateRetentionRule(
        self, request: pb.CreateRetentionRuleRequest, _: Any
    ) -> pb.CreateRetentionRuleResponse:
        own_id = request.retention_rule_id or str(self._kernel.new_id())
        count = await count_rules(self._kernel.pool, current_caller().workspace)
        return await self._execute(
            decider_with(count), own_id, request, pb.CreateRetentionRuleResponse
        )

    async def EnableRetentionRule(
        self, request: pb.EnableRetentionRuleRequest, _: Any
    ) -> pb.EnableRetentionRuleResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.EnableRetentionRuleResponse)

    async def DisableRetentionRule(
        self, request: pb.DisableRetentionRuleRequest, _: Any
    ) -> pb.DisableRetentionRuleResponse:
        own_id = DECIDER.aggregate_id(request.name)
        return await self._execute(DECIDER, own_id, request, pb.DisableRetentionRuleResponse)

    async def GetRetentionRule(
        self, request: pb.GetRetentionRuleRequest, _: Any
    ) -> pb.GetRetentionRuleResponse:
        row = await self._existing(request.name, request.read_token)
        count = await self._taken(row.aggregate_id)
        return pb.GetRetentionRuleResponse(retention_rule=rule_of(row.aggregate_id, row, count))

    async def ListRetentionRules(
        self, request: pb.ListRetentionRulesRequest, _: Any
    ) -> pb.ListRetentionRulesResponse:
        await self._kernel.freshness.wait(RetentionRulesView.name, request.read_token)
        workspace = current_caller().workspace
        return await list_rules(self._kernel.pool, workspace, request, MESSAGES)

    async def PreviewRetentionRule(
        self, request: pb.PreviewRetentionRuleRequest, _: Any
    ) -> pb.PreviewRetentionRuleResponse:
        """Counts what is old enough by the clock, in the list of what was recorded."""
        if bool(request.name) == request.HasField("settings"):
            raise InvalidArgument.of("name", "either a name or settings are needed")
        await self._kernel.freshness.wait(VIEW.name, request.read_token)
        if request.name:
            row = await self._existing(request.name, request.read_token)
            settings = RetentionSettings.FromString(row.state.settings)
        else:
            settings = checked(request.settings)
        until = before(settings, self._kernel.clock.now())
        nobodys = PREFIX if anonymises(settings) else ""
        workspace = current_caller().workspace
        count = await count_old(self._kernel.pool, workspace, settings, until, nobodys)
        return pb.PreviewRetentionRuleResponse(before_time=timestamp_of(until), count=count)

    async def _existing(self, name: str, read_token: str) -> Row:
        await self._kernel.freshness.wait(RetentionRulesView.name, read_token)
        workspace = current_caller().workspace
        return await RETENTION_RULE_ROWS.existing(self._kernel.pool, workspace, name)

    async def _taken(self, rule_id: str) -> int:
        name = DECIDER.name(rule_id)
        counts = await taken(self._kernel.pool, current_caller().workspace, [name], MESSAGES)
        return counts.get(name, 0)

    async def _execute(
        self,
        decider: Decider[Command, State],
        own_id: str,
        command: Command,
        response: Callable[..., M],
    ) -> M:
        """Executes a command on a rule and answers with what became of it."""
        count = await self._taken(own_id)

        def respond(decided: Decided[State]) -> M:
            rule = rule_of(own_id, decided, count)
            return response(retention_rule=rule, write_token=decided.write_token)

        return await self._kernel.commands.execute(decider, own_id, command, respond)
