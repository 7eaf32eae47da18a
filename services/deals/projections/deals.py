"""The view `deals`: a row per deal as its events leave it, and the questions it answers.

It is read at once: its rows change in the transaction that appends the events. It folds with the
decider's own `evolve`, so a row and a decision cannot disagree. What is unset is null, as filters
want it. The board is counted from the rows when it is asked for, along indexes made for it, so it
cannot drift from them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

from asyncpg import Pool

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    Deal,
    DealBoardStage,
    GetDealBoardResponse,
    ListDealsRequest,
    ListDealsResponse,
)
from services.deals.deciders.deal import DECIDER, STAGES, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.database import transaction
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.log.sql import Tx
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

# The index on custom fields cannot begin with the workspace; every query names it all the same.
_TABLES = f"""
create table {{schema}}.deals (
    workspace text not null,
    deal_id text collate "C" not null,
    state int not null,
    display_name text collate "C",
    contact text collate "C",
    amount_minor bigint,
    currency text collate "C",
    stage text collate "C" not null,
    lost_reason text collate "C",
    expected_close_time timestamptz,
    close_time timestamptz,
    custom_fields jsonb not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, deal_id)
);
create index deals_by_create_time
    on {{schema}}.deals (workspace, create_time, deal_id);
create index deals_by_update_position
    on {{schema}}.deals (workspace, update_position);
create index deals_by_contact
    on {{schema}}.deals (workspace, contact, create_time, deal_id) where contact is not null;
create index deals_by_custom_fields
    on {{schema}}.deals using gin (custom_fields jsonb_path_ops);
create index open_deals_by_stage
    on {{schema}}.deals (workspace, stage, create_time, deal_id) where state = {DEAL_STATE_OPEN};
create index open_deals_by_amount
    on {{schema}}.deals (workspace, stage, currency) include (amount_minor)
    where state = {DEAL_STATE_OPEN};
"""

_COLUMNS = """deal_id, state, display_name, contact, amount_minor, currency, stage, lost_reason,
    expected_close_time, close_time, custom_fields, version, partition, create_position,
    update_position, create_time, update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.deals
join unnest($1::text[], $2::text[]) as asked (workspace, deal_id) using (workspace, deal_id)
"""

_SAVE = f"""
insert into {{schema}}.deals (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::text[],
    $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::jsonb[], $13::bigint[],
    $14::int[], $15::bigint[], $16::bigint[], $17::timestamptz[], $18::timestamptz[]
)
on conflict (workspace, deal_id) do update set
    state = excluded.state, display_name = excluded.display_name, contact = excluded.contact,
    amount_minor = excluded.amount_minor, currency = excluded.currency, stage = excluded.stage,
    lost_reason = excluded.lost_reason, expected_close_time = excluded.expected_close_time,
    close_time = excluded.close_time, custom_fields = excluded.custom_fields,
    version = excluded.version, update_position = excluded.update_position,
    update_time = excluded.update_time
"""

_ONE = f"select workspace, {_COLUMNS} from deals.deals where workspace = $1 and deal_id = $2"

_ONE_MOMENT = "set transaction isolation level repeatable read, read only"

_BOARD_SUMS = f"""
select stage, currency, count(*) as deal_count, sum(amount_minor) as amount_minor
from deals.deals
where workspace = $1 and state = {DEAL_STATE_OPEN} and stage = any($2::text[])
group by stage, currency
order by stage, currency
"""

_BOARD_DEALS = f"""
select newest.*
from unnest($2::text[]) as asked (stage)
cross join lateral (
    select workspace, {_COLUMNS}
    from deals.deals
    where workspace = $1 and state = {DEAL_STATE_OPEN} and deals.stage = asked.stage
    order by create_time desc, deal_id desc
    limit $3
) as newest
"""

DEALS_PER_STAGE_DEFAULT = 20

_STATES = {
    "OPEN": DEAL_STATE_OPEN,
    "WON": DEAL_STATE_WON,
    "LOST": DEAL_STATE_LOST,
    "DEAL_STATE_OPEN": DEAL_STATE_OPEN,
    "DEAL_STATE_WON": DEAL_STATE_WON,
    "DEAL_STATE_LOST": DEAL_STATE_LOST,
}

FIELDS = Fields(
    {
        "display_name": Field("display_name", Kind.TEXT, sortable=True),
        "contact": Field("contact", Kind.TEXT),
        "amount_minor": Field("amount_minor", Kind.INTEGER, sortable=True),
        "currency": Field("currency", Kind.TEXT),
        "stage": Field("stage", Kind.TEXT, nullable=False),
        "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
        "lost_reason": Field("lost_reason", Kind.TEXT),
        "custom_fields": Field("custom_fields", Kind.STRUCT),
        "expected_close_time": Field("expected_close_time", Kind.TIMESTAMP, sortable=True),
        "close_time": Field("close_time", Kind.TIMESTAMP, sortable=True),
        "create_time": Field(
            "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
    },
    searched=("display_name",),
)

DEALS = Listing(
    method="ListDeals",
    table=Table("deals.deals", key="deal_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_COLUMNS}",
    fields=FIELDS,
    default_order="create_time",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        state=record["state"],
        display_name=record["display_name"] or "",
        contact=record["contact"] or "",
        amount_minor=record["amount_minor"] or 0,
        currency=record["currency"] or "",
        stage=record["stage"],
        lost_reason=record["lost_reason"] or "",
        expected_close_time=record["expected_close_time"],
        custom_fields=json.loads(record["custom_fields"]),
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return (
        state.state,
        state.display_name or None,
        state.contact or None,
        state.amount_minor if state.currency else None,
        state.currency or None,
        state.stage,
        state.lost_reason or None,
        state.expected_close_time,
        close_time_of(row),
        json.dumps(state.custom_fields, sort_keys=True),
    )


DEAL_ROWS = AggregateRows(
    DECIDER,
    key="deal_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class DealsView:
    """Keeps the rows."""

    name = "deals"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        own = DEAL_ROWS.own(events)
        if own:
            await DEAL_ROWS.fold(tx, schema, own)


async def list_deals(pool: Pool, workspace: str, request: ListDealsRequest) -> ListDealsResponse:
    """Returns a page of deals."""
    rows, next_page_token = await DEAL_ROWS.page(pool, DEALS, workspace, request)
    return ListDealsResponse(
        deals=[deal_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


async def get_board(pool: Pool, workspace: str, deals_per_stage: int) -> GetDealBoardResponse:
    """Returns every open stage with its count, its sums and its newest deals, as of one moment."""
    stages = {stage: DealBoardStage(stage=stage) for stage in STAGES}
    limit = deals_per_stage or DEALS_PER_STAGE_DEFAULT
    async with transaction(pool) as snapshot:
        await snapshot.execute(_ONE_MOMENT)
        sums = await snapshot.fetch(_BOARD_SUMS, workspace, STAGES)
        newest = await snapshot.fetch(_BOARD_DEALS, workspace, STAGES, limit)
    for row in sums:
        stage = stages[row["stage"]]
        stage.deal_count += row["deal_count"]
        if row["currency"] is not None:
            total = Money(amount_minor=int(row["amount_minor"]), currency=row["currency"])
            stage.amounts.append(total)
    for deal in map(DEAL_ROWS.row, newest):
        stages[deal.state.stage].deals.append(deal_of(deal.aggregate_id, deal))
    return GetDealBoardResponse(stages=stages.values())


def deal_of(deal_id: str, known: Row | Decided[State]) -> Deal:
    """Returns a deal as the API shows it."""
    state, close_time = known.state, close_time_of(known)
    expected = state.expected_close_time
    return Deal(
        name=DECIDER.name(deal_id),
        display_name=state.display_name,
        contact=state.contact,
        amount=state.amount,
        stage=state.stage,
        state=state.state,
        lost_reason=state.lost_reason,
        expected_close_time=None if expected is None else timestamp_of(expected),
        close_time=None if close_time is None else timestamp_of(close_time),
        custom_fields=state.custom_fields,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def close_time_of(known: Row | Decided[State]) -> datetime | None:
    """Returns when a closed deal was closed: its last change, since nothing can follow."""
    return None if known.state.state == DEAL_STATE_OPEN else known.update_time
