"""The view `quotes`: a row per quote, what each row was before, and which quote is primary when.

It is read at once. It folds with the decider's own `evolve`, so a row and a decision cannot
disagree. Which quote is the primary one of a deal is a fact of the deal; it is kept here as it was
from when to when.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rapport.deals.v1.events_pb2 import DealQuoted
from rapport.deals.v1.lines_pb2 import QuoteDetails, Totals
from services.deals.deciders.quote import DECIDER
from services.deals.lines import serialised
from services.deals.quote import State
from services.kernel.log.sql import columns
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable
from services.kernel.views.aggregate_versions import AggregateVersions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

STATE_TYPES: Final = {
    "state": "int",
    "number": "text",
    "revision": "int",
    "deal": "text",
    "earlier_revisions": "jsonb",
    "next_revision": "text",
    "display_name": "text",
    "contact": "text",
    "company": "text",
    "currency": "text",
    "total_minor": "bigint",
    "valid_until": "text",
    "rejected_reason": "text",
    "approver": "text",
    "send_time": "timestamptz",
    "accepted_by": "text",
    "accept_time": "timestamptz",
    "declined_reason": "text",
    "details": "bytea",
    "summary": "bytea",
    "totals": "bytea",
}
"""The columns of a quote's state, with their types in SQL; `summary` is what lists show of it."""

QUOTES_TABLE: Final = AggregateTable("quotes", "quotes", "quote_id", STATE_TYPES)

COLUMNS: Final = QUOTES_TABLE.columns

_TABLES = """
create table {schema}.quotes (
    workspace text not null,
    quote_id text collate "C" not null,
    state int not null,
    number text collate "C" not null,
    revision int not null,
    deal text collate "C" not null,
    earlier_revisions jsonb not null,
    next_revision text collate "C",
    display_name text collate "C",
    contact text collate "C",
    company text collate "C",
    currency text collate "C" not null,
    total_minor bigint not null,
    valid_until text collate "C",
    rejected_reason text collate "C",
    approver text collate "C",
    send_time timestamptz,
    accepted_by text collate "C",
    accept_time timestamptz,
    declined_reason text collate "C",
    details bytea not null,
    summary bytea not null,
    totals bytea not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, quote_id)
);
create index quotes_by_create_time on {schema}.quotes (workspace, create_time, quote_id);
create index quotes_by_update_position on {schema}.quotes (workspace, update_position);
create index quotes_by_deal on {schema}.quotes (workspace, deal, create_time, quote_id);
create index quotes_by_number on {schema}.quotes (workspace, number, revision);
create table {schema}.primaries (
    workspace text not null,
    deal text collate "C" not null,
    version bigint not null,
    quote text collate "C" not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, deal, version)
);
create index primaries_by_quote on {schema}.primaries (workspace, quote, to_time);
"""

# After the table of versions.
_VERSION_INDEXES = """
create index quotes_versions_by_create_time
    on {schema}.quotes_versions (workspace, create_time, quote_id);
create index quotes_versions_by_deal
    on {schema}.quotes_versions (workspace, deal, create_time, quote_id);
"""

_ADD_PRIMARIES = """
insert into {schema}.primaries (workspace, deal, version, quote, from_time, to_time)
select workspace, deal, version, quote, from_time, coalesce(to_time, 'infinity')
from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[],
            $6::timestamptz[]) as added (workspace, deal, version, quote, from_time, to_time)
"""

_END_PRIMARIES = """
update {schema}.primaries ended set to_time = given.to_time
from unnest($1::text[], $2::text[], $3::timestamptz[]) as given (workspace, deal, to_time)
where (ended.workspace, ended.deal) = (given.workspace, given.deal)
    and ended.to_time = 'infinity'
"""

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        state=record["state"],
        number=int(record["number"].removeprefix("Q-")),
        revision=record["revision"],
        deal=record["deal"],
        earlier_revisions=tuple(json.loads(record["earlier_revisions"])),
        next_revision=record["next_revision"] or "",
        details=record["details"],
        totals=record["totals"],
        valid_until=record["valid_until"] or "",
        rejected_reason=record["rejected_reason"] or "",
        approver=record["approver"] or "",
        send_time=record["send_time"],
        accepted_by=record["accepted_by"] or "",
        accept_time=record["accept_time"],
        declined_reason=record["declined_reason"] or "",
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    details, totals = QuoteDetails.FromString(state.details), Totals.FromString(state.totals)
    summary = QuoteDetails()
    summary.CopyFrom(details)
    summary.line_items.ClearField("items")
    for name in ("terms", "issuer", "recipient"):
        summary.ClearField(name)
    return (
        state.state,
        state.number_text,
        state.revision,
        state.deal,
        json.dumps(state.earlier_revisions),
        state.next_revision or None,
        details.display_name or None,
        details.contact or None,
        details.company or None,
        totals.total.currency,
        totals.total.amount_minor,
        state.valid_until or None,
        state.rejected_reason or None,
        state.approver or None,
        state.send_time,
        state.accepted_by or None,
        state.accept_time,
        state.declined_reason or None,
        state.details,
        serialised(summary),
        state.totals,
    )


QUOTE_ROWS: Final = QUOTES_TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)

QUOTE_VERSIONS: Final = AggregateVersions(QUOTE_ROWS, QUOTES_TABLE)


class QuotesView:
    """Keeps the rows, their versions, and the primary quotes of deals."""

    name = "quotes"
    shape = 1

    def tables(self, schema: str) -> str:
        return (_TABLES + QUOTE_VERSIONS.tables() + _VERSION_INDEXES).format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of quotes, and those in which deals get another primary quote."""
        if own := QUOTE_ROWS.own(events):
            await QUOTE_VERSIONS.add(tx, schema, await QUOTE_ROWS.fold(tx, schema, own))
        await _keep_primaries(tx, schema, events)


async def _keep_primaries(tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
    """Adds primary quotes, each until the deal's next one, and ends those before them."""
    added: dict[tuple[str, str], list[list[object]]] = {}
    for event in events:
        if isinstance(event.event, DealQuoted) and event.event.quote != event.event.previous_quote:
            deal = (event.workspace, event.stream.replace("deal-", "deals/", 1))
            earlier = added.setdefault(deal, [])
            if earlier:
                earlier[-1][-1] = event.record_time
            earlier.append([*deal, event.version, event.event.quote, event.record_time, None])
    if not added:
        return
    ended = [(*deal, rows[0][4]) for deal, rows in added.items()]
    await tx.execute(_END_PRIMARIES.format(schema=schema), *columns(ended))
    rows = [row for rows in added.values() for row in rows]
    await tx.execute(_ADD_PRIMARIES.format(schema=schema), *columns(rows))
