"""How far the work with an import got, and what was wrong with its rows.

No view: it is written where the work is done. Progress belongs to a worker by lease and is fenced
by epoch, as a checkpoint is; the heads that the log had when it was last saved tell what this
import has recorded since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from rapport.events.v1.import_job_pb2 import ImportCounts
from rapport.events.v1.imports_pb2 import (
    ImportRowError,
    ListImportRowErrorsResponse,
)
from rapport.events.v1.service_pb2 import ReceiptOutcome
from services.events.deciders.import_job import AT_WORK
from services.events.projections.uploads import uploaded_bytes
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.sql import columns
from services.kernel.views.checkpoint import FencedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool

    from rapport.events.v1.imports_pb2 import ListImportRowErrorsRequest
    from services.events.import_files import RowError
    from services.kernel.log.sql import Tx

TABLES = """
create schema if not exists importing;
create table if not exists importing.progress (
    workspace text not null,
    import_id text collate "C" not null,
    work text not null,
    attempt int not null,
    rows bigint not null default 0,
    accepted bigint not null default 0,
    duplicate bigint not null default 0,
    refused bigint not null default 0,
    quarantined bigint not null default 0,
    sampled_out bigint not null default 0,
    unmapped bigint not null default 0,
    retracted bigint not null default 0,
    read_bytes bigint not null default 0,
    busy_s double precision not null default 0,
    is_over boolean not null default false,
    after_message_id text collate "C" not null default '',
    heads bigint[] not null,
    failures int not null default 0,
    epoch bigint not null default 1,
    owner text not null,
    lease_until timestamptz not null,
    primary key (workspace, import_id, work)
);
create table if not exists importing.row_errors (
    workspace text not null,
    import_id text collate "C" not null,
    work text not null,
    row_key text collate "C" not null,
    row bigint not null,
    column_name text collate "C",
    reason text collate "C" not null,
    detail text not null,
    excerpt text not null,
    outcome int not null,
    primary key (workspace, import_id, work, row_key)
);
"""

_WAITING = f"""
select i.workspace, i.import_id
from imports.imports i
where i.state in {AT_WORK} and not exists (
    select from importing.progress p
    where (p.workspace, p.import_id, p.attempt) = (i.workspace, i.import_id, i.attempt)
      and p.lease_until > now() and not p.is_over
)
order by i.update_time limit $1
"""

_BEGIN = """
delete from importing.progress
where workspace = $1 and import_id = $2 and work = $3 and attempt <> $4
"""

_FORGET_ERRORS = """
delete from importing.row_errors where workspace = $1 and import_id = $2 and work = $3
"""

_CLAIM = """
insert into importing.progress as p (workspace, import_id, work, attempt, heads, owner, lease_until)
select $1, $2, $3, $4, array_agg(position order by partition), $5,
       now() + make_interval(secs => $6)
from kernel.heads
on conflict (workspace, import_id, work) do update
set epoch = p.epoch + 1, owner = excluded.owner, lease_until = excluded.lease_until
where (p.lease_until < now() or p.owner = excluded.owner) and p.attempt = excluded.attempt
returning *
"""

_MINE = """
where workspace = $1 and import_id = $2 and work = $3 and attempt = $4 and epoch = $5
"""

_SAVE = f"""
update importing.progress
set rows = $6, accepted = $7, duplicate = $8, refused = $9, quarantined = $10, sampled_out = $11,
    unmapped = $12, retracted = $13, read_bytes = $14, busy_s = $15, is_over = $16,
    after_message_id = case when $16 then '' else $17 end, failures = 0,
    lease_until = now() + make_interval(secs => $18),
    heads = (select array_agg(position order by partition) from kernel.heads)
{_MINE}
returning heads
"""

_LEASE = f"""
update importing.progress set lease_until = now() + make_interval(secs => $6) {_MINE}
"""

_COUNT_FAILURE = f"""
update importing.progress set failures = failures + 1 {_MINE} returning failures
"""

_ADD_ERRORS = """
insert into importing.row_errors
    (workspace, import_id, work, row_key, row, column_name, reason, detail, excerpt, outcome)
select $1, $2, $3, lpad(row::text, 20, '0'), row, nullif(column_name, ''), reason, detail,
       excerpt, outcome
from unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[])
    as found (row, column_name, reason, detail, excerpt, outcome)
"""

_BLANK_ERRORS = """
update importing.row_errors set excerpt = '', detail = ''
where workspace = $1 and (excerpt <> '' or detail <> '')
"""

_FENCE = """
update importing.progress set epoch = epoch + 1, lease_until = now()
where workspace = $1 and import_id = $2 and not is_over
"""

_COUNT_ERRORS = """
select count(*) from importing.row_errors where workspace = $1 and import_id = $2 and work = $3
"""

_PROGRESS = """
select * from importing.progress where workspace = $1 and import_id = any($2::text[])
"""

_OUTCOMES = {
    "REFUSED": ReceiptOutcome.RECEIPT_OUTCOME_REFUSED,
    "QUARANTINED": ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED,
}

ROW_ERRORS = Listing(
    method="ListImportRowErrors",
    table=Table("importing.row_errors", key="row_key", positions=None),
    columns="row, column_name, reason, detail, excerpt, outcome",
    fields=Fields(
        {
            "row": Field("row", Kind.INTEGER),
            "column": Field("column_name", Kind.TEXT),
            "reason": Field("reason", Kind.TEXT),
            "outcome": Field("outcome", Kind.ENUM, values=_OUTCOMES),
        }
    ),
)
_COUNTED = tuple(ImportCounts.DESCRIPTOR.fields_by_name)


class Work(StrEnum):
    """What a worker does with an import."""

    CHECK = "CHECK"
    RECORD = "RECORD"
    UNDO = "UNDO"


class Job(NamedTuple):
    """One attempt at one work with one import."""

    workspace: str
    import_id: str
    work: Work
    attempt: int


@dataclass(slots=True)
class Progress:
    """How far a work got. Rows are counted up to `counts.rows`; retracting goes by message id.

    Of a worker's own progress, `epoch` is what it owns it by; `heads` are those of the log, by
    partition, when it was last saved.
    """

    counts: ImportCounts = field(default_factory=ImportCounts)
    retracted: int = 0
    read_bytes: int = 0
    busy_s: float = 0.0
    is_over: bool = False
    after_message_id: str = ""
    heads: Sequence[int] = ()
    epoch: int = 0


class FoundError(NamedTuple):
    """A row error, where it was found and what becomes of the row."""

    row: int
    error: RowError
    outcome: ReceiptOutcome.ValueType = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED


@dataclass(slots=True)
class Progresses:
    """What is known of the works with one import, and how much of its file is there."""

    by_work: dict[Work, Progress] = field(default_factory=dict)
    uploaded_bytes: int = 0


async def waiting(pool: Pool, limit: int) -> list[tuple[str, str]]:
    """Imports (workspace, id) with work that nobody does, the one that waits longest first."""
    rows = await pool.fetch(_WAITING, limit)
    return [(row["workspace"], row["import_id"]) for row in rows]


async def claim(tx: Tx, job: Job, owner: str, lease_s: float) -> Progress | None:
    """Takes a job over where its progress stands; None while somebody else has it."""
    if await tx.execute(_BEGIN, *job) != "DELETE 0":
        await tx.execute(_FORGET_ERRORS, *job[:3])
    row = await tx.fetchrow(_CLAIM, *job, owner, lease_s)
    return None if row is None else _progress(row)


async def save(tx: Tx, job: Job, progress: Progress, lease_s: float) -> Sequence[int]:
    """Saves how far a job got and answers the heads, else raises FencedError."""
    counts = [getattr(progress.counts, name) for name in _COUNTED]
    row = await tx.fetchrow(
        _SAVE,
        *job,
        progress.epoch,
        *counts,
        progress.retracted,
        progress.read_bytes,
        progress.busy_s,
        progress.is_over,
        progress.after_message_id,
        lease_s,
    )
    if row is None:
        raise FencedError(f"{job} was taken over")
    heads: Sequence[int] = row["heads"]
    return heads


async def renew(pool: Pool, job: Job, epoch: int, lease_s: float) -> None:
    """Keeps a job while nothing is saved, else raises FencedError."""
    if await pool.execute(_LEASE, *job, epoch, lease_s) != "UPDATE 1":
        raise FencedError(f"{job} was taken over")


async def release(pool: Pool, job: Job, epoch: int, pause_s: float) -> None:
    """Lets another worker take a job over after a pause."""
    await pool.execute(_LEASE, *job, epoch, pause_s)


async def count_failure(pool: Pool, job: Job, epoch: int) -> int:
    """Counts a failure and answers how many there were since something was saved."""
    failures: int | None = await pool.fetchval(_COUNT_FAILURE, *job, epoch)
    return failures or 0


async def add_errors(tx: Tx, job: Job, found: Sequence[FoundError]) -> None:
    """Keeps what was wrong with rows."""
    rows = [
        (row, error.column, error.reason, error.detail, error.excerpt, outcome)
        for row, error, outcome in found
    ]
    if rows:
        await tx.execute(_ADD_ERRORS, *job[:3], *columns(rows))


async def forget_errors(tx: Tx, job: Job) -> None:
    """Forgets what was wrong with rows, as they are read again."""
    await tx.execute(_FORGET_ERRORS, *job[:3])


async def blank_errors(pool: Pool, workspace: str) -> int:
    """Leaves of all row errors of a workspace no word of the rows: nothing says whose they were.

    Which row, which column and why stays. Answers how many said something.
    """
    status: str = await pool.execute(_BLANK_ERRORS, workspace)
    return int(status.rpartition(" ")[2])


async def fence(tx: Tx, workspace: str, import_id: str) -> None:
    """Lets whoever works on an import save nothing any more: what it reads is not there now."""
    await tx.execute(_FENCE, workspace, import_id)


async def count_errors(connection: Tx | Pool, job: Job) -> int:
    """How many rows something was wrong with, as far as that is kept."""
    count: int = await connection.fetchval(_COUNT_ERRORS, *job[:3])
    return count


async def read_progress(
    pool: Pool, workspace: str, import_ids: Sequence[str]
) -> dict[str, Progresses]:
    """How far the works with imports got, by import."""
    found: dict[str, Progresses] = {}
    for row in await pool.fetch(_PROGRESS, workspace, import_ids):
        known = found.setdefault(row["import_id"], Progresses())
        known.by_work[Work(row["work"])] = _progress(row)
    for import_id, length in (await uploaded_bytes(pool, workspace, import_ids)).items():
        found.setdefault(import_id, Progresses()).uploaded_bytes = length
    return found


async def list_row_errors(
    pool: Pool, workspace: str, import_id: str, work: Work, request: ListImportRowErrorsRequest
) -> ListImportRowErrorsResponse:
    """Returns a page of what was wrong with rows, in the order of the file."""
    query = ROW_ERRORS.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
        where={"import_id": import_id, "work": str(work)},
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    errors = [
        ImportRowError(
            row=row["row"],
            column=row["column_name"],
            reason=row["reason"],
            detail=row["detail"],
            excerpt=row["excerpt"],
            outcome=row["outcome"],
        )
        for row in page.rows
    ]
    return ListImportRowErrorsResponse(row_errors=errors, next_page_token=page.next_page_token)


def _progress(row: Any) -> Progress:
    return Progress(
        counts=ImportCounts(**{name: row[name] for name in _COUNTED}),
        retracted=row["retracted"],
        read_bytes=row["read_bytes"],
        busy_s=row["busy_s"],
        is_over=row["is_over"],
        after_message_id=row["after_message_id"],
        heads=row["heads"],
        epoch=row["epoch"],
    )
