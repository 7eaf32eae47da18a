"""The view `customer_events`: one slim row per customer event, to filter and sort a list by.

The customer events themselves stay in the log, which is in the same database; a page is found here
and then filled from there. What is in quarantine, or was retracted, has no row. How many came is
counted beside, per hour (`counts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    CustomerEventQuarantined,
    CustomerEventRecorded,
    CustomerEventRetracted,
)
from rapport.events.v1.service_pb2 import ReceiptOutcome, WatchedCustomerEvent
from services.events.projections import counts
from services.events.receipts import stream_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.log import read_stream
from services.kernel.log.recorded import utc
from services.kernel.log.sql import columns
from services.kernel.views.checkpoint import read_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncpg import Pool

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from rapport.events.v1.service_pb2 import ListCustomerEventsRequest
    from services.kernel.log.log import Log
    from services.kernel.log.recorded import EventTypes, Recorded
    from services.kernel.log.sql import Tx

SOURCE = "events"

_TABLES = """
create table {schema}.customer_events (
    workspace text not null,
    partition int not null,
    position bigint not null,
    message_id text collate "C" not null,
    type smallint not null,
    name text collate "C",
    user_id text collate "C",
    anonymous_id text collate "C",
    group_id text collate "C",
    source text collate "C",
    import_name text collate "C",
    occur_time timestamptz not null,
    receive_time timestamptz not null,
    primary key (workspace, receive_time, position, partition)
);
create index on {schema}.customer_events (workspace, occur_time);
create index on {schema}.customer_events (workspace, user_id, receive_time)
    where user_id is not null;
create index on {schema}.customer_events (workspace, anonymous_id, receive_time)
    where anonymous_id is not null;
create index on {schema}.customer_events (workspace, group_id, receive_time)
    where group_id is not null;
create index on {schema}.customer_events (workspace, name, receive_time) where name is not null;
create index on {schema}.customer_events (workspace, import_name, message_id)
    where import_name is not null;
"""

COLUMNS = (
    "workspace",
    "partition",
    "position",
    "message_id",
    "type",
    "name",
    "user_id",
    "anonymous_id",
    "group_id",
    "source",
    "import_name",
    "occur_time",
    "receive_time",
)

# What an import brought is found by the index of imports. Nothing else is ever retracted as yet: an
# index for it would cost each customer event more than it could save.
_FORGET = """
delete from {schema}.customer_events c
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, message_id, import_name)
where c.workspace = gone.workspace and c.message_id = gone.message_id and {of_import}
"""
_ERASE = """
delete from {schema}.customer_events c
using unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::int[])
    gone (workspace, receive_time, position, partition)
where (c.workspace, c.receive_time, c.position, c.partition)
    = (gone.workspace, gone.receive_time, gone.position, gone.partition)
"""
_OF_IMPORT = {True: "c.import_name = gone.import_name", False: "c.import_name is null"}

_PAYLOADS = """
select e.type, e.data
from unnest($1::int[], $2::bigint[]) with ordinality asked(partition, position, place)
join kernel.events e using (partition, position)
where e.erasure is null
order by asked.place
"""

_BY_NAME = {
    "message_id": Field("message_id", Kind.TEXT, sortable=True, immutable=True, nullable=False),
    "type": Field("type", Kind.ENUM, values=dict(CustomerEventType.items())),
    "name": Field("name", Kind.TEXT, sortable=True, immutable=True),
    "user_id": Field("user_id", Kind.TEXT, sortable=True, immutable=True),
    "anonymous_id": Field("anonymous_id", Kind.TEXT, sortable=True, immutable=True),
    "group_id": Field("group_id", Kind.TEXT, sortable=True, immutable=True),
    "source": Field("source", Kind.TEXT, sortable=True, immutable=True),
    "import": Field("import_name", Kind.TEXT, sortable=True, immutable=True),
    "position": Field("position", Kind.INTEGER, sortable=True, immutable=True, nullable=False),
    "occur_time": Field(
        "occur_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
    ),
    "receive_time": Field(
        "receive_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
    ),
}
_FIELDS = Fields(_BY_NAME, searched=("name",))
_WATCHED_FIELDS = Fields(
    {
        **_BY_NAME,
        "outcome": Field(
            "outcome",
            Kind.ENUM,
            values={
                "RECORDED": ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED,
                "QUARANTINED": ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED,
            },
        ),
    },
    searched=("name",),
)


class CustomerEventsView:
    """The rows of `customer_events`."""

    name = "customer_events"
    shape = 3

    def tables(self, schema: str) -> str:
        """The tables and what lists of them need."""
        quoted = f'"{schema}"'
        return _TABLES.format(schema=quoted) + counts.TABLES.format(schema=quoted)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Add a row per customer event that counts, and forget what was retracted."""
        recorded: dict[tuple[str, str], Recorded] = {}
        retracted: set[tuple[str, str, str]] = set()
        for event in events:
            if isinstance(event.event, CustomerEventRecorded):
                recorded[event.workspace, event.stream] = event
            elif isinstance(event.event, CustomerEventRetracted):
                recorded.pop((event.workspace, event.stream), None)
                fact = event.event
                retracted.add((event.workspace, fact.message_id, fact.import_name))
        for is_imported, of_import in _OF_IMPORT.items():
            gone = sorted(each for each in retracted if bool(each[2]) is is_imported)
            if gone:
                forget = _FORGET.format(schema=f'"{schema}"', of_import=of_import)
                await tx.execute(forget, *columns(gone))
        await tx.copy_records_to_table(
            "customer_events",
            schema_name=schema,
            columns=COLUMNS,
            records=[row_of(event) for event in recorded.values()],
        )
        await counts.count(tx, f'"{schema}"', events)

    async def forget(
        self, tx: Tx, schema: str, events: Sequence[Recorded], reached: Mapping[int, int]
    ) -> None:
        """Drops the rows of customer events that are erased, and counts them no longer.

        `reached` tells per partition what the schema has counted.
        """
        rows = [
            (
                event.workspace,
                utc(event.event.customer_event.receive_time),
                event.position,
                event.partition,
            )
            for event in events
            if isinstance(event.event, CustomerEventRecorded)
        ]
        if rows:
            await tx.execute(_ERASE.format(schema=f'"{schema}"'), *columns(rows))
        counted = [e for e in events if e.position <= reached.get(e.partition, 0)]
        await counts.uncount(tx, f'"{schema}"', counted)


VIEW = CustomerEventsView()

LISTING = Listing(
    method="ListCustomerEvents",
    table=Table(
        f"{VIEW.name}.customer_events",
        key="message_id",
        positions=Positions(created="position", changed="position", partition="partition"),
    ),
    columns="partition, position",
    fields=_FIELDS,
    default_order="receive_time desc, position desc",
)


@dataclass(frozen=True, slots=True)
class CustomerEvents:
    """The questions about customer events of one workspace at a time."""

    pool: Pool
    log: Log
    event_types: EventTypes

    async def list(
        self, workspace: str, request: ListCustomerEventsRequest
    ) -> tuple[list[CustomerEvent], str]:
        """A page of customer events from the view, and the token of the next page."""
        reached = await read_positions(self.pool, VIEW.name)
        query = LISTING.query(
            workspace=workspace,
            positions=[reached.get((SOURCE, n), 0) for n in range(self.log.partitions)],
            filter=request.filter,
            order_by=request.order_by,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        page = query.page(await self.pool.fetch(query.sql, *query.args))
        partitions = [row["partition"] for row in page.rows]
        positions = [row["position"] for row in page.rows]
        payloads = await self.pool.fetch(_PAYLOADS, partitions, positions)
        return [self._read(row["type"], row["data"]) for row in payloads], page.next_page_token

    async def get(self, workspace: str, message_id: str) -> CustomerEvent | None:
        """A customer event straight from the log, which is never behind."""
        found = None
        for envelope in await read_stream(self.pool, workspace, stream_of(message_id)):
            fact = self.event_types.message(envelope.type, envelope.data)
            if isinstance(fact, CustomerEventRecorded):
                found = fact.customer_event
            elif isinstance(fact, CustomerEventRetracted):
                found = None
        return found

    def _read(self, full_name: str, data: bytes) -> CustomerEvent:
        fact = self.event_types.message(full_name, data)
        assert isinstance(fact, CustomerEventRecorded)
        return fact.customer_event


def row_of(event: Recorded) -> tuple[object, ...]:
    """The row of one customer event, in the order of COLUMNS."""
    assert isinstance(event.event, CustomerEventRecorded | CustomerEventQuarantined)
    fact = event.event.customer_event
    return (
        event.workspace,
        event.partition,
        event.position,
        fact.message_id,
        fact.type,
        fact.name or None,
        fact.user_id or None,
        fact.anonymous_id or None,
        fact.group_id or None,
        fact.source or None,
        fact.import_name or None,
        event.occur_time,
        utc(fact.receive_time),
    )


def watched(text: str) -> Callable[[Sequence[Recorded]], list[WatchedCustomerEvent]]:
    """What picks those out of the log's events that a watch with this filter tells."""
    wanted = _WATCHED_FIELDS.filter(text)

    def matching(events: Sequence[Recorded]) -> list[WatchedCustomerEvent]:
        return [
            WatchedCustomerEvent(
                customer_event=event.event.customer_event,
                outcome=_outcome(event.event),
                position=event.position,
                partition=event.partition,
            )
            for event in events
            if isinstance(event.event, CustomerEventRecorded | CustomerEventQuarantined)
            and wanted.matches(_watched_row(event))
        ]

    return matching


def _watched_row(event: Recorded) -> dict[str, object]:
    fact = event.event
    assert isinstance(fact, CustomerEventRecorded | CustomerEventQuarantined)
    return dict(zip(COLUMNS, row_of(event), strict=True)) | {"outcome": _outcome(fact)}


def _outcome(
    fact: CustomerEventRecorded | CustomerEventQuarantined,
) -> ReceiptOutcome.ValueType:
    if isinstance(fact, CustomerEventRecorded):
        return ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
    return ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
