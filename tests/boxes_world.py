"""A log of boxes whose clock the test sets, with a view that keeps what they were."""

import contextlib
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp

from services.kernel.clock import FixedClock, new_ids
from services.kernel.errors import NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, Log, NewEvent, Origin
from services.kernel.log.tables import create_kernel_tables
from services.kernel.views.aggregate_rows import AggregateRows
from services.kernel.views.aggregate_table import AggregateTable
from services.kernel.views.aggregate_versions import AggregateVersions
from services.kernel.views.as_of import read_moment
from services.kernel.views.view import append_with_views, ensure_live
from tests.box import BOX, BoxState, ThingPut

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
    ROWS, AggregateTable("boxes", "boxes", "box_id", {"label": "text", "things": "jsonb"})
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
        self.log = Log(service="boxes", partitions=partitions, clock=self.clock, new_ids=new_ids)

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


def put(*things):
    return [ThingPut(thing=thing) for thing in things]
