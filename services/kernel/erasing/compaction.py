"""Compaction: the bytes that updated and deleted rows leave behind in the files of a database.

PostgreSQL keeps them in dead rows, in the statistics of columns, and in the log it writes ahead.
So every table is written anew, its statistics are taken again, and that log begins a new file
before the old ones are removed. It takes time by the size of the database and stops writers table
by table, so one compaction serves all erasures that wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import structlog

from services.kernel.erasing import register
from services.kernel.log.database import DATABASE_FAILURES, is_passing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Connection, Pool

# Whoever wants a table while we wait for it waits behind us.
LOCK_TIMEOUT_S = 2
LOCK_ATTEMPTS_MAX = 30
LOCK_PAUSE_S = 0.5
TABLE_TIMEOUT_S = 3_600.0
CONNECT_TIMEOUT_S = 5.0
# How often a process looks by itself whether an erasure waits, and how long it rests when one
# could not be served.
POLL_S = 30.0
RETRY_PAUSE_S = 5.0

COMPACTION_LOCK_KEY = 7_267_767_679

WAL_IS_OTHERS = (
    "the database's write-ahead log: this user may not end it; what it holds is gone when the "
    "server has removed the files of today, and from its archive when that expires"
)

_TABLES = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and c.relpersistence <> 't'
    and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_'
order by 1
"""

_TAKE_TURN = "select pg_try_advisory_lock($1)"

# Values that are frequent in a column stand here.
_STATISTICS = ("pg_catalog.pg_statistic", "pg_catalog.pg_statistic_ext_data")

_KEPT_ROWS = re.compile(r"\d+")

_log = structlog.get_logger(__name__)


class CompactionError(Exception):
    """When bytes could not be removed yet; it is tried again."""


class Compactor:
    """Compacts the database whenever erasures wait for it. `run` it as a task; any replica may."""

    def __init__(self, pool: Pool, database_url: str) -> None:
        self._pool = pool
        self._database_url = database_url
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Says that an erasure waits."""
        self._wanted.set()

    async def run(self) -> None:
        """Compacts until cancelled; what fails is said in the register and tried again."""
        while True:
            pause_s = POLL_S
            try:
                await self.compact_if_wanted()
            except (CompactionError, *DATABASE_FAILURES) as error:
                if isinstance(error, asyncpg.PostgresError) and not is_passing(error):
                    _log.exception("compaction.failed")
                else:
                    _log.warning("compaction.waits", error=repr(error))
                with contextlib.suppress(*DATABASE_FAILURES):
                    await register.say_problem(self._pool, str(error) or type(error).__name__)
                pause_s = RETRY_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * random.uniform(0.5, 1.0)):
                    await self._wanted.wait()
            self._wanted.clear()

    async def compact_if_wanted(self) -> bool:
        """Serves the erasures that wait now; tells whether there were any, and it was our turn."""
        if not await register.waiting_for_bytes(self._pool):
            return False
        async with self._connected() as connection:
            if not await connection.fetchval(_TAKE_TURN, COMPACTION_LOCK_KEY):
                return False
            # Asked once more: who had the turn before may have served them.
            waited = await register.waiting_for_bytes(connection)
            if not waited:
                return False
            _log.info("compaction.begins", erasures=len(waited))
            await compact_tables(connection)
            notes = [] if await end_write_ahead_log(connection) else [WAL_IS_OTHERS]
            await register.finish(self._pool, waited, notes)
            _log.info("compaction.done", erasures=len(waited))
            return True

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await asyncpg.connect(
            self._database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=TABLE_TIMEOUT_S
        )
        try:
            await connection.execute(f"set lock_timeout = '{LOCK_TIMEOUT_S}s'")
            yield connection
        finally:
            connection.terminate()


async def compact_tables(connection: Connection) -> None:
    """Writes every table anew, and the statistics of their columns after that."""
    for record in await connection.fetch(_TABLES):
        await compact_table(connection, record[0], options="full, analyze, verbose")
    for table in _STATISTICS:
        await compact_table(connection, table, options="full, verbose")


async def compact_table(connection: Connection, table: str, *, options: str) -> None:
    """Writes a table anew without its dead rows; raises CompactionError while some must stay."""
    kept: list[int] = []

    def hear(_: object, message: asyncpg.PostgresLogMessage) -> None:
        found = _KEPT_ROWS.match(getattr(message, "detail", None) or "")
        if found:
            kept.append(int(found[0]))

    connection.add_log_listener(hear)
    try:
        await _patiently(connection, f"vacuum ({options}) {table}")
    finally:
        connection.remove_log_listener(hear)
    if any(kept):
        raise CompactionError(f"a transaction still sees {max(kept)} dead rows of {table}")


async def end_write_ahead_log(connection: Connection) -> bool:
    """Removes what the log written ahead holds until now; False when we may not."""
    try:
        await connection.execute("select pg_switch_wal()")
        await connection.execute("checkpoint")
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True


async def _patiently(connection: Connection, statement: str) -> None:
    """Waits for a table a little while at a time, so that others get their turn in between."""
    for attempt in range(1, LOCK_ATTEMPTS_MAX + 1):
        try:
            await connection.execute(statement)
        except (asyncpg.LockNotAvailableError, asyncpg.UndefinedTableError) as error:
            if isinstance(error, asyncpg.UndefinedTableError):
                return  # its view was swapped or dropped meanwhile, and its rows with it
            if attempt == LOCK_ATTEMPTS_MAX:
                raise CompactionError(f"{statement}: others hold the table") from error
            await asyncio.sleep(LOCK_PAUSE_S * random.uniform(0.5, 1.0))
        else:
            return
