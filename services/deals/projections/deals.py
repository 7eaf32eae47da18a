"""The view `deals`: a row per deal as its events leave it, and what each row was before.

It is read at once: its rows change in the transaction that appends the events. It folds with the
decider's own `evolve`, so a row and a decision cannot disagree. What is unset is null, as filters
want it. Beside the rows stand their versions by the time of recording (`deals_versions`: what a
read with a `read_time` answers) and their periods by the time of occurrence (`deal_periods`: what
reports are made of).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    Deal,
    DealState,
    ListDealsRequest,
    ListDealsResponse,
)
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_OMITTED,
    STAGE_KIND_OPEN,
    DealContact,
    ForecastCategory,
)
from services.deals.deciders.deal import DECIDER
from services.deals.pipeline import CERTAIN_BP, Stage, split_stage
from services.deals.projections.deal_periods import PERIOD_TABLES, keep_periods
from services.deals.projections.deal_rows import (
    DEAL_ROWS,
    DEAL_VERSIONS,
    LISTED_COLUMNS,
    TABLES,
    VERSION_INDEXES,
    Row,
    close_time_of,
)
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Pool

    from services.deals.deal import State
    from services.deals.pipeline import Pipeline
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_STATES = enum_values(DealState)
_CATEGORIES = enum_values(ForecastCategory)


def _time(column: str) -> Field:
    return Field(column, Kind.TIMESTAMP, sortable=True)


FIELDS = Fields(
    {
        "display_name": Field("display_name", Kind.TEXT, sortable=True),
        "contact": Field("contact", Kind.TEXT),
        "contacts": Field("contacts", Kind.TEXT_MAP),
        "company": Field("company", Kind.TEXT, sortable=True),
        "owner": Field("owner", Kind.TEXT, sortable=True),
        "team": Field("team", Kind.TEXT, sortable=True),
        "amount_minor": Field("amount_minor", Kind.INTEGER, sortable=True),
        "mrr_minor": Field("mrr_minor", Kind.INTEGER, sortable=True),
        "arr_minor": Field("arr_minor", Kind.INTEGER, sortable=True),
        "products": Field("products", Kind.TEXT_MAP),
        "primary_quote": Field("primary_quote", Kind.TEXT),
        "currency": Field("currency", Kind.TEXT),
        "pipeline": Field("pipeline", Kind.TEXT, nullable=False),
        "stage": Field("stage", Kind.TEXT, nullable=False),
        "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
        "forecast_category_override": Field(
            "forecast_category_override", Kind.ENUM, values=_CATEGORIES
        ),
        "probability_bp_override": Field("probability_bp_override", Kind.INTEGER),
        "next_step": Field("next_step", Kind.TEXT),
        "lost_reason": Field("lost_reason", Kind.TEXT),
        "custom_fields": Field("custom_fields", Kind.STRUCT),
        "expected_close_time": _time("expected_close_time"),
        "open_time": _time("open_time"),
        "stage_time": _time("stage_time"),
        "close_time": _time("close_time"),
        "create_time": Field(
            "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
    },
    searched=("display_name",),
)

DEALS = Listing(
    method="ListDeals",
    table=Table(
        "deals.deals",
        key="deal_id",
        positions=Positions(partition="partition"),
        versions="deals.deals_versions",
    ),
    columns=f"workspace, {LISTED_COLUMNS}",
    fields=FIELDS,
    default_order="create_time",
)


class DealsView:
    """Keeps the rows, their versions and their periods."""

    name = "deals"
    shape = 2

    def tables(self, schema: str) -> str:
        statements = TABLES + DEAL_VERSIONS.tables() + VERSION_INDEXES + PERIOD_TABLES
        return statements.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of deals."""
        own = DEAL_ROWS.own(events)
        if not own:
            return
        versions = await DEAL_ROWS.fold(tx, schema, own)
        await DEAL_VERSIONS.add(tx, schema, versions)
        await keep_periods(tx, schema, own, versions)


async def existing_deal(
    pool: Pool, workspace: str, name: str, moment: datetime | None = None
) -> Row:
    """A deal as it is, or as it was at a moment; else NotFound."""
    return await DEAL_VERSIONS.existing_at(pool, workspace, name, moment)


async def list_deals(
    pool: Pool,
    workspace: str,
    request: ListDealsRequest,
    pipelines: Mapping[str, Pipeline],
    moment: datetime | None = None,
) -> ListDealsResponse:
    """Returns a page of deals, as they are or as they were at a moment."""
    where = None if request.show_deleted else {"is_deleted": False}
    rows, next_page_token = await DEAL_ROWS.page(
        pool, DEALS, workspace, request, moment=moment, where=where
    )
    return ListDealsResponse(
        deals=[deal_of(row.aggregate_id, row, pipelines) for row in rows],
        next_page_token=next_page_token,
    )


def deal_of(deal_id: str, known: Row | Decided[State], pipelines: Mapping[str, Pipeline]) -> Deal:
    """Returns a deal as the API shows it, in the stages of these pipelines."""
    state = known.state
    deal = Deal(
        name=DECIDER.name(deal_id),
        display_name=state.display_name,
        contact=state.contact,
        contacts=[DealContact(contact=each.contact, role=each.role) for each in state.contacts],
        company=state.company,
        owner=state.owner,
        team=state.team,
        amount=state.amount,
        pipeline=state.pipeline,
        stage=state.stage,
        state=state.state,
        lost_reason=state.lost_reason,
        lost_note=state.lost_note,
        next_step=state.next_step,
        custom_fields=state.custom_fields,
        forecast_category_override=state.forecast_category,
        probability_bp_override=state.probability_bp,
        primary_quote=state.primary_quote,
        products=state.products,
        recurring=state.recurring,
        etag=etag_of(known.version),
    )
    if state.line_items:
        deal.line_items.ParseFromString(state.line_items)
    stage = stage_in(pipelines, state.stage)
    deal.forecast_category = category_in(stage, state)
    deal.probability_bp = likely_bp_in(stage, state)
    times = {
        "expected_close_time": state.expected_close_time,
        "open_time": state.open_time,
        "stage_time": state.stage_time,
        "close_time": close_time_of(known),
        "delete_time": state.delete_time,
        "create_time": known.create_time,
        "update_time": known.update_time,
        "rot_time": _rot_time(stage, state),
    }
    for field, moment in times.items():
        if moment is not None:
            getattr(deal, field).CopyFrom(timestamp_of(moment))
    return deal


def stage_in(pipelines: Mapping[str, Pipeline], name: str) -> Stage:
    """The stage with this name; one that nobody knows any more counts for nothing."""
    ids = split_stage(name)
    pipeline = pipelines.get(ids[0]) if ids else None
    found = pipeline.stage(ids[1]) if ids and pipeline else None
    return found or Stage(name, name, STAGE_KIND_OPEN)


def category_in(stage: Stage, state: State) -> ForecastCategory.ValueType:
    """The forecast category of a deal in a stage: what is closed has that of its ending."""
    if state.state == DEAL_STATE_OPEN:
        return state.forecast_category or stage.category
    won = state.state == DEAL_STATE_WON
    return FORECAST_CATEGORY_CLOSED if won else FORECAST_CATEGORY_OMITTED


def likely_bp_in(stage: Stage, state: State) -> int:
    """How likely a deal in a stage is won, in hundredths of a percent."""
    if state.state == DEAL_STATE_OPEN:
        return stage.likely_bp if state.probability_bp is None else state.probability_bp
    return CERTAIN_BP if state.state == DEAL_STATE_WON else 0


def _rot_time(stage: Stage, state: State) -> datetime | None:
    """When an open deal begins to rot."""
    if state.state != DEAL_STATE_OPEN or not stage.rot_after_s or state.stage_time is None:
        return None
    return state.stage_time + timedelta(seconds=stage.rot_after_s)
