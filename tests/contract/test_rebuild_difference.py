"""When a rebuilt view differs and that is accepted, the difference is told: once, and only it."""

from dataclasses import dataclass, field

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from services.kernel.feed.source import own_source
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.tables import create_kernel_tables
from services.kernel.views import rebuild as rebuilding
from services.kernel.views.checkpoint import Place, create_checkpoint
from services.kernel.views.projection import Consumer
from services.kernel.views.rebuild import DifferenceError, Rebuild
from services.kernel.views.view import ensure_live, list_generations
from tests.mortal import Killed, mortal_transaction
from tests.tallies import TEXTS, Tallies, text_log, texts

_OTHERS = """
select b.stream, b.events - coalesce(l.events, 0) as more
from {built}.tallies b left join {live}.tallies l using (workspace, stream)
where b.events is distinct from l.events order by 1
"""


class TellingTallies(Tallies):
    """Tallies that say by how much a generation has more than another, stream by stream."""

    async def changes_between(self, tx, live, built):
        async for row in tx.cursor(_OTHERS.format(live=live, built=built)):
            yield [f"{row['stream']}: {row['more']} more"]


@dataclass
class Announce:
    """Whenever a text says more, it is said in our own log; of events it says nothing."""

    heard: list = field(default_factory=list)

    async def react(self, tx, events, applied):  # noqa: ARG002, what every policy is told
        """One event for each thing that lies between."""
        self.heard.append(events)
        origin = Origin("acme", "policies/announce", "", "")
        return [
            Append(origin, "announced", [NewEvent(StringValue(value=text))]) for text in applied
        ]


@pytest.fixture
async def world(database):
    """A rebuilt view that has two more texts of a stream, and one stream more, than the live."""
    async with asyncpg.create_pool(database, min_size=1, max_size=6) as pool:
        log, consumer = text_log(), Consumer(TellingTallies(), ("things",), TEXTS, Announce())
        async with transaction(pool) as tx:
            await create_kernel_tables(tx, 1)
            await ensure_live(tx, consumer.view, log.clock)
            landed = await log.append(tx, [texts("a", "1", "2", "3"), texts("b", "4")])
            await consumer.view.apply(tx, "tallies", [landed.events[0]])
            await create_checkpoint(tx, Place("tallies", "things", 0), 4)
        rebuild = Rebuild.of_consumer(pool, log, consumer, {"things": own_source(pool).read})
        assert [progress async for progress in rebuild.build()]
        yield rebuild


async def announced(rebuild):
    rows = await rebuild.pool.fetch(
        "select data from kernel.events where stream = 'announced' order by position"
    )
    return [StringValue.FromString(row["data"]).value for row in rows]


async def statuses(rebuild):
    rows = await list_generations(rebuild.pool)
    return {row["generation"]: row["status"] for row in rows}


async def test_an_accepted_difference_is_told_and_nothing_else(world):
    with pytest.raises(DifferenceError):
        await world.swap()
    assert await announced(world) == []

    await world.swap(accept_difference=True)

    assert await announced(world) == ["a: 2 more", "b: 1 more"]
    assert world.policy.heard == [(), ()]


async def test_of_equal_generations_nothing_is_told(world):
    await world.swap(accept_difference=True)
    assert [progress async for progress in world.build()]

    await world.swap(accept_difference=True)

    assert len(await announced(world)) == 2


async def test_a_crash_at_any_statement_of_a_swap_leaves_old_or_new_and_tells_once(
    world, monkeypatch
):
    life = {"left": 0}
    crashes = 0
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(rebuilding, "transaction", mortal_transaction(life))
            life["left"] = crashes
            try:
                await world.swap(accept_difference=True)
                break
            except Killed:
                crashes += 1
        assert await announced(world) == []
        assert await statuses(world) == {1: "LIVE", 2: "BUILDING"}

    assert crashes > 15
    assert await announced(world) == ["a: 2 more", "b: 1 more"]
    assert await statuses(world) == {1: "RETIRED", 2: "LIVE"}
