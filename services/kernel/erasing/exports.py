"""Exports: everything that a service holds about a person, as identity asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.json_format import MessageToJson

from rapport.common.v1 import subjects_pb2 as pb
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceServicer
from services.kernel.erasing.subjects import Subject, hash_key_of
from services.kernel.errors import Unimplemented
from services.kernel.log.log import READ_BATCH_SIZE, envelope_of, read_stream
from services.kernel.log.recorded import short_type, timestamp_of
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from asyncpg import Pool

    from services.kernel.log.recorded import EventTypes, Recorded

LOG = "log"
RECORDS_PER_RESPONSE_MAX = 100
SEARCH_TIMEOUT_S = 600.0

_SAYING = """
select * from kernel.events
where workspace = $1 and erasure is null and exists (
    select from unnest($2::text[]) said where position(convert_to(said, 'UTF8') in data) > 0
)
order by partition, position
"""


class Exports(Protocol):
    """What can be told of what a service holds about people."""

    def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[pb.SubjectRecord]]:
        """Everything that is held about a person, in parts."""
        ...


class ExportingServicer(SubjectsServiceServicer):
    """What a service answers about people's data that can be told, and not be erased yet."""

    def __init__(self, pool: Pool, exports: Exports, derive_key: Callable[[str], bytes]) -> None:
        self._pool = pool
        self._exports = exports
        self._derive_key = derive_key

    async def ExportSubject(
        self, request: pb.ExportSubjectRequest, _: Any
    ) -> AsyncIterator[pb.ExportSubjectResponse]:
        workspace = current_caller().workspace
        key = hash_key_of(self._derive_key, workspace)
        known = [(known.type, known.value) for known in request.identifiers]
        parts = self._exports.export(self._pool, Subject.of(workspace, key, known))
        async for records in parts:
            for start in range(0, len(records), RECORDS_PER_RESPONSE_MAX):
                some = records[start : start + RECORDS_PER_RESPONSE_MAX]
                yield pb.ExportSubjectResponse(records=some)

    async def PreviewSubjectErasure(
        self, _request: pb.PreviewSubjectErasureRequest, _: Any
    ) -> pb.PreviewSubjectErasureResponse:
        raise Unimplemented("PreviewSubjectErasure")

    async def EraseSubject(
        self, _request: pb.EraseSubjectRequest, _: Any
    ) -> pb.EraseSubjectResponse:
        raise Unimplemented("EraseSubject")

    async def ListSubjectErasures(
        self, _request: pb.ListSubjectErasuresRequest, _: Any
    ) -> pb.ListSubjectErasuresResponse:
        raise Unimplemented("ListSubjectErasures")


async def streams_told(
    pool: Pool, event_types: EventTypes, workspace: str, streams: Iterable[tuple[str, str]]
) -> AsyncIterator[Sequence[pb.SubjectRecord]]:
    """Tells what is left in the log of streams; each comes with the resource it belongs to."""
    for stream, resource in streams:
        version = 0
        while batch := await read_stream(pool, workspace, stream, after_version=version):
            yield [told(event, resource) for event in event_types.decode_all(batch)]
            version = batch[-1].version
            if len(batch) < READ_BATCH_SIZE:
                break


def told(event: Recorded, resource: str) -> pb.SubjectRecord:
    """Tells of a fact in the log."""
    return pb.SubjectRecord(
        system=LOG,
        resource=resource,
        kind=short_type(event.type),
        occur_time=timestamp_of(event.occur_time),
        record_time=timestamp_of(event.record_time),
        content=MessageToJson(event.event, indent=None),
    )


async def facts_naming(
    pool: Pool, event_types: EventTypes, workspace: str, values: Sequence[str]
) -> AsyncIterator[list[Recorded]]:
    """The facts of the log that say any of these values in some field, in order.

    It takes long: the whole log is looked through.
    """
    quoted = [f'"{value}"' for value in values]
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        rows = connection.cursor(
            _SAYING, workspace, list(values), prefetch=READ_BATCH_SIZE, timeout=SEARCH_TIMEOUT_S
        )
        batch = []
        async for row in rows:
            batch.append(envelope_of(row))
            if len(batch) == READ_BATCH_SIZE:
                yield _saying(event_types.decode_all(batch), quoted)
                batch = []
    yield _saying(event_types.decode_all(batch), quoted)


def _saying(events: Iterable[Recorded], quoted: Iterable[str]) -> list[Recorded]:
    """Those of some events that say a value as a whole."""
    return [
        event
        for event in events
        if any(value in MessageToJson(event.event, indent=None) for value in quoted)
    ]
