"""The idempotency record: the first response to a request_id is the response for ever."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any

from services.kernel.errors import FailedPrecondition, InvalidArgument, Reason
from services.kernel.log.sql import Statement, Tx, columns

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from asyncpg import Record
    from google.protobuf.message import Message

    from services.kernel.command.work import Change, Work

_LOAD = """
select r.workspace, r.request_id, r.method, r.fingerprint, r.response
from kernel.requests r
join unnest($1::text[], $2::text[]) asked(workspace, request_id) using (workspace, request_id)
"""

_SAVE = """
insert into kernel.requests (workspace, request_id, method, fingerprint, response, record_time,
                             unchanged)
select workspace, request_id, method, fingerprint, response, record_time,
       string_to_array(unchanged, E'\\n')
from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::timestamptz[],
            $7::text[])
     asked (workspace, request_id, method, fingerprint, response, record_time, unchanged)
"""


async def load_answered(tx: Tx, works: Sequence[Work]) -> dict[tuple[str, str], Record]:
    """The records of those works whose (workspace, request_id) was answered before."""
    asked = [(w.origin.workspace, w.request.request_id) for w in works if w.request]
    if not asked:
        return {}
    rows = await tx.fetch(_LOAD, *columns(asked))
    return {(row["workspace"], row["request_id"]): row for row in rows}


def first_response(work: Work, answered: dict[tuple[str, str], Record]) -> Message | None:
    """The response this work's request_id got the first time, or None.

    Raises InvalidArgument when the id was used for another request, FailedPrecondition when what
    it did was erased.
    """
    if work.request is None:
        return None
    request_id = work.request.request_id
    row = answered.get((work.origin.workspace, request_id))
    if row is None:
        return None
    if not row["response"]:
        message = "what this request did was erased since"
        raise FailedPrecondition(message, resource=f"requests/{request_id}", state="ERASED")
    if (row["method"], row["fingerprint"]) != (work.request.method, work.request.fingerprint):
        raise InvalidArgument.of(
            "request_id",
            "was used before for another request; use a new UUID for each request",
            reason=Reason.REQUEST_ID_REUSED,
            metadata={"request_id": request_id, "method": row["method"]},
        )
    packed = Any.FromString(row["response"])
    descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    response: Message = message_factory.GetMessageClass(descriptor)()
    packed.Unpack(response)
    return response


def saved_responses(
    responses: Sequence[tuple[Work, Message, Sequence[Change]]], record_time: datetime
) -> list[Statement]:
    """What remembers the responses of works with a request_id, in one order for all processes.

    No event leads from streams that a work left `unchanged` to what its response says of them.
    """
    rows = []
    for work, response, changes in responses:
        if work.request is None:
            continue
        packed = Any()
        packed.Pack(response, deterministic=True)
        rows.append(
            (
                work.origin.workspace,
                work.request.request_id,
                work.request.method,
                work.request.fingerprint,
                packed.SerializeToString(deterministic=True),
                record_time,
                _lines(work.shapes.keys() - {change.append.stream for change in changes}),
            )
        )
    return [Statement(_SAVE, columns(sorted(rows, key=itemgetter(0, 1))))] if rows else []


def _lines(streams: Collection[str]) -> str | None:
    """Streams as one text, for an array cannot hold arrays; None for none."""
    return "\n".join(sorted(streams)) or None
