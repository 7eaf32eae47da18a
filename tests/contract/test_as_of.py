"""What a view said at a moment has one answer for ever: versions are kept, moments are sealed.

Two tests show what goes wrong without the seal.
"""

import asyncio
import contextlib
import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.kernel.clock import FixedClock, new_id
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.page_token import InvalidPageToken
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, Log, NewEvent, Origin
from services.kernel.log.tables import create_kernel_tables
from services.kernel.testing import eventually
from services.kernel.views.aggregate_rows import AggregateRows
from services.kernel.views.aggregate_versions import AggregateVersions
from services.kernel.views.as_of import read_moment
from services.kernel.views.view import append_with_views, ensure_live
from tests.box import BOX, BoxEmptied, BoxLabelled, BoxState, ThingPut

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)

TABLES = """
create table {schema}.boxes (
    workspace text not null, box_id text collate "C" not null, label text, things jsonb not null,
    version bigint not null, partition int not null, create_position bigint not null,
    update_position bigint not null, create_time timestamptz not null,
    update_time timestamptz not null, primary key (workspace, box_id)
);
"""
COLUMNS = """workspace, box_id, label, things, version, partition, create_position,
    update_position, create_time, update_time"""
SEVERAL = f"""
select {COLUMNS} from {{schema}}.boxes
join unnest($1::text[], $2::text[]) asked (workspace, box_id) using (workspace, box_id)
"""
SAVE = f"""
insert into {{schema}}.boxes ({COLUMNS})
select * from unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::bigint[], $6::int[],
                     $7::bigint[], $8::bigint[], $9::timestamptz[], $10::timestamptz[])
on conflict (workspace, box_id) do update set
    label = excluded.label, things = excluded.things, version = excluded.version,
    update_position = excluded.update_position, update_time = excluded.update_time
"""
ONE = f"select {COLUMNS} from boxes.boxes where workspace = $1 and box_id = $2"
IN_FLIGHT = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"

ROWS = AggregateRows(
    BOX,
    key="box_id",
    several=SEVERAL,
    save=SAVE,
    one=ONE,
    state_of=lambda record: BoxState(
        tuple(json_of(record["things"])), record["label"] or "", exists=True
    ),
    state_columns=lambda row: (row.state.label or None, as_json(row.state.things)),
)
VERSIONS = AggregateVersions(
    ROWS, live="boxes", table="boxes", state_types={"label": "text", "things": "jsonb"}
)
BOXES = Listing(
    method="ListBoxes",
    table=Table(
        "boxes.boxes",
        key="box_id",
        positions=Positions(partition="partition"),
        versions="boxes.boxes_versions",
    ),
    columns=COLUMNS,
    fields=Fields(
        {
            "label": Field("label", Kind.TEXT, sortable=True),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        }
    ),
    default_order="update_time",
)


def json_of(text):
    return [] if text == "[]" else text.strip('[]"').split('", "')


def as_json(things):
    return "[" + ", ".join(f'"{thing}"' for thing in things) + "]"


class BoxesView:
    """Boxes, and what they were."""

    name = "boxes"
    shape = 1

    def tables(self, schema):
        return (TABLES + VERSIONS.tables()).format(schema=schema)

    async def apply(self, tx, schema, events):
        await VERSIONS.add(tx, schema, await ROWS.fold(tx, schema, events))


VIEW = BoxesView()


class World:
    """A log of boxes whose clock the test sets, and its view."""

    def __init__(self, pool, partitions):
        self.pool, self.clock = pool, FixedClock(NOON)
        self.log = Log(service="boxes", partitions=partitions, clock=self.clock, new_id=new_id)

    async def record(self, **facts):
        """Appends facts to boxes in one transaction: `record(a=[ThingPut(thing="hat")])`."""
        async with transaction(self.pool) as tx:
            return await self.append(tx, **facts)

    async def append(self, tx, **facts):
        """The same in a transaction of the caller's; answers the time of recording."""
        origin = Origin("acme", "tests", "", "")
        appends = [
            Append(origin, BOX.stream(box), [NewEvent(fact) for fact in said])
            for box, said in facts.items()
        ]
        landed = await append_with_views(tx, self.log, [VIEW], appends)
        return landed.events[-1].record_time

    async def seal(self, moment):
        request = DatedRequest(moment)
        return await read_moment(self.pool, self.clock, request)

    async def live(self):
        """All boxes as they are."""
        found = await self.pool.fetch(f"select {COLUMNS} from boxes.boxes order by box_id")
        return [ROWS.row(record) for record in found]

    async def at(self, moment, box="a"):
        """What a box held at a moment; None when it was not there."""
        try:
            row = await VERSIONS.existing_at(self.pool, "acme", BOX.name(box), moment)
        except NotFound:
            return None
        return row.state.things

    async def page(self, moment, order_by="", size=2, token="", filter_=""):
        asked = SimpleNamespace(filter=filter_, order_by=order_by, page_size=size, page_token=token)
        return await ROWS.page(self.pool, BOXES, "acme", asked, moment)


class DatedRequest:
    """A read that says as of when, or does not."""

    def __init__(self, moment=None, timestamp=None):
        self.read_time = timestamp or Timestamp()
        self.is_dated = timestamp is not None or moment is not None
        if moment is not None:
            self.read_time.FromDatetime(moment)

    def HasField(self, name):
        assert name == "read_time"
        return self.is_dated


@contextlib.asynccontextmanager
async def world_of(database, partitions=1):
    async with asyncpg.create_pool(database, min_size=1, max_size=5) as pool:
        async with pool.acquire() as connection:
            await create_kernel_tables(connection, partitions)
            async with connection.transaction():
                await ensure_live(connection, VIEW, FixedClock(NOON))
        yield World(pool, partitions)


@pytest.fixture
async def world(database):
    async with world_of(database) as world:
        yield world


def put(*things):
    return [ThingPut(thing=thing) for thing in things]


def any_facts(dice):
    facts = [
        ThingPut(thing=dice.choice("abc")),
        BoxLabelled(label=dice.choice("xyz")),
        BoxEmptied(),
    ]
    return [dice.choice(facts) for _ in range(dice.randrange(1, 4))]


async def test_every_moment_sees_what_was_live_then(world):
    dice = random.Random(7)
    lived = {NOON - TICK: []}
    for _ in range(25):
        world.clock.advance(dice.choice([timedelta(0), TICK, SECOND]))
        boxes = dice.sample("abcd", dice.randrange(1, 4))
        time = await world.record(**{box: any_facts(dice) for box in boxes})
        lived[time] = await world.live()

    for moment, rows in lived.items():
        found, _ = await world.page(moment, order_by="label", size=100)
        one_by_one = [
            await VERSIONS.existing_at(world.pool, "acme", f"boxes/{row.aggregate_id}", moment)
            for row in rows
        ]

        assert rows == sorted(found, key=lambda row: row.aggregate_id) == one_by_one


async def test_what_was_between_two_events_of_one_transaction_was_never_to_be_seen(world):
    time = await world.record(a=put("hat", "coat"))
    later = time + SECOND
    world.clock.set(later)
    await world.record(a=[*put("scarf"), BoxEmptied()])

    kept = await world.pool.fetch(
        "select version, from_time, to_time from boxes.boxes_versions order by version"
    )

    assert [(1, time, time), (2, time, later), (3, later, later)] == [
        tuple(version) for version in kept[:3]
    ]
    assert [None, ("hat", "coat"), ("hat", "coat"), ()] == [
        await world.at(moment) for moment in (time - TICK, time, later - TICK, later)
    ]


@pytest.mark.parametrize("order_by", ["", "update_time desc", "label", "label desc"])
async def test_a_walk_as_of_a_moment_gives_the_list_of_then_whatever_is_written(world, order_by):
    dice = random.Random(3)
    for box in "abcdefg":
        await world.record(**{box: any_facts(dice)})
    world.clock.advance(SECOND)
    await world.record(a=put("before the walk"), h=put("new"))
    moment = await world.seal(world.clock.now())
    whole, _ = await world.page(moment, order_by, size=100)
    walked, token = await world.page(moment, order_by)
    while token:
        await world.record(**{dice.choice("abcdefghi"): any_facts(dice) for _ in range(3)})
        page, token = await world.page(moment, order_by, token=token)
        walked += page

    assert list("abcdefgh") == sorted(row.aggregate_id for row in walked)
    assert whole == walked


async def test_a_page_token_is_bound_to_its_moment(world):
    await world.record(a=put("hat"), b=put("hat"))
    _, token = await world.page(NOON, size=1)

    for other in (NOON - TICK, None):
        with pytest.raises(InvalidPageToken):
            await world.page(other, size=1, token=token)


async def test_a_filter_asks_what_was(world):
    time = await world.record(a=[BoxLabelled(label="x")], b=[BoxLabelled(label="y")])
    world.clock.advance(SECOND)
    await world.record(a=[BoxLabelled(label="y")])

    now, _ = await world.page(None, filter_="label = y")
    then, _ = await world.page(time, filter_="label = y")

    assert (["a", "b"], ["b"]) == (
        sorted(row.aggregate_id for row in now),
        [row.aggregate_id for row in then],
    )


def test_a_list_without_versions_has_no_past():
    listing = Listing(
        method="ListThings",
        table=Table("things", key="id", positions=Positions()),
        columns="id",
        fields=Fields({}),
    )

    with pytest.raises(ValueError, match="keeps no versions"):
        listing.query(workspace="acme", positions=(1,), moment=NOON)


async def test_who_says_no_moment_asks_about_now(world):
    assert await world.seal(None) is None


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (DatedRequest(NOON + TICK), "lies in the future"),
        (DatedRequest(timestamp=Timestamp(seconds=2**60)), "lies outside the calendar"),
        (DatedRequest(timestamp=Timestamp(seconds=-(2**60))), "lies outside the calendar"),
    ],
)
async def test_the_future_and_what_no_calendar_has_are_refused(world, request_, told):
    with pytest.raises(InvalidArgument, match=told) as refused:
        await read_moment(world.pool, world.clock, request_)

    assert ["read_time"] == [violation.field for violation in refused.value.violations]


async def test_now_is_not_the_future_and_the_oldest_time_is_a_moment(world):
    oldest = datetime(1, 1, 1, tzinfo=UTC)

    assert [NOON, oldest] == [await world.seal(NOON), await world.seal(oldest)]


async def test_what_a_replica_recorded_whose_clock_is_ahead_is_not_the_future(world):
    world.clock.advance(SECOND)
    time = await world.record(a=put("hat"))
    world.clock.set(NOON)

    assert time == await world.seal(time)
    with pytest.raises(InvalidArgument, match="future"):
        await world.seal(time + TICK)


@contextlib.asynccontextmanager
async def appending(world):
    """An append is in flight: it has its time of recording, and nobody sees it yet."""
    connection = await world.pool.acquire()
    begun = connection.transaction()
    await begun.start()
    time = await world.append(connection, a=put("hat"))

    async def commit():
        await begun.commit()
        await world.pool.release(connection)

    yield time, commit


async def test_a_moment_waits_for_the_append_that_is_recorded_before_it(world):
    async with appending(world) as (time, commit):
        world.clock.advance(SECOND)
        sealing = asyncio.create_task(world.seal(world.clock.now()))
        await eventually(lambda: _is_waiting(world.pool))
        is_done_before = sealing.done()
        await commit()

    moment = await sealing
    assert not is_done_before
    assert time < moment
    assert ("hat",) == await world.at(moment)


async def test_without_the_seal_the_past_changes_under_who_reads_it(world):
    async with appending(world) as (_, commit):
        moment = NOON + SECOND
        before = await world.at(moment)
        await commit()

    assert (None, ("hat",)) == (before, await world.at(moment))


async def test_what_comes_after_a_moment_is_recorded_later_though_the_clock_is_behind(world):
    moment = await world.seal(NOON)
    world.clock.set(NOON - timedelta(hours=1))

    time = await world.record(a=put("hat"))

    assert moment + TICK == time
    assert await world.at(moment) is None


async def test_without_the_seal_a_clock_that_is_behind_writes_into_the_past(world):
    before = await world.at(NOON)
    world.clock.set(NOON - timedelta(hours=1))

    await world.record(a=put("hat"))

    assert (None, ("hat",)) == (before, await world.at(NOON))


async def test_every_partition_is_sealed_and_a_sealed_moment_is_not_written_again(database):
    async with world_of(database, partitions=3) as world:
        await world.record(a=put("hat"))
        moment = await world.seal(NOON)
        sealed = await _heads(world.pool)
        await world.seal(moment)
        await world.seal(moment - SECOND)

        assert sealed == await _heads(world.pool)
        assert [NOON] * 3 == [time for _, time, _ in sealed]
        world.clock.set(NOON - SECOND)
        times = [await world.record(**{box: put("hat")}) for box in "abcdefgh"]
        assert all(moment < time for time in times)


async def _heads(pool):
    rows = await pool.fetch(
        "select partition, record_time, xmin::text from kernel.heads order by partition"
    )
    return [tuple(row) for row in rows]


async def _is_waiting(pool):
    assert await pool.fetchval(IN_FLIGHT) == 1
