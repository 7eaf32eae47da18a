"""The files of imports, as they are uploaded: part after part, until the import has ended.

A part never changes once it is there, so what is read of a file is the same each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.events.deciders.import_job import OPEN
from services.kernel.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool

    from services.kernel.log.sql import Tx

TABLES = """
create schema if not exists importing;
create table if not exists importing.chunks (
    workspace text not null,
    import_id text collate "C" not null,
    begin_bytes bigint not null,
    end_bytes bigint not null,
    chunk bytea not null,
    primary key (workspace, import_id, begin_bytes)
);
alter table importing.chunks alter column chunk set storage external;
"""

_ADD_CHUNK = """
insert into importing.chunks (workspace, import_id, begin_bytes, end_bytes, chunk)
select $1, $2, $3::bigint, $3::bigint + length($4::bytea), $4::bytea
where $3::bigint = coalesce(
    (select max(end_bytes) from importing.chunks where workspace = $1 and import_id = $2), 0
)
on conflict do nothing
"""

_SAME_CHUNK = """
select from importing.chunks
where workspace = $1 and import_id = $2 and begin_bytes = $3 and chunk = $4
"""

_UPLOADED = """
select import_id, max(end_bytes) as uploaded_bytes from importing.chunks
where workspace = $1 and import_id = any($2::text[]) group by import_id
"""

_NEXT_CHUNK = """
select chunk from importing.chunks where workspace = $1 and import_id = $2 and begin_bytes = $3
"""

_LAST_CHUNKS = """
select chunk from importing.chunks where workspace = $1 and import_id = $2 and end_bytes > $3
order by begin_bytes
"""

_DROP_FILE = "delete from importing.chunks where workspace = $1 and import_id = $2"

_SIZE = """
select coalesce(sum(end_bytes - begin_bytes), 0)::bigint from importing.chunks
where workspace = $1 and import_id = $2
"""

_DROP_STAGED = "delete from importing.chunks where workspace = $1 and import_id like '%~' || $2"

_PUT_IN_PLACE = """
update importing.chunks set import_id = $2 where workspace = $1 and import_id = $3
"""

_ENDED_FILE = f"""
select distinct c.workspace, c.import_id
from importing.chunks c join imports.imports i using (workspace, import_id)
where i.state not in {OPEN} limit 1
"""

_DROP_CHUNKS = """
delete from importing.chunks where (workspace, import_id, begin_bytes) in (
    select workspace, import_id, begin_bytes from importing.chunks
    where workspace = $1 and import_id = $2 limit $3
)
"""


async def add_chunk(
    pool: Pool, workspace: str, import_id: str, begin_bytes: int, chunk: bytes
) -> bool:
    """Adds the next part of a file; false when it lies elsewhere or is another than was added."""
    key = workspace, import_id, begin_bytes
    if await pool.execute(_ADD_CHUNK, *key, chunk) == "INSERT 0 1":
        return True
    return bool(await pool.fetch(_SAME_CHUNK, *key, chunk))


async def uploaded_bytes(pool: Pool, workspace: str, import_ids: Sequence[str]) -> dict[str, int]:
    """How much of the files of imports is there."""
    rows = await pool.fetch(_UPLOADED, workspace, import_ids)
    return {row["import_id"]: row["uploaded_bytes"] for row in rows}


async def chunk_at(pool: Pool, workspace: str, import_id: str, begin_bytes: int) -> bytes | None:
    """The part of a file that begins there."""
    found: bytes | None = await pool.fetchval(_NEXT_CHUNK, workspace, import_id, begin_bytes)
    return found


async def tail_of(pool: Pool, workspace: str, import_id: str, after_bytes: int) -> bytes:
    """The last parts of a file, which hold all that comes after a place in it."""
    rows = await pool.fetch(_LAST_CHUNKS, workspace, import_id, after_bytes)
    return b"".join(row["chunk"] for row in rows)


async def drop_file(connection: Tx | Pool, workspace: str, import_id: str) -> bool:
    """Drops a file as a whole; tells whether there was any of it."""
    return await connection.execute(_DROP_FILE, workspace, import_id) != "DELETE 0"


def staged_id(import_id: str, why: str) -> str:
    """The id under which a file is added that shall take the place of an import's."""
    return f"{import_id}~{why}"


async def put_in_place(
    tx: Tx, workspace: str, import_id: str, staged: str, size_bytes: int
) -> None:
    """Puts a file that was staged in place of an import's; Aborted if it is not whole."""
    if await tx.fetchval(_SIZE, workspace, staged) != size_bytes:
        raise Aborted.conflict(f"the file of imports/{import_id} is put in place by another, too")
    await drop_file(tx, workspace, import_id)
    await tx.execute(_PUT_IN_PLACE, workspace, import_id, staged)


async def drop_staged(pool: Pool, workspace: str, why: str) -> None:
    """Drops what was staged in vain."""
    await pool.execute(_DROP_STAGED, workspace, why)


async def drop_ended_file(pool: Pool, chunks_max: int) -> bool:
    """Drops a part of a file whose import has ended; tells whether there was any."""
    ended = await pool.fetchrow(_ENDED_FILE)
    if ended is None:
        return False
    await pool.execute(_DROP_CHUNKS, ended["workspace"], ended["import_id"], chunks_max)
    return True
