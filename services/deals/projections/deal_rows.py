"""The rows of deals: their table, and how a deal's state is kept in its columns."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, TypeAlias

from rapport.deals.v1.service_pb2 import DEAL_STATE_OPEN
from rapport.deals.v1.values_pb2 import FORECAST_CATEGORY_UNSPECIFIED
from services.deals.deal import Participant, State
from services.deals.deciders.deal import DECIDER
from services.kernel.command.decider import Decided
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable
from services.kernel.views.aggregate_versions import AggregateVersions

STATE_TYPES: Final = {
    "state": "int",
    "display_name": "text",
    "contact": "text",
    "contacts": "jsonb",
    "company": "text",
    "owner": "text",
    "team": "text",
    "amount_minor": "bigint",
    "currency": "text",
    "pipeline": "text",
    "stage": "text",
    "closed_from": "text",
    "lost_reason": "text",
    "lost_note": "text",
    "expected_close_time": "timestamptz",
    "next_step": "text",
    "custom_fields": "jsonb",
    "forecast_category_override": "int",
    "probability_bp_override": "int",
    "line_items": "bytea",
    "primary_quote": "text",
    "products": "jsonb",
    "mrr_minor": "bigint",
    "arr_minor": "bigint",
    "open_time": "timestamptz",
    "stage_time": "timestamptz",
    "change_time": "timestamptz",
    "close_time": "timestamptz",
    "is_deleted": "boolean",
    "delete_time": "timestamptz",
}
"""The columns of a deal's state, with their types in SQL."""

# The index on custom fields cannot begin with the workspace; every query names it all the same.
TABLES: Final = f"""
create table {{schema}}.deals (
    workspace text not null,
    deal_id text collate "C" not null,
    state int not null,
    display_name text collate "C",
    contact text collate "C",
    contacts jsonb not null,
    company text collate "C",
    owner text collate "C",
    team text collate "C",
    amount_minor bigint,
    currency text collate "C",
    pipeline text collate "C" not null,
    stage text collate "C" not null,
    closed_from text collate "C",
    lost_reason text collate "C",
    lost_note text collate "C",
    expected_close_time timestamptz,
    next_step text collate "C",
    custom_fields jsonb not null,
    forecast_category_override int,
    probability_bp_override int,
    line_items bytea,
    primary_quote text collate "C",
    products jsonb,
    mrr_minor bigint,
    arr_minor bigint,
    open_time timestamptz,
    stage_time timestamptz,
    change_time timestamptz,
    close_time timestamptz,
    is_deleted boolean not null,
    delete_time timestamptz,
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
    on {{schema}}.deals (workspace, stage, create_time, deal_id)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index open_deals_by_amount
    on {{schema}}.deals (workspace, stage, currency)
    include (amount_minor, probability_bp_override)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index open_deals_by_expected_close_time
    on {{schema}}.deals (workspace, expected_close_time)
    include (pipeline, stage, owner, team, amount_minor, currency, forecast_category_override,
        probability_bp_override)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index closed_deals_by_close_time
    on {{schema}}.deals (workspace, close_time)
    include (pipeline, owner, team, amount_minor, currency, state)
    where state <> {DEAL_STATE_OPEN} and not is_deleted;
"""

VERSION_INDEXES: Final = f"""
create index deals_versions_by_create_time
    on {{schema}}.deals_versions (workspace, create_time, deal_id);
create index open_deals_versions_by_stage
    on {{schema}}.deals_versions (workspace, stage, create_time, deal_id)
    include (from_time, to_time)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index open_deals_versions_by_amount
    on {{schema}}.deals_versions (workspace, stage, to_time, from_time)
    include (currency, amount_minor, probability_bp_override)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index open_deals_versions_by_expected_close_time
    on {{schema}}.deals_versions (workspace, expected_close_time)
    include (pipeline, stage, owner, team, amount_minor, currency, forecast_category_override,
        probability_bp_override, from_time, to_time)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index closed_deals_versions_by_close_time
    on {{schema}}.deals_versions (workspace, close_time)
    include (pipeline, owner, team, amount_minor, currency, state, from_time, to_time)
    where state <> {DEAL_STATE_OPEN} and not is_deleted;
"""

DEALS_TABLE: Final = AggregateTable("deals", "deals", "deal_id", STATE_TYPES)

COLUMNS: Final = DEALS_TABLE.columns

LISTED_COLUMNS: Final = COLUMNS.replace("line_items,", "null::bytea as line_items,")
"""Where many deals are shown: all their lines would be too much to send."""

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    roles = json.loads(record["contacts"])
    primary = record["contact"]
    names = sorted(roles, key=lambda name: (name != primary, name))
    return State(
        state=record["state"],
        display_name=record["display_name"] or "",
        contacts=tuple(Participant(name, roles[name]) for name in names),
        company=record["company"] or "",
        owner=record["owner"] or "",
        team=record["team"] or "",
        amount_minor=record["amount_minor"] or 0,
        currency=record["currency"] or "",
        stage=record["stage"],
        closed_from=record["closed_from"] or "",
        lost_reason=record["lost_reason"] or "",
        lost_note=record["lost_note"] or "",
        expected_close_time=record["expected_close_time"],
        next_step=record["next_step"] or "",
        custom_fields=json.loads(record["custom_fields"]),
        forecast_category=record["forecast_category_override"] or FORECAST_CATEGORY_UNSPECIFIED,
        probability_bp=record["probability_bp_override"],
        line_items=record["line_items"] or b"",
        primary_quote=record["primary_quote"] or "",
        products=tuple(sorted(json.loads(record["products"] or "{}"))),
        monthly_minor=record["mrr_minor"],
        annual_minor=record["arr_minor"],
        open_time=record["open_time"],
        stage_time=record["stage_time"],
        change_time=record["change_time"],
        close_time=record["close_time"],
        delete_time=record["delete_time"],
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    roles = {each.contact: each.role for each in state.contacts}
    return (
        state.state,
        state.display_name or None,
        state.contact or None,
        json.dumps(roles, sort_keys=True),
        state.company or None,
        state.owner or None,
        state.team or None,
        state.amount_minor if state.currency else None,
        state.currency or None,
        state.pipeline,
        state.stage,
        state.closed_from or None,
        state.lost_reason or None,
        state.lost_note or None,
        state.expected_close_time,
        state.next_step or None,
        json.dumps(state.custom_fields, sort_keys=True),
        state.forecast_category or None,
        state.probability_bp,
        state.line_items or None,
        state.primary_quote or None,
        json.dumps(dict.fromkeys(state.products, ""), sort_keys=True) if state.products else None,
        state.monthly_minor,
        state.annual_minor,
        state.open_time,
        state.stage_time,
        state.change_time,
        close_time_of(row),
        state.delete_time is not None,
        state.delete_time,
    )


def close_time_of(known: Row | Decided[State]) -> datetime | None:
    """Returns when a closed deal was closed.

    An ending from before deals could be told late has no time of its own; it was the last change.
    """
    if known.state.state == DEAL_STATE_OPEN:
        return None
    return known.state.close_time or known.update_time


DEAL_ROWS: Final = DEALS_TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)

DEAL_VERSIONS: Final = AggregateVersions(DEAL_ROWS, DEALS_TABLE)
