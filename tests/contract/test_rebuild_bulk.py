"""A view that offers it is built from all events at once: whole, or not at all."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from google.protobuf.wrappers_pb2 import BoolValue

from services.kernel.erasing.tombstones import hold_everything
from services.kernel.feed.source import own_source
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin, read_partition
from services.kernel.log.tables import create_kernel_tables
from services.kernel.process.runtime import open_pool
from services.kernel.views import bulk as building
from services.kernel.views import rebuild as rebuilding
from services.kernel.views.bulk import TooMuchForBulkError, drop_indexes, make_indexes
from services.kernel.views.checkpoint import Place, create_checkpoint, read_positions
from services.kernel.views.rebuild import Rebuild, RebuildError
from services.kernel.views.view import ensure_live
from tests.tallies import TEXTS, Tallies, text_log, texts

_TEXT = "google.protobuf.StringValue"


@dataclass
class BulkTallies(Tallies):
    """Tallies that can be made of all texts at once."""

    events_in_bulk_max: int = 100
    made: list = field(default_factory=list)
    limit: int = 1_000

    def bulk(self, tx, schema):
        self.made.append(schema)
        return AllTexts(tx, schema, self.limit)


@dataclass
class AllTexts:
    """The texts of all streams."""

    tx: object
    schema: str
    limit: int
    texts: dict = field(default_factory=dict)
    again: dict = field(default_factory=dict)
    heeds = frozenset({_TEXT})

    async def add(self, events):
        self.again = self.again or await drop_indexes(self.tx, self.schema)
        for event in events:
            self.texts.setdefault((event.workspace, event.stream), []).append(event.event.value)
        if len(self.texts) > self.limit:
            raise TooMuchForBulkError("too many streams")

    async def finish(self):
        rows = [(*key, len(v), sum(map(len, v)), v[-1]) for key, v in self.texts.items()]
        await self.tx.copy_records_to_table("tallies", schema_name=self.schema, records=rows)
        make_indexes(self.tx, self.again, ["tallies"])


@pytest.fixture
async def rebuild(database, monkeypatch):
    """Ten texts, of which the live view has heard; two are read at a time."""
    monkeypatch.setattr(rebuilding, "READ_BATCH_SIZE", 2)
    monkeypatch.setattr(building, "BULK_READ_SIZE", 2)
    async with open_pool(database) as pool:
        log, view = text_log(), BulkTallies()

        async def read(partition, after_position, limit):
            return await read_partition(pool, partition, after=after_position, limit=limit)

        made = Rebuild(pool, log, view, TEXTS, {"others": read})
        async with transaction(pool) as tx:
            await create_kernel_tables(tx, 1)
            await ensure_live(tx, view, log.clock)
            await create_checkpoint(tx, Place("tallies", "others", 0), 0)
        await record(made, *(texts(f"thing-{n % 3}", "abc") for n in range(10)))
        yield made


async def record(rebuild, *appends):
    async with transaction(rebuild.pool) as tx:
        landed = await rebuild.log.append(tx, appends)
        await rebuild.view.apply(tx, "tallies", landed.events)
        await tx.execute(
            "update kernel.checkpoints set position = position + $1 where generation = 0",
            len(appends),
        )


async def built(rebuild):
    return [progress async for progress in rebuild.build()]


async def test_all_at_once_is_what_the_live_view_holds_and_tells_how_far_it_is(rebuild):
    progress = await built(rebuild)

    assert rebuild.view.made == ["tallies_g2"]
    assert [2, 4, 6, 8, 10] == [each.done for each in progress[:5]]
    assert {10} == {each.total for each in progress}
    assert (await rebuild.compare()).equal


async def test_what_comes_behind_it_is_folded(rebuild):
    await built(rebuild)
    await record(rebuild, texts("thing-9", "late"))

    await rebuild.swap()

    assert rebuild.view.made == ["tallies_g2"]
    assert await rebuild.pool.fetchval("select count(*) from tallies.tallies") == 4


async def test_one_that_is_stopped_leaves_nothing_and_begins_anew(rebuild):
    stopped = rebuild.build()
    await anext(stopped)
    await anext(stopped)
    await stopped.aclose()

    assert await rebuild.pool.fetchval("select count(*) from tallies_g2.tallies") == 0
    assert await read_positions(rebuild.pool, "tallies", 2) == {("others", 0): 0}
    assert (await built(rebuild))[0].done == 2
    assert (await rebuild.compare()).equal


async def test_one_that_is_cancelled_leaves_nothing(rebuild):
    waits = asyncio.Event()
    read = rebuild.readers["others"]

    async def hang(partition, after_position, limit):
        if after_position == 6:
            waits.set()
            await asyncio.Event().wait()
        return await read(partition, after_position, limit)

    rebuild.readers["others"] = hang
    task = asyncio.create_task(built(rebuild))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    rebuild.readers["others"] = read

    await built(rebuild)
    assert (await rebuild.compare()).equal


async def test_two_do_not_build_the_same_one(rebuild):
    one = rebuild.build()
    await anext(one)
    with pytest.raises(RebuildError, match="another process"):
        await built(rebuild)

    assert [each async for each in one][-1].done == 10


async def test_one_during_which_something_was_erased_begins_anew(rebuild):
    stopped = rebuild.build()
    await anext(stopped)
    async with transaction(rebuild.pool) as tx:
        await hold_everything(tx, rebuild.log)
    with pytest.raises(RebuildError, match="erased"):
        _ = [progress async for progress in stopped]

    await built(rebuild)
    assert rebuild.view.made == ["tallies_g2", "tallies_g2"]
    assert (await rebuild.compare()).equal


async def test_of_the_own_log_only_what_is_heeded_is_read(rebuild):
    own = replace(rebuild, readers={"things": own_source(rebuild.pool).read})
    await rebuild.pool.execute("update kernel.checkpoints set source = 'things'")
    other = Append(Origin("acme", "", "", ""), "thing-1", [NewEvent(BoolValue())] * 3)
    async with transaction(rebuild.pool) as tx:
        await rebuild.log.append(tx, [other])
        await tx.execute("update kernel.checkpoints set position = position + 3")

    progress = await built(own)

    assert [2, 4, 6, 8, 10, 13] == [each.done for each in progress[:6]]
    assert (await own.compare()).equal


async def test_an_unfinished_one_goes_on_as_it_began(rebuild):
    rebuild.view.events_in_bulk_max = 0
    folded = rebuild.build()
    await anext(folded)
    await anext(folded)
    await folded.aclose()
    rebuild.view.events_in_bulk_max = 100

    await built(rebuild)

    assert rebuild.view.made == []
    assert (await rebuild.compare()).equal


@pytest.mark.parametrize(("most", "made"), [(10, ["tallies_g2"]), (9, [])])
async def test_longer_logs_than_fit_into_memory_are_folded(rebuild, most, made):
    rebuild.view.events_in_bulk_max = most

    await built(rebuild)

    assert made == rebuild.view.made
    assert (await rebuild.compare()).equal


async def test_what_turns_out_to_be_too_much_is_folded(rebuild):
    rebuild.view.limit = 1

    progress = await built(rebuild)

    assert rebuild.view.made == ["tallies_g2"]
    assert (progress[-1].done, progress[-1].total) == (10, 10)
    assert (await rebuild.compare()).equal
