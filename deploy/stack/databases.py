"""Databases of a PostgreSQL server given by URL, embedded or not."""

from urllib.parse import urlsplit, urlunsplit

import asyncpg

CONNECT_WITHIN_S = 10.0
COMMAND_WITHIN_S = 60.0

EXISTS = "select exists (select from pg_database where datname = $1)"


async def create_database(
    server_url: str, name: str, *, template: str | None = None, by_files: bool = False
) -> None:
    """Creates a database; as a copy of the template when one is given.

    To copy whole files is much less work than to log each page, but the server flushes all it has.
    """
    source = _quoted(template or "template0")
    strategy = " strategy file_copy" if by_files else ""
    await _execute(server_url, f"create database {_quoted(name)} template {source}{strategy}")


async def create_missing_database(server_url: str, name: str) -> None:
    """Creates a database unless it is there."""
    connection = await asyncpg.connect(server_url, timeout=CONNECT_WITHIN_S)
    try:
        if not await connection.fetchval(EXISTS, name, timeout=COMMAND_WITHIN_S):
            statement = f"create database {_quoted(name)} template template0"
            await connection.execute(statement, timeout=COMMAND_WITHIN_S)
    finally:
        await connection.close(timeout=CONNECT_WITHIN_S)


async def drop_database(server_url: str, name: str) -> None:
    """Drops a database, ending the sessions in it."""
    await _execute(server_url, f"drop database if exists {_quoted(name)} with (force)")


def database_url(server_url: str, name: str) -> str:
    """The URL of one database of the server: the same URL with another path."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


async def _execute(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url, timeout=CONNECT_WITHIN_S)
    try:
        await connection.execute(statement, timeout=COMMAND_WITHIN_S)
    finally:
        await connection.close(timeout=CONNECT_WITHIN_S)


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
