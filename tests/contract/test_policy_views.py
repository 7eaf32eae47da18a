"""What a policy appends is at once in the views of the own log, like what a command appends."""

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from services.kernel.log.database import transaction
from services.kernel.log.log import read_partition
from services.kernel.log.tables import create_kernel_tables
from services.kernel.views.checkpoint import create_checkpoint, take_lease
from services.kernel.views.projection import Consumer, Projection, ProjectionMetrics
from services.kernel.views.view import ensure_live
from tests.tallies import TEXTS, Echo, Tallies, text_log, texts

INLINE = Tallies(name="inline_tallies")


@pytest.fixture
async def pool(database):
    async with asyncpg.create_pool(database, min_size=1, max_size=3) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, 1)
            for view in (Tallies(), INLINE):
                async with connection.transaction():
                    await ensure_live(connection, view, text_log().clock)
        yield pool


async def test_a_policys_appends_are_folded_in_the_transaction_that_appends_them(pool):
    log = text_log()
    projection = Projection(
        pool=pool,
        log=log,
        consumer=Consumer(Tallies(), ("things",), TEXTS, Echo()),
        source="things",
        partition=0,
        open_reader=None,
        owner="one",
        metrics=ProjectionMetrics(CollectorRegistry()),
        views=(INLINE,),
    )
    async with transaction(pool) as tx:
        await log.append(tx, [texts("thing-1", "a", "b")])
    await create_checkpoint(pool, projection.place)
    lease = await take_lease(pool, projection.place, "one", 10.0)

    await projection.apply(lease, await read_partition(pool, 0, after=0))

    rows = await pool.fetch("select stream, events from inline_tallies.tallies")
    assert {"echo-thing-1": 2} == {row["stream"]: row["events"] for row in rows}
