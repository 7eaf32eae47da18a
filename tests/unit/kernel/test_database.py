"""The driver's failures: what passes, what is a conflict, and what is nobody's fault but ours."""

import asyncpg
import pytest

from services.kernel.log.database import is_conflict, is_passing


def unique_violation(schema, table):
    error = asyncpg.UniqueViolationError("taken")
    error.schema_name, error.table_name = schema, table
    return error


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.AdminShutdownError("stopping"),
        asyncpg.CannotConnectNowError("starting"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.QueryCanceledError("timeout"),
        asyncpg.DiskFullError("full"),
        asyncpg.ReadOnlySQLTransactionError("standby"),
        asyncpg.InterfaceError("cannot perform operation: connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
)
def test_a_database_that_is_away_passes(error):
    assert is_passing(error)
    assert not is_conflict(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.exceptions._base.DataError("invalid input for query argument $1"),
        asyncpg.InterfaceError("another operation is in progress"),
        asyncpg.CharacterNotInRepertoireError("U+0000"),
        asyncpg.CheckViolationError("forbidden"),
        asyncpg.UndefinedTableError("no such table"),
        unique_violation("things", "claims"),
        unique_violation("kernel", "events"),
        ZeroDivisionError(),
    ],
)
def test_a_guilty_command_does_not_pass(error):
    assert not is_passing(error)
    assert not is_conflict(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.SerializationError("serialization"),
        asyncpg.InvalidCachedStatementError("cached plan must not change result type"),
        asyncpg.OutdatedSchemaCacheError("cached statement plan is invalid"),
        unique_violation("kernel", "claims"),
        unique_violation("kernel", "requests"),
    ],
)
def test_who_was_slower_may_look_again(error):
    assert is_conflict(error)
    assert not is_passing(error)
