"""What a transaction is here, and what the driver's failures mean.

asyncpg's own context managers wait for a hung server when they roll back; ours ends the connection
instead, so a deadline around a transaction is kept.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, cast

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Connection, Pool

ACQUIRE_TIMEOUT_S = 5.0

# "Not now": connection, resources, operator, system; 25006: the primary has moved; 25P03: idle.
_PASSING_SQLSTATE = re.compile(r"08...|53...|57...|58...|55P03|25006|25P03")
# asyncpg tells a closed connection or pool from a wrong call by its words only.
_CLOSED = re.compile(r"clos|released|not initialized")
# What a database that is away or refuses raises; `OSError` includes a deadline's TimeoutError.
DATABASE_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

_ONE_MOMENT = "set transaction isolation level repeatable read, read only"

# Keys that commands take without a common lock when their streams lie in different partitions.
_CONTESTED_TABLES = {"claims", "requests"}


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One READ COMMITTED transaction: a statement after a lock sees what the lock guarded."""
    proxy = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
    connection = cast("Connection", proxy)
    try:
        block = connection.transaction(isolation="read_committed")
        await block.start()
        try:
            yield connection
        except (asyncio.CancelledError, TimeoutError):
            raise
        except BaseException:
            with suppress(asyncpg.InterfaceError):  # the connection may be gone already
                await block.rollback()
            raise
        await block.commit()
    except (asyncio.CancelledError, TimeoutError):
        connection.terminate()  # nobody knows what it is still doing
        raise
    finally:
        await pool.release(proxy)


@asynccontextmanager
async def one_moment(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction that only reads, all of it as of the moment of its first statement."""
    async with transaction(pool) as snapshot:
        await snapshot.execute(_ONE_MOMENT)
        yield snapshot


def is_passing(error: Exception) -> bool:
    """Whether the same may succeed later: the database is away, stopping, hung or full."""
    if isinstance(error, asyncpg.PostgresError):
        return _PASSING_SQLSTATE.fullmatch(error.sqlstate or "") is not None
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):  # an InternalClientError, too
        return False
    if isinstance(error, asyncpg.InternalClientError):  # the server ended it within a statement
        return True
    if isinstance(error, asyncpg.InterfaceError):  # also raised for values that cannot be encoded
        return _CLOSED.search(str(error)) is not None
    return isinstance(error, OSError)  # TimeoutError is one


def is_conflict(error: Exception) -> bool:
    """Whether another transaction was faster, so that this one would now see what it did."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return error.schema_name == "kernel" and error.table_name in _CONTESTED_TABLES
    return isinstance(
        error,
        asyncpg.TransactionRollbackError
        | asyncpg.InvalidCachedStatementError
        | asyncpg.OutdatedSchemaCacheError,
    )
