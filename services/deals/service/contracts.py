"""What the deals service answers about contracts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rapport.deals.v1 import contracts_pb2 as pb
from rapport.deals.v1.contracts_pb2_grpc import ContractsServiceServicer
from services.deals.deciders.contract import DECIDER, Asked, Command, decider_for, renew_by
from services.deals.deciders.contract_state import State
from services.deals.projections.contract_answers import contract_of, list_contracts
from services.deals.projections.contracts import CONTRACT_VERSIONS, ContractsView
from services.kernel.command.decider import Part
from services.kernel.errors import AlreadyExists
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date, datetime

    from google.protobuf.message import Message

    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)


class ContractsService(ContractsServiceServicer):
    """Contracts of the caller's workspace, as they are today."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def DraftContract(
        self, request: pb.DraftContractRequest, _: Any
    ) -> pb.DraftContractResponse:
        contract_id = request.contract_id or str(self._kernel.new_id())
        return await self._execute(contract_id, request, pb.DraftContractResponse)

    async def UpdateContract(
        self, request: pb.UpdateContractRequest, _: Any
    ) -> pb.UpdateContractResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.UpdateContractResponse)

    async def SubmitContract(
        self, request: pb.SubmitContractRequest, _: Any
    ) -> pb.SubmitContractResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.SubmitContractResponse)

    async def ApproveContract(
        self, request: pb.ApproveContractRequest, _: Any
    ) -> pb.ApproveContractResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.ApproveContractResponse)

    async def RejectContract(
        self, request: pb.RejectContractRequest, _: Any
    ) -> pb.RejectContractResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.RejectContractResponse)

    async def SignContract(
        self, request: pb.SignContractRequest, _: Any
    ) -> pb.SignContractResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.SignContractResponse)

    async def ActivateContract(
        self, request: pb.ActivateContractRequest, _: Any
    ) -> pb.ActivateContractResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.ActivateContractResponse)

    async def GiveContractNotice(
        self, request: pb.GiveContractNoticeRequest, _: Any
    ) -> pb.GiveContractNoticeResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.GiveContractNoticeResponse)

    async def TerminateContract(
        self, request: pb.TerminateContractRequest, _: Any
    ) -> pb.TerminateContractResponse:
        contract_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contract_id, request, pb.TerminateContractResponse)

    async def RenewContract(
        self, request: pb.RenewContractRequest, _: Any
    ) -> pb.RenewContractResponse:
        """Both contracts change in one transaction, or neither."""
        renewed_id = DECIDER.aggregate_id(request.name)
        contract_id = request.contract_id or str(self._kernel.new_id())
        if contract_id == renewed_id:
            raise AlreadyExists(request.name, "contract_id")
        asked = self._asked(contract_id)

        def respond(decided: Sequence[Decided[State]]) -> pb.RenewContractResponse:
            renewed, drafted = decided
            return pb.RenewContractResponse(
                contract=contract_of(contract_id, drafted, asked.today),
                renewed=contract_of(renewed_id, renewed, asked.today),
                write_token=drafted.write_token,
            )

        decider = decider_for(asked)
        parts = [Part(decider, renewed_id), Part(decider, contract_id)]
        decide = partial(renew_by, asked, request)
        return await self._kernel.commands.execute_jointly(parts, request, decide, respond)

    async def GetContract(self, request: pb.GetContractRequest, _: Any) -> pb.GetContractResponse:
        await self._kernel.freshness.wait(ContractsView.name, request.read_token)
        pool, workspace = self._kernel.pool, current_caller().workspace
        moment = await read_moment(pool, self._kernel.clock, request)
        row = await CONTRACT_VERSIONS.existing_at(pool, workspace, request.name, moment)
        return pb.GetContractResponse(
            contract=contract_of(row.aggregate_id, row, self._day(moment))
        )

    async def ListContracts(
        self, request: pb.ListContractsRequest, _: Any
    ) -> pb.ListContractsResponse:
        await self._kernel.freshness.wait(ContractsView.name, request.read_token)
        pool, workspace = self._kernel.pool, current_caller().workspace
        moment = await read_moment(pool, self._kernel.clock, request)
        return await list_contracts(pool, workspace, request, self._day(moment), moment)

    def _day(self, moment: datetime | None = None) -> date:
        """The day of a moment or of now, as it is everywhere in a workspace: the one in UTC."""
        return (moment or self._kernel.clock.now()).date()

    def _asked(self, contract_id: str) -> Asked:
        return Asked(self._day(), current_caller().actor, contract_id)

    async def _execute(self, contract_id: str, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on a contract and answers with what became of it."""
        asked = self._asked(contract_id)

        def respond(decided: Decided[State]) -> M:
            contract = contract_of(contract_id, decided, asked.today)
            return response(contract=contract, write_token=decided.write_token)

        decider = decider_for(asked)
        return await self._kernel.commands.execute(decider, contract_id, command, respond)
