"""Building a view from all of its events at once: in memory, and written by COPY.

A view that offers it is built so while its generation is empty and its logs are not too long; all
of it is one transaction, so what is stopped begins anew. What comes later is folded as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

# What COPY and the building of an index may take: far more than a statement of a request.
BULK_STATEMENT_TIMEOUT_S = 3_600.0
# How long all is put together in memory, at most, while the transaction waits for it.
BULK_IDLE_MAX_S = 1_800
INDEX_MEMORY_MB = 256

_PREPARE = f"""
set local idle_in_transaction_session_timeout = '{BULK_IDLE_MAX_S}s';
set local maintenance_work_mem = '{INDEX_MEMORY_MB}MB'
"""

_CONSTRAINTS = """
select conrelid::regclass::text as table, quote_ident(conname) as name,
    pg_get_constraintdef(oid) as definition
from pg_constraint
where connamespace = $1::regnamespace and contype in ('p', 'u') order by conrelid, conname
"""

_INDEXES = """
select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition
from pg_index i join pg_class c on c.oid = i.indexrelid
where c.relnamespace = $1::regnamespace
    and not exists (select from pg_constraint where conindid = i.indexrelid)
order by 1
"""


class TooMuchForBulkError(Exception):
    """When what is to be built holds too much of something, and is to be folded as ever."""


class Bulk(Protocol):
    """All of a view in the making; `heeds` are the full names of the types of events it reads."""

    @property
    def heeds(self) -> frozenset[str]: ...

    async def add(self, events: Sequence[Recorded]) -> None:
        """Take the next events, in order per partition; may raise TooMuchForBulkError."""
        ...

    async def finish(self) -> None:
        """Write the rows as folding the same events would have left them."""
        ...


@runtime_checkable
class BuildsInBulk(Protocol):
    """A view that can be built in bulk from at most so many events, which bounds its memory."""

    @property
    def events_in_bulk_max(self) -> int: ...

    def bulk(self, tx: Tx, schema: str) -> Bulk:
        """Begin in the empty tables of a schema."""
        ...


async def drop_indexes(tx: Tx, schema: str) -> list[str]:
    """Drop keys and indexes of a schema's tables; answers the statements that make them again."""
    await tx.execute(_PREPARE)
    again = []
    for row in await tx.fetch(_CONSTRAINTS, schema):
        await tx.execute(f"alter table {row['table']} drop constraint {row['name']}")
        again.append(f"alter table {row['table']} add constraint {row['name']} {row['definition']}")
    for row in await tx.fetch(_INDEXES, schema):
        await tx.execute(f"drop index {row['name']}")
        again.append(row["definition"])
    return again


async def make_indexes(tx: Tx, again: Sequence[str]) -> None:
    """Make keys and indexes that were dropped."""
    for statement in again:
        await tx.execute(statement, timeout=BULK_STATEMENT_TIMEOUT_S)
