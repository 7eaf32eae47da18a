"""How many customer events came, per hour, source, type, name and outcome.

What is in the log is counted by the view, from the log: exact, whatever crashes. What never got
there, as it was refused, a duplicate or sampled out, is counted at the door, after the answer was
decided: a crash at that moment loses the count, never the answer. Only track calls are counted by
name, for pages and screens have as many names as there are urls.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventQuarantined, CustomerEventRecorded
from rapport.events.v1.service_pb2 import CustomerEventCount, ReceiptOutcome
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Row, Table
from services.kernel.log.database import DATABASE_FAILURES
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Pool

    from rapport.events.v1.service_pb2 import (
        ListCustomerEventCountsRequest,
    )
    from services.events.receipts import Tally
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx
    from services.kernel.process.runtime import Kernel

TABLES = """
create table {schema}.counts (
    workspace text not null,
    hour timestamptz not null,
    source text collate "C" not null,
    type smallint not null,
    name text collate "C" not null,
    outcome smallint not null,
    reason text collate "C" not null,
    count bigint not null,
    primary key (workspace, hour, source, type, name, outcome, reason)
);
create index on {schema}.counts (hour);
"""

TURNED_AWAY_TABLES = """
create schema if not exists door;
create table if not exists door.turned_away (
    workspace text not null,
    hour timestamptz not null,
    source text collate "C" not null,
    type smallint not null,
    name text collate "C" not null,
    outcome smallint not null,
    reason text collate "C" not null,
    count bigint not null,
    primary key (workspace, hour, source, type, name, outcome, reason)
);
create index if not exists turned_away_by_hour on door.turned_away (hour);
"""
"""What the door itself counts is no view: it is not in the log."""

_log = structlog.get_logger(__name__)

_COLUMNS = "workspace, hour, source, type, name, outcome, reason, count"

_ADD = f"""
insert into {{table}} as known ({_COLUMNS})
select * from unnest($1::text[], $2::timestamptz[], $3::text[], $4::int[], $5::text[], $6::int[],
                     $7::text[], $8::bigint[])
on conflict (workspace, hour, source, type, name, outcome, reason)
do update set count = known.count + excluded.count
"""

_DROP = """
delete from {schema}.counts c using unnest($1::text[], $2::timestamptz[]) touched (workspace, hour)
where (c.workspace, c.hour) = (touched.workspace, touched.hour) and c.count = 0
"""

# Whoever is refused has a name, too, if somebody put it there: all but the names of the log go.
_NAMES_TURNED_AWAY = """
select distinct name from door.turned_away t
where workspace = $1 and name <> '' and not exists (
    select from customer_events.counts c where c.workspace = $1 and c.name = t.name
)
"""

_TAKE_NAMES = """
with taken as (
    delete from door.turned_away where workspace = $1 and name = any($2::text[])
    returning hour, source, type, outcome, reason, count
)
insert into door.turned_away as known (workspace, hour, source, type, name, outcome, reason, count)
select $1, hour, source, type, '', outcome, reason, sum(count) from taken
group by hour, source, type, outcome, reason
on conflict (workspace, hour, source, type, name, outcome, reason)
do update set count = known.count + excluded.count
"""

# A name that no column could hold as it is part of the key, and is refused for its length anyway.
_NAME_CHARACTERS_MAX = 500
_HOUR_S = 3600
_TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
_OUTCOMES = {
    name.removeprefix("RECEIPT_OUTCOME_"): value for name, value in ReceiptOutcome.items() if value
}
_TYPES = {
    name.removeprefix("CUSTOMER_EVENT_TYPE_"): value for name, value in CustomerEventType.items()
}

_ID = "concat_ws('/', extract(epoch from hour)::bigint, source, type, outcome, reason, name)"
_BOTH = f"""(
    select {_ID} as id, {_COLUMNS} from customer_events.counts
    union all
    select {_ID} as id, {_COLUMNS} from door.turned_away
) as counts"""

_TOTALS = """
select outcome, sum(count)::bigint as count from (
    select outcome, count from customer_events.counts where hour >= $1
    union all
    select outcome, count from door.turned_away where hour >= $1
) counts
group by outcome
"""

LISTING = Listing(
    method="ListCustomerEventCounts",
    table=Table(_BOTH, key="id", positions=None),
    columns=_COLUMNS,
    fields=Fields(
        {
            "hour": Field("hour", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False),
            "source": Field("source", Kind.TEXT, sortable=True, immutable=True, nullable=False),
            "type": Field("type", Kind.ENUM, values=_TYPES),
            "name": Field("name", Kind.TEXT, sortable=True, immutable=True, nullable=False),
            "outcome": Field("outcome", Kind.ENUM, values=_OUTCOMES),
            "reason": Field("reason", Kind.TEXT),
        },
        searched=("name",),
    ),
    default_order="hour desc, source, name",
)

Counted = tuple[str, object, str, int, str, int, str]


async def count(tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
    """Adds what came into the log to the counts of a view."""
    await _add(tx, f"{schema}.counts", _counted(events))


async def uncount(tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
    """Takes out of the counts of a view what is erased: as if it had never come."""
    counted = _counted(events)
    if counted:
        await _add(tx, f"{schema}.counts", {row: -number for row, number in counted.items()})
        hours = {row[:2] for row in counted}
        await tx.execute(_DROP.format(schema=schema), *columns(list(hours)))


def _counted(events: Sequence[Recorded]) -> dict[Counted, int]:
    counted: Counter[tuple[str, int, str, int, str, int]] = Counter()
    for event in events:
        fact = event.event
        if isinstance(fact, CustomerEventRecorded):
            outcome = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
        elif isinstance(fact, CustomerEventQuarantined):
            outcome = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
        else:
            continue
        sent = fact.customer_event
        kind = sent.type
        name = sent.name if kind == _TRACK else ""
        hour = sent.receive_time.seconds // _HOUR_S
        counted[event.workspace, hour, sent.source, kind, name, outcome] += 1
    return {
        (workspace, datetime.fromtimestamp(hour * _HOUR_S, UTC), source, kind, name, outcome, ""): n
        for (workspace, hour, source, kind, name, outcome), n in counted.items()
    }


async def count_turned_away(
    kernel: Kernel, workspace: str, source: str, tallies: Mapping[Tally, int]
) -> None:
    """Counts what did not get into the log."""
    if not tallies:
        return
    hour = kernel.clock.now().replace(minute=0, second=0, microsecond=0)
    counted: Counter[Counted] = Counter()
    for tally, number in tallies.items():
        name = tally.name[:_NAME_CHARACTERS_MAX].replace("\0", "")
        row = (workspace, hour, source, tally.type, name, tally.outcome, tally.reason)
        counted[row] += number
    try:
        await _add(kernel.pool, "door.turned_away", counted)
    except DATABASE_FAILURES as failure:
        # What was recorded is recorded: the sender gets its receipts, whatever becomes of a count.
        _log.warning("counts.lost", problem=repr(failure), count=sum(counted.values()))


async def forget_names_turned_away(pool: Pool, workspace: str) -> int:
    """Counts without a name what was turned away under one that nothing in the log has.

    Nobody knows whose it was, and a name may hold anything. Answers how many names went.
    """
    names = [row["name"] for row in await pool.fetch(_NAMES_TURNED_AWAY, workspace)]
    if names:
        await pool.execute(_TAKE_NAMES, workspace, names)
    return len(names)


async def _add(connection: Tx | Pool, table: str, counted: Mapping[Counted, int]) -> None:
    if counted:
        # In one order everywhere, so that two that add at once wait for each other in turn.
        rows = [(*row, number) for row, number in sorted(counted.items(), key=lambda it: str(it))]
        await connection.execute(_ADD.format(table=table), *columns(rows))


async def list_counts(
    pool: Pool, workspace: str, request: ListCustomerEventCountsRequest
) -> tuple[list[CustomerEventCount], str]:
    """A page of counts, and the token of the next page."""
    query = LISTING.query(
        workspace=workspace,
        filter=request.filter,
        order_by=request.order_by,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    return [_told(row) for row in page.rows], page.next_page_token


async def totals(pool: Pool, since: datetime) -> dict[int, int]:
    """How many customer events of all workspaces came to each outcome since an hour began."""
    return {row["outcome"]: row["count"] for row in await pool.fetch(_TOTALS, since)}


def _told(row: Row) -> CustomerEventCount:
    return CustomerEventCount(
        hour=timestamp_of(row["hour"]),
        source=row["source"],
        type=row["type"],
        name=row["name"],
        outcome=row["outcome"],
        reason=row["reason"],
        count=row["count"],
    )
