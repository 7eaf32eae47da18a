"""The idempotency record: the first response to a request_id is the response for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any

from services.kernel.errors import InvalidArgument, Reason
from services.kernel.log.sql import Statement, Tx, columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncpg import Record
    from google.protobuf.message import Message

    from services.kernel.command.work import Work

_LOAD = """
select r.workspace, r.request_id, r.method, r.fingerprint, r.response
from kernel.requests r
join unnest($1::text[], $2::text[]) asked(workspace, request_id) using (workspace, request_id)
"""

_SAVE = """
insert into kernel.requests (workspace, request_id, method, fingerprint, response, record_time)
select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[],
                     $6::timestamptz[])
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

    Raises InvalidArgument when the id was used for another request.
    """
    if work.request is None:
        return None
    row = answered.get((work.origin.workspace, work.request.request_id))
    if row is None:
        return None
    if (row["method"], row["fingerprint"]) != (work.request.method, work.request.fingerprint):
        raise InvalidArgument.of(
            "request_id",
            "was used before for another request; use a new UUID for each request",
            reason=Reason.REQUEST_ID_REUSED,
            metadata={"request_id": work.request.request_id, "method": row["method"]},
        )
    packed = Any.FromString(row["response"])
    descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    response: Message = message_factory.GetMessageClass(descriptor)()
    packed.Unpack(response)
    return response


def saved_responses(
    responses: Sequence[tuple[Work, Message]], record_time: datetime
) -> list[Statement]:
    """What remembers the responses of works with a request_id, in one order for all processes."""
    rows = []
    for work, response in responses:
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
            )
        )
    return [Statement(_SAVE, columns(sorted(rows)))] if rows else []
