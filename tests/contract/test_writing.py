"""Writes that go on while whoever began them computes."""

import asyncio

import asyncpg
import pytest

from services.kernel.log.database import transaction
from services.kernel.log.writing import copy_soon, execute_soon
from services.kernel.process.runtime import open_pool
from services.kernel.testing import eventually

ADD = "insert into numbers select * from unnest($1::int[])"


@pytest.fixture
async def pool(database):
    async with open_pool(database) as pool:
        await pool.execute("create table numbers (number int primary key)")
        yield pool


async def numbers(pool):
    return [row["number"] for row in await pool.fetch("select number from numbers order by 1")]


async def test_what_is_asked_next_sees_what_was_begun_before(pool):
    async with transaction(pool) as tx:
        copy_soon(tx, "public", "numbers", [(1,), (2,)])
        execute_soon(tx, ADD, [3])
        execute_soon(tx, "delete from numbers where number = $1", 1)
        seen = await tx.fetchval("select array_agg(number order by number) from numbers")

    assert [2, 3] == seen
    assert [2, 3] == await numbers(pool)


async def test_rows_that_are_read_part_by_part_wait_for_writes_too(pool):
    """Some are begun before the first part, some between two."""
    seen = []
    async with transaction(pool) as tx:
        execute_soon(tx, ADD, [1, 2, 3])
        async for row in tx.cursor("select number from numbers order by 1", prefetch=1):
            seen.append(row["number"])
            execute_soon(tx, ADD, [10 + row["number"]])

    assert [1, 2, 3] == seen
    assert [1, 2, 3, 11, 12, 13] == await numbers(pool)


async def test_a_write_goes_on_while_its_user_gives_way(pool):
    async def is_held():
        held = await pool.fetchval("select count(*) from pg_locks where locktype = 'advisory'")
        assert held == 1

    async with transaction(pool) as tx:
        execute_soon(tx, "select pg_advisory_xact_lock(1)")
        await eventually(is_held)


async def test_the_transaction_fails_as_its_write_did_and_leaves_nothing(pool):
    async def add_twice():
        async with transaction(pool) as tx:
            copy_soon(tx, "public", "numbers", [(1,)])
            execute_soon(tx, ADD, [1])

    with pytest.raises(asyncpg.UniqueViolationError):
        await add_twice()

    assert [] == await numbers(pool)


async def test_who_asks_after_a_failed_write_is_told_what_failed_first(pool):
    async def fail_and_ask():
        async with transaction(pool) as tx:
            execute_soon(tx, ADD, [1, 1])
            execute_soon(tx, "select no_such_column")
            await tx.fetch("select 1")

    with pytest.raises(asyncpg.UniqueViolationError):
        await fail_and_ask()


async def test_an_error_of_the_caller_is_not_hidden_by_that_of_a_write(pool):
    async def divide():
        async with transaction(pool) as tx:
            execute_soon(tx, ADD, [1, 1])
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        await divide()

    async with transaction(pool) as tx:
        await tx.execute(ADD, [7])

    assert [7] == await numbers(pool)


async def test_who_is_cancelled_amid_a_write_leaves_nothing(pool):
    async def work():
        async with transaction(pool) as tx:
            execute_soon(tx, ADD, [1])
            execute_soon(tx, "select pg_sleep(60)")
            await tx.fetch("select 1")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 0.2)

    assert [] == await numbers(pool)
