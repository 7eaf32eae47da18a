"""Connections that die: a process may be killed between any two statements."""

from contextlib import asynccontextmanager

from services.kernel.log.database import transaction

_SPENT = {
    *("execute", "fetch", "fetchval", "fetchrow", "cursor"),
    *("copy_to_table", "copy_records_to_table"),
    *("execute_soon", "copy_soon", "copy_encoded_soon"),
}


class Killed(BaseException):
    """The process is no more."""


class Mortal:
    """A connection on which only so many statements succeed."""

    def __init__(self, connection, life):
        self._connection, self._life = connection, life

    def __getattr__(self, name):
        found = getattr(self._connection, name)
        if name not in _SPENT:
            return found

        def spend(*args, **options):
            if self._life["left"] == 0:
                raise Killed
            self._life["left"] -= 1
            return found(*args, **options)

        return spend


def mortal_transaction(life):
    """Transactions that end where `life["left"]` says, in place of the kernel's."""

    @asynccontextmanager
    async def mortal(pool):
        async with transaction(pool) as tx:
            yield Mortal(tx, life)

    return mortal
