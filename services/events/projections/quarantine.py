"""The view `quarantine`: one slim row per customer event that waits to be mended.

It is read at once: whoever heard that one is in quarantine finds it there, and one that was
recorded or discarded is gone. The customer events themselves stay in the log. A batch that touches
no quarantine costs it a look at each event.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    CustomerEventQuarantined,
    CustomerEventRecorded,
    CustomerEventRetracted,
    QuarantinedEventDiscarded,
)
from rapport.events.v1.quarantine_pb2 import QuarantinedEvent
from services.events.leaving import name_of
from services.events.receipts import message_id_of
from services.kernel.lists.filter import Arguments, Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.log import read_heads
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Pool, Record

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from rapport.events.v1.quarantine_pb2 import ListQuarantinedEventsRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

LEFT_COUNT_MAX = 100_000
"""As many are counted when somebody asks how many are left."""

_TABLES = """
create table {schema}.quarantined_events (
    workspace text not null,
    message_id text collate "C" not null,
    partition int not null,
    position bigint not null,
    version bigint not null,
    type smallint not null,
    name text collate "C",
    user_id text collate "C",
    anonymous_id text collate "C",
    group_id text collate "C",
    source text collate "C",
    import_name text collate "C",
    rules text[] not null,
    paths text[] not null,
    tracking_plan text collate "C",
    occur_time timestamptz not null,
    receive_time timestamptz not null,
    quarantine_time timestamptz not null,
    primary key (workspace, message_id)
);
create index on {schema}.quarantined_events (workspace, quarantine_time, message_id);
create index on {schema}.quarantined_events (quarantine_time);
"""

_COLUMNS = (
    "workspace",
    "message_id",
    "partition",
    "position",
    "version",
    "type",
    "name",
    "user_id",
    "anonymous_id",
    "group_id",
    "source",
    "import_name",
    "rules",
    "paths",
    "tracking_plan",
    "occur_time",
    "receive_time",
    "quarantine_time",
)

_FORGET = """
delete from {schema}.quarantined_events q
using unnest($1::text[], $2::text[]) gone (workspace, message_id)
where q.workspace = gone.workspace and q.message_id = gone.message_id
"""

_KEPT = """
select q.message_id, q.partition, q.position, q.version, q.quarantine_time, e.data
from quarantine.quarantined_events q
join unnest($2::text[]) with ordinality asked(message_id, place) using (message_id)
join kernel.events e using (partition, position)
where q.workspace = $1
order by asked.place
"""

_COUNT = """
select count(*) from (
    select from quarantine.quarantined_events where workspace = {} and {} limit {}
) matching
"""

_WAITING = """
select count(*) as waiting, min(quarantine_time) as oldest_time from quarantine.quarantined_events
"""

_TEXTS = (
    "message_id",
    "name",
    "user_id",
    "anonymous_id",
    "group_id",
    "source",
    "tracking_plan",
)
_TIMES = ("occur_time", "receive_time", "quarantine_time")
_ENDINGS = (CustomerEventRecorded, QuarantinedEventDiscarded, CustomerEventRetracted)

FIELDS = Fields(
    {
        **{
            name: Field(name, Kind.TEXT, sortable=True, immutable=True, nullable=name != _TEXTS[0])
            for name in _TEXTS
        },
        **{
            name: Field(name, Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False)
            for name in _TIMES
        },
        "type": Field("type", Kind.ENUM, values=dict(CustomerEventType.items())),
        "import": Field("import_name", Kind.TEXT, sortable=True, immutable=True),
        "rules": Field("rules", Kind.TEXT_LIST),
        "paths": Field("paths", Kind.TEXT_LIST),
    },
    searched=("name",),
)


def _listing(method: str, order: str) -> Listing:
    return Listing(
        method=method,
        table=Table(
            "quarantine.quarantined_events",
            key="message_id",
            positions=Positions(created="position", changed="position", partition="partition"),
        ),
        columns="message_id",
        fields=FIELDS,
        default_order=order,
    )


LISTING = _listing("ListQuarantinedEvents", "quarantine_time desc")
OLDEST_FIRST = _listing("ResubmitQuarantinedEvents", "quarantine_time")


class Kept(NamedTuple):
    """A customer event in quarantine: the fact, and where it is."""

    customer_event: CustomerEvent
    partition: int
    position: int
    version: int
    quarantine_time: datetime


class Waiting(NamedTuple):
    """How many wait in all workspaces, and since when the oldest does."""

    number: int
    oldest_time: datetime | None


class QuarantineView:
    """Keeps a row for each customer event from when it is quarantined until it is no longer."""

    name = "quarantine"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds what begins and what ends a stay in quarantine; most events do neither."""
        begun: dict[tuple[str, str], Recorded] = {}
        ended: set[tuple[str, str]] = set()
        for event in events:
            fact = event.event
            if isinstance(fact, CustomerEventQuarantined):
                begun[event.workspace, event.stream] = event
            elif event.version > 1 and isinstance(fact, _ENDINGS):
                begun.pop((event.workspace, event.stream), None)
                ended.add((event.workspace, message_id_of(event.stream)))
        if ended:
            await tx.execute(_FORGET.format(schema=schema), *columns(sorted(ended)))
        if begun:
            await tx.copy_records_to_table(
                "quarantined_events",
                schema_name=schema,
                columns=_COLUMNS,
                records=[_row(event) for event in begun.values()],
            )


async def forget(tx: Tx, schema: str, messages: Sequence[tuple[str, str]]) -> None:
    """Drops what is erased, by workspace and message id."""
    await tx.execute(_FORGET.format(schema=f'"{schema}"'), *columns(messages))


async def list_quarantined(
    pool: Pool, workspace: str, request: ListQuarantinedEventsRequest
) -> tuple[list[QuarantinedEvent], str]:
    """A page of what is in quarantine, and the token of the next page."""
    query = LISTING.query(
        workspace=workspace,
        positions=tuple((await read_heads(pool)).values()),
        filter=request.filter,
        order_by=request.order_by,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    found = await kept(pool, workspace, [row["message_id"] for row in page.rows])
    return [quarantined_event_of(each) for each in found.values()], page.next_page_token


async def oldest_matching(
    pool: Pool, workspace: str, *, filter_text: str, page_token: str, count: int
) -> tuple[list[str], str]:
    """The message ids of the oldest that match a filter, and the token of those after them."""
    query = OLDEST_FIRST.query(
        workspace=workspace,
        positions=tuple((await read_heads(pool)).values()),
        filter=filter_text,
        page_size=count,
        page_token=page_token,
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    return [row["message_id"] for row in page.rows], page.next_page_token


async def count_matching(pool: Pool, workspace: str, filter_text: str) -> int:
    """How many match a filter; at most LEFT_COUNT_MAX are counted."""
    arguments = Arguments()
    own = arguments.add(workspace, "text")
    wanted = FIELDS.filter(filter_text).sql(arguments)
    statement = _COUNT.format(own, wanted, arguments.add(LEFT_COUNT_MAX, "bigint"))
    count: int = await pool.fetchval(statement, *arguments.values)
    return count


async def kept(pool: Pool, workspace: str, message_ids: Sequence[str]) -> Mapping[str, Kept]:
    """Those of some customer events that are in quarantine, in the order asked."""
    rows = await pool.fetch(_KEPT, workspace, message_ids)
    return {row["message_id"]: _kept(row) for row in rows}


async def waiting(pool: Pool) -> Waiting:
    """What waits in quarantine in all workspaces."""
    [row] = await pool.fetch(_WAITING)
    return Waiting(row["waiting"], row["oldest_time"])


def quarantined_event_of(found: Kept) -> QuarantinedEvent:
    """Returns a customer event in quarantine as the API shows it."""
    return QuarantinedEvent(
        name=name_of(found.customer_event.message_id),
        customer_event=found.customer_event,
        quarantine_time=timestamp_of(found.quarantine_time),
        position=found.position,
        partition=found.partition,
    )


def _kept(row: Record) -> Kept:
    return Kept(
        CustomerEventQuarantined.FromString(row["data"]).customer_event,
        row["partition"],
        row["position"],
        row["version"],
        row["quarantine_time"],
    )


def _row(event: Recorded) -> tuple[object, ...]:
    assert isinstance(event.event, CustomerEventQuarantined)
    sent = event.event.customer_event
    broken = sent.violations
    return (
        event.workspace,
        sent.message_id,
        event.partition,
        event.position,
        event.version,
        sent.type,
        sent.name or None,
        sent.user_id or None,
        sent.anonymous_id or None,
        sent.group_id or None,
        sent.source or None,
        sent.import_name or None,
        sorted({violation.rule for violation in broken}),
        sorted({violation.path for violation in broken}),
        broken[0].tracking_plan or None if broken else None,
        event.occur_time,
        sent.receive_time.ToDatetime(tzinfo=UTC),
        event.record_time,
    )
