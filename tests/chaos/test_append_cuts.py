"""A connection that dies at any statement of a group's transaction: all of it is kept, or nothing.

Whoever then asks again with the same request_id has one effect.
"""

import asyncio
import os
import signal

import asyncpg
import pytest

from services.kernel.command import group_commit
from services.kernel.errors import Unavailable
from services.kernel.log.log import read_heads
from services.kernel.testing import eventually
from tests.box import Box
from tests.box_world import answers, running_log


class Knife:
    """Cuts a connection at its n-th statement from now; counts them."""

    def __init__(self):
        self.statements = []
        self.at = None
        self.cut = None

    def arm(self, at, cut):
        self.statements, self.at, self.cut = [], at, cut


KNIFE = Knife()


class CutConnection(asyncpg.Connection):
    """Passes each statement by the knife."""

    async def execute(self, query, *args, timeout=None):
        return await self._pass(super().execute, query, *args, timeout=timeout)

    async def executemany(self, command, args, *, timeout=None):
        return await self._pass(super().executemany, command, args, timeout=timeout)

    async def fetch(self, query, *args, timeout=None, **_):
        return await self._pass(super().fetch, query, *args, timeout=timeout)

    async def _pass(self, statement, query, *args, timeout):
        KNIFE.statements.append(query.strip())
        if len(KNIFE.statements) != KNIFE.at:
            return await statement(query, *args, timeout=timeout)
        return await KNIFE.cut(self, lambda: statement(query, *args, timeout=timeout))


async def cut_before(connection, _):
    """The statement never reaches the server."""
    connection.terminate()
    raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def cut_after(connection, statement):
    """The statement is done, its answer is lost."""
    await statement()
    connection.terminate()
    raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def backend_ends(connection, statement):
    """The administrator ends the session; the statement finds out."""
    pid = connection.get_server_pid()
    other = await asyncpg.connect(**KNIFE.admin)
    try:
        assert await other.fetchval("select pg_terminate_backend($1, 5000)", pid)
    finally:
        await other.close()
    return await statement()


@pytest.fixture
async def world(database):
    KNIFE.arm(None, None)
    KNIFE.admin = {"dsn": database}
    async with running_log(database, connection_class=CutConnection) as world:
        yield world


async def count_statements(world):
    """How many statements a group of these commands takes, to the return of its connection."""
    await put_three(world, "warm")
    KNIFE.arm(None, None)
    boxes = await put_three(world, "counted")
    assert [Box] * 3 == [type(box) for box in boxes]

    def assert_done():
        assert any(statement.startswith("COMMIT") for statement in KNIFE.statements)

    await eventually(assert_done)
    return len(KNIFE.statements)


async def put_three(world, run):
    """Three commands at once, with labels, things and request ids."""
    return await answers(
        world.put(f"{run}-{n}", "hat", label=f"{run}-{n}", request_id=f"{run}-{n}")
        for n in range(3)
    )


@pytest.mark.parametrize("cut", [cut_before, cut_after, backend_ends])
async def test_a_cut_at_any_statement_leaves_all_or_nothing(world, cut):
    statements = await count_statements(world)
    for at in range(1, statements + 1):
        before = (await read_heads(world.pool))[0]
        KNIFE.arm(at, cut)
        told = await put_three(world, f"cut-{at}")
        KNIFE.arm(None, None)
        after = (await read_heads(world.pool))[0]

        kept = after - before
        assert kept in {0, 6}, f"at {at}: half of a group"
        if any(isinstance(answer, Box) for answer in told):
            assert 6 == kept, f"at {at}: acknowledged and lost"
        assert {Box, Unavailable} >= {type(answer) for answer in told}

        again = await put_three(world, f"cut-{at}")
        assert [Box] * 3 == [type(answer) for answer in again]
        assert before + 6 == (await read_heads(world.pool))[0], f"at {at}: done twice"
    await world.assert_whole()
    boxes = 3 * (statements + 2)
    assert [boxes] * 3 == [
        await world.count(f"kernel.{table}") for table in ("requests", "claims", "states")
    ]


async def test_the_moment_of_the_commit_is_among_the_cuts(world):
    """The test above would prove little if no cut had fallen between commit and answer."""
    await count_statements(world)
    at = 1 + next(n for n, said in enumerate(KNIFE.statements) if said.startswith("COMMIT"))
    for cut, kept in ((cut_before, 0), (cut_after, 6)):
        before = (await read_heads(world.pool))[0]
        KNIFE.arm(at, cut)
        told = await put_three(world, cut.__name__)
        KNIFE.arm(None, None)

        assert [Unavailable] * 3 == [type(answer) for answer in told]
        assert before + kept == (await read_heads(world.pool))[0]


async def test_a_server_that_hangs_is_not_waited_for(own_postgres, monkeypatch):
    monkeypatch.setattr(group_commit, "COMMIT_TIMEOUT_S", 0.5)
    url = await own_postgres.create_database("boxes")
    async with running_log(url) as world:
        await world.put("0", "hat")
        hung = [
            row["pid"]
            for row in await world.pool.fetch(
                "select pid from pg_stat_activity where datname = current_database()"
            )
        ]
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        try:
            told = await asyncio.wait_for(
                answers(world.put(f"{n}", "hat", request_id=f"{n}") for n in range(3)), timeout=10
            )
        finally:
            for pid in hung:
                os.kill(pid, signal.SIGCONT)

        assert [Unavailable] * 3 == [type(answer) for answer in told]
        boxes = await answers(world.put(f"{n}", "hat", request_id=f"{n}") for n in range(3))
        assert [["hat", "hat"], ["hat"], ["hat"]] == [list(box.things) for box in boxes]
        await world.assert_whole()
