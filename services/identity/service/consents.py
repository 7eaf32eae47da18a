"""What identity is told and asked about consent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.identity.v1 import consents_pb2 as pb
from rapport.identity.v1.consents_pb2_grpc import ConsentsServiceServicer
from rapport.identity.v1.events_pb2 import ConsentDenied, ConsentGranted, ConsentWithdrawn
from services.identity.consents import FACTS, is_allowed
from services.identity.deciders import consent, purpose
from services.identity.projections import ProfilesView
from services.identity.projections.consent_answers import (
    consent_of,
    consents_of,
    find_person,
    list_consent_words,
    profile_name,
)
from services.identity.projections.purposes import (
    PURPOSE_ROWS,
    PurposesView,
    active_purpose,
    count_purposes,
    list_purposes,
    purpose_of,
)
from services.kernel.command.decider import Decided
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import moment_in

M = TypeVar("M", bound=Message)
Dated = pb.GetPreferencesRequest | pb.CheckConsentRequest
Said = ConsentGranted | ConsentDenied | ConsentWithdrawn


class ConsentsService(ConsentsServiceServicer):
    """Purposes and consents of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def CreatePurpose(
        self, request: pb.CreatePurposeRequest, _: Any
    ) -> pb.CreatePurposeResponse:
        count = await count_purposes(self._kernel.pool, current_caller().workspace)
        decider = purpose.decider_with(count)

        def respond(decided: Decided[purpose.State]) -> pb.CreatePurposeResponse:
            return pb.CreatePurposeResponse(
                purpose=purpose_of(request.purpose_id, decided), write_token=decided.write_token
            )

        return await self._kernel.commands.execute(decider, request.purpose_id, request, respond)

    async def ArchivePurpose(
        self, request: pb.ArchivePurposeRequest, _: Any
    ) -> pb.ArchivePurposeResponse:
        purpose_id = purpose.DECIDER.aggregate_id(request.name)

        def respond(decided: Decided[purpose.State]) -> pb.ArchivePurposeResponse:
            return pb.ArchivePurposeResponse(
                purpose=purpose_of(purpose_id, decided), write_token=decided.write_token
            )

        return await self._kernel.commands.execute(purpose.DECIDER, purpose_id, request, respond)

    async def GetPurpose(self, request: pb.GetPurposeRequest, _: Any) -> pb.GetPurposeResponse:
        await self._kernel.freshness.wait(PurposesView.name, request.read_token)
        workspace = current_caller().workspace
        found = await PURPOSE_ROWS.existing(self._kernel.pool, workspace, request.name)
        return pb.GetPurposeResponse(purpose=purpose_of(found.aggregate_id, found))

    async def ListPurposes(
        self, request: pb.ListPurposesRequest, _: Any
    ) -> pb.ListPurposesResponse:
        await self._kernel.freshness.wait(PurposesView.name, request.read_token)
        return await list_purposes(self._kernel.pool, current_caller().workspace, request)

    async def GrantConsent(
        self, request: pb.GrantConsentRequest, _: Any
    ) -> pb.GrantConsentResponse:
        return await self._record(request, pb.GrantConsentResponse)

    async def DenyConsent(self, request: pb.DenyConsentRequest, _: Any) -> pb.DenyConsentResponse:
        return await self._record(request, pb.DenyConsentResponse)

    async def WithdrawConsent(
        self, request: pb.WithdrawConsentRequest, _: Any
    ) -> pb.WithdrawConsentResponse:
        return await self._record(request, pb.WithdrawConsentResponse)

    async def GetPreferences(
        self, request: pb.GetPreferencesRequest, _: Any
    ) -> pb.GetPreferencesResponse:
        moment = await self._moment(request)
        workspace = current_caller().workspace
        person, found = await consents_of(self._kernel.pool, workspace, request.name, moment)
        now = moment or self._kernel.clock.now()
        return pb.GetPreferencesResponse(
            profile=profile_name(person),
            consents=[consent_of(each, stands, now) for each, stands in found],
        )

    async def CheckConsent(
        self, request: pb.CheckConsentRequest, _: Any
    ) -> pb.CheckConsentResponse:
        moment = await self._moment(request)
        pool, workspace = self._kernel.pool, current_caller().workspace
        _person, [(asked, stands)] = await consents_of(
            pool, workspace, request.name, moment, request.purpose
        )
        now = moment or self._kernel.clock.now()
        return pb.CheckConsentResponse(
            is_allowed=is_allowed(asked.basis, stands.at(now)),
            consent=consent_of(asked, stands, now),
        )

    async def ListConsentWords(
        self, request: pb.ListConsentWordsRequest, _: Any
    ) -> pb.ListConsentWordsResponse:
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        return await list_consent_words(self._kernel.pool, current_caller().workspace, request)

    async def _record(self, command: consent.Command, response: Callable[..., M]) -> M:
        """Records what a person said, under all identifiers that their profile has now."""
        pool, caller = self._kernel.pool, current_caller()
        workspace = caller.workspace
        person = await find_person(pool, workspace, command.name)
        about = await active_purpose(pool, workspace, command.purpose)
        asked = consent.Asked(about, person.identifiers, self._kernel.clock.now())

        def respond(decided: Decided[consent.State]) -> M:
            [said] = decided.events
            assert isinstance(said, Said)
            word = pb.ConsentWord(
                purpose=said.purpose,
                status=pb.ConsentStatus.ValueType(FACTS[type(said)]),
                occur_time=said.occur_time,
                receive_time=timestamp_of(decided.update_time),
                source=said.source,
                actor=caller.actor,
                identifier_types=[known.type for known in said.identifiers],
                etag=decided.etag,
            )
            if isinstance(said, ConsentGranted) and said.HasField("expire_time"):
                word.expire_time.CopyFrom(said.expire_time)
            return response(word=word, write_token=decided.write_token)

        decider = consent.decider_about(asked)
        node = person.identifiers[0].node
        return await self._kernel.commands.execute(decider, node, command, respond)

    async def _moment(self, request: Dated) -> datetime | None:
        """Waits for the view, and returns the moment that is asked about; None is now."""
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        if not request.HasField("read_time"):
            return None
        return moment_in(request.read_time, "read_time")
