"""People who are erased from a running service, and where anything of them may be left."""

from __future__ import annotations

import uuid

from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.subjects_pb2 import (
    ERASURE_STAGE_BYTES,
    EraseSubjectRequest,
    FactKey,
    SubjectIdentifier,
)
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from services.kernel.clock import SystemClock

LAST_ID = uuid.UUID(int=2**128 - 1)
STEP_TIMEOUT_S = 30.0

TABLES = """
select format('%I.%I', n.nspname, c.relname) as name from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)' order by 1
"""


def key_of(moment=None, event_id=LAST_ID):
    """The key of all that was received until a moment, now when it is not said."""
    time = Timestamp()
    time.FromDatetime(moment or SystemClock().now())
    return FactKey(receive_time=time, event_id=str(event_id))


def subject(**identifiers):
    """Identifiers by type: `subject(user_id="u-1", email="ada@example.org")`."""
    return [SubjectIdentifier(type=name, value=value) for name, value in identifiers.items()]


async def ask(asked, *, name, key, workspace="acme", anonymise=False, **identifiers):
    """Asks for the next steps of an erasure, and answers how far it is."""
    stub = asked.stub(SubjectsServiceStub, workspace=workspace)
    request = EraseSubjectRequest(
        erasure=name, key=key, identifiers=subject(**identifiers), anonymise=anonymise
    )
    return await stub.EraseSubject(request, timeout=STEP_TIMEOUT_S)


async def erase(asked, *, name=None, key=None, **fields):
    """Erases a person until only bytes are left to do, and answers how much went."""
    fields |= {"name": name or f"erasures/{uuid.uuid4()}", "key": key or key_of()}
    while True:
        response = await ask(asked, **fields)
        if response.stage >= ERASURE_STAGE_BYTES:
            return {each.system: each.count for each in response.counts}


async def tables_with(pool, text):
    """The tables with a row that holds a text, in bytes too, which are shown by their digits."""
    forms = [f"%{text}%", f"%{text.encode().hex()}%"]
    found = []
    for table in await pool.fetch(TABLES):
        name = table["name"]
        if await pool.fetchval(
            f"select exists (select from {name} t where t::text ilike any($1::text[]))", forms
        ):
            found.append(name)
    return found
