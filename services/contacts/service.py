"""What contacts answer: each RPC executes a command or asks a question."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ArchiveContactResponse,
    ChangeContactEmailRequest,
    ChangeContactEmailResponse,
    CreateContactRequest,
    CreateContactResponse,
    GetContactRequest,
    GetContactResponse,
    ListContactHistoryRequest,
    ListContactHistoryResponse,
    ListContactsRequest,
    ListContactsResponse,
    RenameContactRequest,
    RenameContactResponse,
    WatchContactsRequest,
    WatchContactsResponse,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceServicer
from services.contacts.decider import DECIDER, Command, State
from services.contacts.projections import (
    CONTACT_ROWS,
    FIELDS,
    ContactsView,
    Row,
    changed_contacts,
    contact_of,
    list_contacts,
    list_history,
)
from services.kernel.command.decider import Decided
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller

# As many contacts of the largest size as fit into one response.
TOLD_AT_ONCE_MAX = 30

M = TypeVar("M", bound=Message)


class ContactsService(ContactsServiceServicer):
    """Contacts of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def CreateContact(self, request: CreateContactRequest, _: Any) -> CreateContactResponse:
        contact_id = request.contact_id or str(self._kernel.new_id())
        return await self._execute(contact_id, request, CreateContactResponse)

    async def RenameContact(self, request: RenameContactRequest, _: Any) -> RenameContactResponse:
        contact_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contact_id, request, RenameContactResponse)

    async def ChangeContactEmail(
        self, request: ChangeContactEmailRequest, _: Any
    ) -> ChangeContactEmailResponse:
        contact_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contact_id, request, ChangeContactEmailResponse)

    async def ArchiveContact(
        self, request: ArchiveContactRequest, _: Any
    ) -> ArchiveContactResponse:
        contact_id = DECIDER.aggregate_id(request.name)
        return await self._execute(contact_id, request, ArchiveContactResponse)

    async def GetContact(self, request: GetContactRequest, _: Any) -> GetContactResponse:
        await self._kernel.freshness.wait(ContactsView.name, request.read_token)
        row = await self._existing(request.name)
        return GetContactResponse(contact=contact_of(row.aggregate_id, row))

    async def ListContacts(self, request: ListContactsRequest, _: Any) -> ListContactsResponse:
        await self._kernel.freshness.wait(ContactsView.name, request.read_token)
        return await list_contacts(self._kernel.pool, current_caller().workspace, request)

    async def ListContactHistory(
        self, request: ListContactHistoryRequest, _: Any
    ) -> ListContactHistoryResponse:
        row = await self._existing(request.name)
        return await list_history(self._kernel.pool, self._kernel.event_types, row, request)

    async def WatchContacts(
        self, request: WatchContactsRequest, _: Any
    ) -> AsyncIterator[WatchContactsResponse]:
        wanted = FIELDS.filter(request.filter)
        workspace = current_caller().workspace
        after = await self._kernel.follower.begin(self._kernel.log.service, request.resume_token)
        token = self._resume_token(after)
        # Tells at once where the watch begins, so that who loses it early can resume, too.
        yield WatchContactsResponse(resume_token=token)
        async for events, reached in self._kernel.follower.follow(workspace, after):
            contacts = await changed_contacts(self._kernel.pool, workspace, events, wanted)
            for start in range(0, len(contacts), TOLD_AT_ONCE_MAX):
                told = contacts[start : start + TOLD_AT_ONCE_MAX]
                if told[-1] is contacts[-1]:
                    token = self._resume_token(reached)
                yield WatchContactsResponse(contacts=told, resume_token=token)

    async def _execute(self, contact_id: str, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on a contact and answers with what became of it."""

        def respond(decided: Decided[State]) -> M:
            return response(
                contact=contact_of(contact_id, decided), write_token=decided.write_token
            )

        return await self._kernel.commands.execute(DECIDER, contact_id, command, respond)

    async def _existing(self, name: str) -> Row:
        return await CONTACT_ROWS.existing(self._kernel.pool, current_caller().workspace, name)

    def _resume_token(self, reached: dict[int, int]) -> str:
        return encode_write_token(self._kernel.log.service, reached)
