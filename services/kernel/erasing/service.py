"""What every service answers identity about the data of a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from rapport.common.v1 import subjects_pb2 as pb
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceServicer
from services.kernel.erasing import register
from services.kernel.erasing.subjects import Erasure, FactKey, Subject, hash_key_of
from services.kernel.log.recorded import timestamp_of, utc
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from asyncpg import Pool

    from services.kernel.erasing.holdings import Holdings, Identifier
    from services.kernel.erasing.register import Progress
    from services.kernel.erasing.turns import Turns

RECORDS_PER_RESPONSE_MAX = 100


class SubjectsServicer(SubjectsServiceServicer):
    """The person's data in one service, for the platform alone."""

    def __init__(
        self,
        pool: Pool,
        holdings: Holdings,
        turns: Turns,
        derive_key: Callable[[str], bytes],
    ) -> None:
        self._pool = pool
        self._holdings = holdings
        self._turns = turns
        self._derive_key = derive_key

    async def ExportSubject(
        self, request: pb.ExportSubjectRequest, _: Any
    ) -> AsyncIterator[pb.ExportSubjectResponse]:
        subject = self._subject(request.identifiers)
        async for records in self._holdings.export(self._pool, subject):
            for start in range(0, len(records), RECORDS_PER_RESPONSE_MAX):
                some = records[start : start + RECORDS_PER_RESPONSE_MAX]
                yield pb.ExportSubjectResponse(records=some)

    async def PreviewSubjectErasure(
        self, request: pb.PreviewSubjectErasureRequest, _: Any
    ) -> pb.PreviewSubjectErasureResponse:
        found = await self._holdings.preview(self._pool, self._subject(request.identifiers))
        return pb.PreviewSubjectErasureResponse(
            counts=_counts(found.counts), also=_identifiers(found.also)
        )

    async def EraseSubject(
        self, request: pb.EraseSubjectRequest, _: Any
    ) -> pb.EraseSubjectResponse:
        erasure = Erasure(
            name=request.erasure,
            subject=self._subject(request.identifiers, request.hashes),
            key=FactKey(utc(request.key.receive_time), UUID(request.key.event_id)),
            nodes=tuple(request.nodes),
            anonymises=request.anonymise,
        )
        progress = await self._turns.take(erasure)
        return pb.EraseSubjectResponse(
            finished=progress.is_finished,
            counts=_counts(progress.counts),
            also=_identifiers(progress.also),
            stage=progress.stage,
            problem=progress.problem,
            notes=progress.notes,
        )

    async def ListSubjectErasures(
        self, request: pb.ListSubjectErasuresRequest, _: Any
    ) -> pb.ListSubjectErasuresResponse:
        workspace = current_caller().workspace
        listed = await register.list_erasures(self._pool, workspace, request.after)
        return pb.ListSubjectErasuresResponse(erasures=map(_registered, listed))

    def _subject(
        self, identifiers: Iterable[pb.SubjectIdentifier], hashes: Sequence[str] = ()
    ) -> Subject:
        workspace = current_caller().workspace
        return Subject.of(
            workspace,
            hash_key_of(self._derive_key, workspace),
            [(known.type, known.value) for known in identifiers],
            hashes,
        )


def _registered(progress: Progress) -> pb.RegisteredErasure:
    return pb.RegisteredErasure(
        erasure=progress.name,
        key=pb.FactKey(
            receive_time=timestamp_of(progress.key.receive_time),
            event_id=str(progress.key.event_id),
        ),
        hashes=progress.hashes,
        nodes=progress.nodes,
        finished=progress.is_finished,
    )


def _counts(counts: Mapping[str, int]) -> list[pb.ErasedCount]:
    return [pb.ErasedCount(system=name, count=count) for name, count in sorted(counts.items())]


def _identifiers(found: Iterable[Identifier]) -> list[pb.SubjectIdentifier]:
    return [pb.SubjectIdentifier(type=name, value=value) for name, value in sorted(found)]
