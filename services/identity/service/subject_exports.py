"""What identity answers to a person who wants to know what is held about them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from rapport.common.v1 import subjects_pb2
from rapport.common.v1.subjects_pb2 import ExportSubjectRequest, SubjectIdentifier, SubjectRecord
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.identity.v1 import subject_exports_pb2 as pb
from rapport.identity.v1.subject_exports_pb2_grpc import SubjectExportsServiceServicer
from services.identity.documents import Held, first_line, last_line, record_line
from services.identity.projections import ProfilesView
from services.identity.projections.consent_answers import find_person, profile_name
from services.identity.projections.person_records import (
    identifiers_of,
    person_records,
    profiles_of,
)
from services.kernel.errors import Unavailable, Unimplemented
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import INTERNAL_SCOPE, acting_as, current_caller, own_caller

BYTES_PER_RESPONSE_MAX = 256 * 1024
EXPORT_TIMEOUT_S = 900.0

ACTOR = "services/identity"
OWN, SEGMENTS = "identity", "segments"
OTHERS = ("contacts", "deals", "events", SEGMENTS)
"""Who holds data about people besides identity, in the order of the document."""

_SUBJECTS = [subjects_pb2.DESCRIPTOR.services_by_name["SubjectsService"]]


class SubjectExportsService(SubjectExportsServiceServicer):
    """Exports of people's data of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def ExportSubjectData(
        self, request: pb.ExportSubjectDataRequest, _: Any
    ) -> AsyncIterator[pb.ExportSubjectDataResponse]:
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        pool, workspace = self._kernel.pool, current_caller().workspace
        person = await find_person(pool, workspace, request.name)
        identifiers = await identifiers_of(pool, workspace, person, request.name)
        now = self._kernel.clock.now()
        lines = [first_line(request.name, profile_name(person), identifiers, now)]
        held, size = Held(), 0
        for service in (OWN, *OTHERS):
            if service == OWN:
                parts = person_records(pool, self._kernel.event_types, workspace, person)
            else:
                known = profiles_of(person) if service == SEGMENTS else identifiers
                parts = self._ask(workspace, service, known)
            async for records in parts:
                for record in records:
                    held[service, record.system] += 1
                    lines.append(record_line(service, record))
                    size += len(lines[-1])
                    if size > BYTES_PER_RESPONSE_MAX:
                        yield pb.ExportSubjectDataResponse(json_lines="".join(lines))
                        lines, size = [], 0
        lines.append(last_line(held))
        counts = [
            pb.HeldCount(service=service, system=system, count=count)
            for (service, system), count in sorted(held.items())
        ]
        yield pb.ExportSubjectDataResponse(json_lines="".join(lines), counts=counts)

    async def _ask(
        self, workspace: str, service: str, identifiers: Sequence[tuple[str, str]]
    ) -> AsyncIterator[Sequence[SubjectRecord]]:
        """Asks another service; one that cannot tell fails the whole document, by its name."""
        peers = self._kernel.peers
        channel = None if peers is None else peers.channel(service, _SUBJECTS)
        if channel is None:
            raise Unavailable(service, message=f"nobody said where {service} is")
        known = [SubjectIdentifier(type=name, value=value) for name, value in identifiers]
        caller = own_caller(
            ACTOR,
            clock=self._kernel.clock,
            scopes=frozenset({INTERNAL_SCOPE}),
            workspace=workspace,
        )
        try:
            # Who asks is told with the first answer; what is around the rest is the call's own.
            request = ExportSubjectRequest(identifiers=known)
            stub: Any = SubjectsServiceStub(channel)
            async with aclosing(stub.ExportSubject(request, timeout=EXPORT_TIMEOUT_S)) as answers:
                with acting_as(caller):
                    answer = await anext(answers, None)
                while answer is not None:
                    yield answer.records
                    answer = await anext(answers, None)
        except Unimplemented as error:
            message = f"{service} cannot tell what it holds"
            raise Unavailable(service, message=message) from error
