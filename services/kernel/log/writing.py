"""Writes that go on while whoever began them computes: the database has a processor of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from asyncpg import Connection

from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Callable,
        Coroutine,
        Iterable,
        Sequence,
    )

    from services.kernel.log.sql import Tx


class WritingConnection(Connection):
    """A connection on which writes may go on: whatever is asked next waits for them.

    It fails as they did, if they did; a rollback does not.
    """

    __slots__ = ("_writing",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._writing: asyncio.Task[object] | None = None

    def execute_soon(self, query: str, *args: object, timeout_s: float | None = None) -> None:
        """Lets a statement go on, behind what was begun before."""
        self._begin(lambda: Connection.execute(self, query, *args, timeout=timeout_s))

    def copy_soon(self, table: str, **options: Any) -> None:
        """Lets rows be added to a table, behind what was begun before."""
        self._begin(lambda: Connection.copy_records_to_table(self, table, **options))

    def copy_encoded_soon(self, table: str, **options: Any) -> None:
        """Lets rows be added that are encoded already, behind what was begun before."""
        self._begin(lambda: Connection.copy_to_table(self, table, **options))

    async def written(self) -> None:
        """Waits until all is written that was begun."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def _begin(self, write: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._writing = asyncio.create_task(_behind(self._writing, write))
        self._writing.add_done_callback(_see_failure)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        if query.startswith("ROLLBACK"):
            await asyncio.gather(self.written(), return_exceptions=True)
        else:
            await self.written()
        return await super().execute(query, *args, **options)

    async def fetch(self, *args: Any, **options: Any) -> Any:
        await self.written()
        return await super().fetch(*args, **options)

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        await self.written()
        return await super().fetchrow(*args, **options)

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        await self.written()
        return await super().fetchval(*args, **options)

    def cursor(self, *args: Any, **options: Any) -> Any:
        return self._behind_writes(super().cursor(*args, **options))

    async def _behind_writes(self, rows: AsyncIterable[Any]) -> AsyncIterator[Any]:
        each = aiter(rows)
        with suppress(StopAsyncIteration):
            while True:
                await self.written()
                yield await anext(each)

    async def copy_to_table(self, *args: Any, **options: Any) -> str:
        await self.written()
        return await super().copy_to_table(*args, **options)

    async def copy_records_to_table(self, *args: Any, **options: Any) -> str:
        await self.written()
        return await super().copy_records_to_table(*args, **options)


async def leave_as_it_is(_connection: object) -> None:
    """Saves the statement that would clean the session: ours only ever set what is `local`."""


def execute_soon(tx: Tx, query: str, *args: object, timeout_s: float | None = None) -> None:
    """Lets a statement go on that answers nothing; `tx` is a connection of the kernel's pool.

    Whoever computes meanwhile gives way at times (`asyncio.sleep(0)`), else nothing is sent.
    """
    cast("WritingConnection", tx).execute_soon(query, *args, timeout_s=timeout_s)


def copy_soon(
    tx: Tx,
    schema: str,
    table: str,
    rows: Iterable[Sequence[object]],
    columns: Sequence[str] | None = None,
    timeout_s: float | None = None,
) -> None:
    """Lets rows be added to a table, as `execute_soon` lets a statement go on."""
    cast("WritingConnection", tx).copy_soon(
        table, schema_name=schema, columns=columns, records=rows, timeout=timeout_s
    )


def add_rows_soon(tx: Tx, schema: str, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Lets rows be added, in their order, that are known not to be there.

    Far cheaper than to insert what may be there. Without rows nothing is sent.
    """
    found = sorted(rows)
    if found:
        copy_soon(tx, schema, table, found)


def change_rows_soon(tx: Tx, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Lets a statement go on that takes rows as arrays, in their order; without any, nothing."""
    found = sorted(rows)
    if found:
        execute_soon(tx, statement, *columns(found))


async def written(tx: Tx) -> None:
    """Waits until all is written that was let go on: memory has room for so much only."""
    await cast("WritingConnection", tx).written()


async def _behind(
    before: asyncio.Task[object] | None, write: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    if before is not None:
        await before
    await write()


def _see_failure(writing: asyncio.Task[object]) -> None:
    """Whoever asks next is told; where nobody does, the transaction failed already."""
    if not writing.cancelled():
        writing.exception()
