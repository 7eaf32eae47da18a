"""What happened to a deal, fact by fact: the versions of its row beside the log's own stream."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import (
    DealChange,
    DealSnapshot,
    ListDealChangesRequest,
    ListDealChangesResponse,
)
from services.deals.deciders.deal import DECIDER
from services.deals.exchange import half_up
from services.deals.pipeline import CERTAIN_BP
from services.deals.projections.deal_rows import DEAL_ROWS, LISTED_COLUMNS
from services.deals.projections.deals import category_in, likely_bp_in, stage_in
from services.deals.projections.past_pipelines import load_past_pipelines
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.log import read_stream
from services.kernel.log.recorded import short_type, timestamp_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.deals.pipeline import Pipeline
    from services.deals.projections.deal_rows import Row

CHANGES: Final = Listing(
    method="ListDealChanges",
    table=Table("deals.deals_versions", key="deal_id", positions=None),
    columns=f"workspace, {LISTED_COLUMNS}",
    fields=Fields(
        {"version": Field("version", Kind.INTEGER, sortable=True, immutable=True, nullable=False)}
    ),
    default_order="version desc",
)


async def list_deal_changes(
    pool: Pool, workspace: str, request: ListDealChangesRequest
) -> ListDealChangesResponse:
    """Returns a page of a deal's changes, newest first; NotFound when nobody opened it."""
    await DEAL_ROWS.existing(pool, workspace, request.name)
    deal_id = DECIDER.aggregate_id(request.name)
    query = CHANGES.query(
        workspace=workspace,
        page_size=request.page_size,
        page_token=request.page_token,
        where={"deal_id": deal_id},
    )
    records = await pool.fetch(query.sql, *query.args)
    page = query.page(records)
    # One more than a page was read: what stands after a row is what the deal was before.
    rows = [DEAL_ROWS.row(record) for record in records]
    shown = rows[: len(page.rows)]
    facts = await _facts(pool, workspace, deal_id, shown)
    past = (
        await load_past_pipelines(pool, workspace, rows[-1].update_time, rows[0].update_time)
        if rows
        else None
    )
    changes = []
    for row, before in zip_longest(shown, rows[1 : len(shown) + 1]):
        assert past is not None
        fact = facts[row.version]
        change = DealChange(
            type=short_type(fact.type),
            version=row.version,
            actor=fact.actor,
            occur_time=fact.occur_time,
            record_time=fact.record_time,
            after=snapshot_of(row, past.at(row.update_time)),
        )
        if before is not None:
            change.before.CopyFrom(snapshot_of(before, past.at(before.update_time)))
        changes.append(change)
    return ListDealChangesResponse(changes=changes, next_page_token=page.next_page_token)


async def _facts(pool: Pool, workspace: str, deal_id: str, rows: list[Row]) -> dict[int, Envelope]:
    """The facts that led to these consecutive versions, by version."""
    if not rows:
        return {}
    found = await read_stream(
        pool,
        workspace,
        DECIDER.stream(deal_id),
        after_version=rows[-1].version - 1,
        limit=len(rows),
    )
    return {envelope.version: envelope for envelope in found}


def snapshot_of(row: Row, pipelines: Mapping[str, Pipeline]) -> DealSnapshot:
    """What a report is made of, as one version of a deal has it."""
    state = row.state
    stage = stage_in(pipelines, state.stage)
    likely_bp = likely_bp_in(stage, state)
    snapshot = DealSnapshot(
        stage=state.stage,
        state=state.state,
        amount=state.amount,
        probability_bp=likely_bp,
        forecast_category=category_in(stage, state),
        owner=state.owner,
        team=state.team,
        deleted=state.delete_time is not None,
    )
    if state.expected_close_time is not None:
        snapshot.expected_close_time.CopyFrom(timestamp_of(state.expected_close_time))
    if state.currency:
        weighted = half_up(state.amount_minor * likely_bp, CERTAIN_BP)
        snapshot.expected_revenue.CopyFrom(Money(amount_minor=weighted, currency=state.currency))
    return snapshot
