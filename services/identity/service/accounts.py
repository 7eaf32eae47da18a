"""What identity answers about accounts, and who is and was in them."""

from __future__ import annotations

from typing import Any

from rapport.identity.v1 import accounts_pb2 as pb
from rapport.identity.v1.accounts_pb2_grpc import AccountsServiceServicer
from services.identity.projections import ProfilesView
from services.identity.projections.account_answers import (
    get_account,
    list_accounts,
    list_memberships,
)
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller


class AccountsService(AccountsServiceServicer):
    """Accounts of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def GetAccount(self, request: pb.GetAccountRequest, _: Any) -> pb.GetAccountResponse:
        workspace = await self._fresh_workspace(request.read_token)
        account = await get_account(self._kernel.pool, workspace, request.name)
        return pb.GetAccountResponse(account=account)

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, _: Any
    ) -> pb.ListAccountsResponse:
        workspace = await self._fresh_workspace(request.read_token)
        return await list_accounts(self._kernel.pool, workspace, request)

    async def ListMemberships(
        self, request: pb.ListMembershipsRequest, _: Any
    ) -> pb.ListMembershipsResponse:
        workspace = await self._fresh_workspace(request.read_token)
        return await list_memberships(self._kernel.pool, workspace, request)

    async def _fresh_workspace(self, read_token: str) -> str:
        """Waits for the view, then names the workspace that a call is confined to."""
        await self._kernel.freshness.wait(ProfilesView.name, read_token)
        return current_caller().workspace
