"""A service's log with its group commit, for the tests that send it commands about boxes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from services.kernel.clock import SystemClock, new_id, new_ids
from services.kernel.command.decider import Commands
from services.kernel.command.group_commit import GroupCommit
from services.kernel.log.log import Log, read_all, read_heads
from services.kernel.log.tables import create_kernel_tables
from services.kernel.rpc.caller import acting_as, own_caller
from services.kernel.views.view import ensure_live
from tests.box import BOX, EVENT_TYPES, Box, PutRequest, TakeOutRequest, ThingsView

CLOCK = SystemClock()


@dataclass
class BoxWorld:
    """One process of a service."""

    pool: asyncpg.Pool
    log: Log
    group_commit: GroupCommit
    commands: Commands
    committing: asyncio.Task

    async def put(self, box, *things, workspace="acme", decider=BOX, **fields):
        """Puts things into a box, and says what it holds then."""
        command = PutRequest(name=f"boxes/{box}", things=things, **fields)
        return await self.execute(command, workspace=workspace, decider=decider)

    async def empty(self, box, *, workspace="acme", **fields):
        """Takes everything out of a box."""
        command = TakeOutRequest(name=f"boxes/{box}", **fields)
        return await self.execute(command, workspace=workspace)

    async def make(self, *things, workspace="acme", **fields):
        """Puts things into a new box, whose id is another at each attempt."""
        command = PutRequest(things=things, **fields)
        return await self.execute(command, box=f"{new_id()}", workspace=workspace)

    async def execute(self, command, *, box=None, workspace="acme", decider=BOX):
        """Executes a command in the name of a caller."""
        box = box or decider.aggregate_id(command.name)
        caller = own_caller("tests", clock=CLOCK, scopes=frozenset(), workspace=workspace)
        with acting_as(caller):
            return await self.commands.execute(
                decider, box, command, lambda decided: box_of(decider.name(box), decided)
            )

    async def logged(self):
        """The whole log: every partition, in order."""
        heads = await read_heads(self.pool)
        return [
            envelope
            for partition, head in heads.items()
            async for batch in read_all(self.pool, partition, after=0, until=head)
            for envelope in batch
        ]

    async def things(self):
        """What the view holds: (stream, thing), sorted."""
        rows = await self.pool.fetch("select stream, thing from things.things order by 1, version")
        return [tuple(row) for row in rows]

    async def count(self, table):
        """How many rows a table has."""
        return await self.pool.fetchval(f"select count(*) from {table}")

    async def stop(self):
        """Drains the group commit."""
        self.group_commit.close()
        await asyncio.wait_for(self.committing, timeout=30)

    async def assert_whole(self):
        """Positions are dense per partition, versions per stream; views and heads agree."""
        heads = await read_heads(self.pool)
        logged = await self.logged()
        versions = {}
        for partition, head in heads.items():
            positions = [e.position for e in logged if e.partition == partition]
            assert positions == list(range(1, head + 1))
        for envelope in logged:
            key = (envelope.workspace, envelope.stream)
            versions[key] = versions.get(key, 0) + 1
            assert envelope.version == versions[key]
            assert envelope.partition == self.log.partition_of(*key)
        put = sorted(
            (e.workspace, e.stream, e.version) for e in logged if e.type.endswith("ThingPut")
        )
        rows = await self.pool.fetch("select workspace, stream, version from things.things")
        assert put == sorted(tuple(row) for row in rows)


def box_of(name, decided):
    """The response to every command on a box."""
    return Box(
        name=name,
        things=decided.state.things,
        label=decided.state.label,
        etag=decided.etag,
        write_token=decided.write_token,
        create_time=decided.create_time.isoformat(),
        update_time=decided.update_time.isoformat(),
    )


@contextlib.asynccontextmanager
async def running_log(
    database_url, *, partitions=1, clock=CLOCK, views=None, event_types=None, **pool_options
):
    """One process on a log, which comes to be if it is not there."""
    views = (ThingsView(),) if views is None else views
    async with asyncpg.create_pool(
        database_url, min_size=1, max_size=4, command_timeout=30, **pool_options
    ) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, partitions)
            for view in views:
                async with connection.transaction():
                    await ensure_live(connection, view, clock)
        log = Log(service="boxes", partitions=partitions, clock=clock, new_ids=new_ids)
        group_commit = GroupCommit(pool, log, views)
        commands = Commands(group_commit, event_types or EVENT_TYPES)
        committing = asyncio.create_task(group_commit.run())
        try:
            yield BoxWorld(pool, log, group_commit, commands, committing)
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)


class SteppingClock:
    """A clock that moves on by a second whenever it is asked."""

    def __init__(self):
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self):
        self._now += timedelta(seconds=1)
        return self._now


async def answers(calls):
    """Awaits calls that were made at once; failures are answers, too."""
    return await asyncio.gather(*calls, return_exceptions=True)
