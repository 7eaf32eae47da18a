"""The view `customer_events`: one slim row per customer event, to filter and sort a list by.

The customer events themselves stay in the log, which is in the same database; a page is found here
and then filled from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventRecorded
from services.events.receipts import stream_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.log import read_stream
from services.kernel.views.checkpoint import read_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    occur_time timestamptz not null,
    receive_time timestamptz not null,
    primary key (workspace, receive_time, position, partition)
);
create index on {schema}.customer_events (workspace, message_id);
create index on {schema}.customer_events (workspace, occur_time);
create index on {schema}.customer_events (workspace, user_id, receive_time)
    where user_id is not null;
create index on {schema}.customer_events (workspace, anonymous_id, receive_time)
    where anonymous_id is not null;
create index on {schema}.customer_events (workspace, group_id, receive_time)
    where group_id is not null;
create index on {schema}.customer_events (workspace, name, receive_time) where name is not null;
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
    "occur_time",
    "receive_time",
)

_PAYLOADS = """
select e.type, e.data
from unnest($1::int[], $2::bigint[]) with ordinality asked(partition, position, place)
join kernel.events e using (partition, position)
order by asked.place
"""

_FIELDS = Fields(
    {
        "message_id": Field("message_id", Kind.TEXT, sortable=True, immutable=True, nullable=False),
        "type": Field("type", Kind.ENUM, values=dict(CustomerEventType.items())),
        "name": Field("name", Kind.TEXT, sortable=True, immutable=True),
        "user_id": Field("user_id", Kind.TEXT, sortable=True, immutable=True),
        "anonymous_id": Field("anonymous_id", Kind.TEXT, sortable=True, immutable=True),
        "group_id": Field("group_id", Kind.TEXT, sortable=True, immutable=True),
        "position": Field("position", Kind.INTEGER, sortable=True, immutable=True, nullable=False),
        "occur_time": Field(
            "occur_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "receive_time": Field(
            "receive_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
    },
    searched=("name",),
)


class CustomerEventsView:
    """The rows of `customer_events`."""

    name = "customer_events"
    shape = 1

    def tables(self, schema: str) -> str:
        """The table and what lists of it need."""
        return _TABLES.format(schema=f'"{schema}"')

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Add a row per customer event."""
        rows = [row_of(event) for event in events if isinstance(event.event, CustomerEventRecorded)]
        await tx.copy_records_to_table(
            "customer_events", schema_name=schema, columns=COLUMNS, records=rows
        )


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
        for envelope in await read_stream(self.pool, workspace, stream_of(message_id), limit=1):
            return self._read(envelope.type, envelope.data)
        return None

    def _read(self, full_name: str, data: bytes) -> CustomerEvent:
        fact = self.event_types.message(full_name, data)
        assert isinstance(fact, CustomerEventRecorded)
        return fact.customer_event


def row_of(event: Recorded) -> tuple[object, ...]:
    """The row of one customer event, in the order of COLUMNS."""
    assert isinstance(event.event, CustomerEventRecorded)
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
        event.occur_time,
        fact.receive_time.ToDatetime(tzinfo=UTC),
    )
