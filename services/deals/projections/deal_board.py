"""The board: a pipeline's open stages with their deals, counted when it is asked for.

It is counted from the rows along indexes made for it, so it cannot drift from them; as of a moment
it is counted in the same way from their versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_OPEN,
    DealBoardStage,
    GetDealBoardRequest,
    GetDealBoardResponse,
)
from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN
from services.deals.deciders.pipeline import DECIDER as PIPELINE
from services.deals.pipeline import CERTAIN_BP, STARTING_ID, Pipeline, stage_name
from services.deals.projections.deal_rows import DEAL_ROWS, LISTED_COLUMNS
from services.deals.projections.deals import FIELDS, deal_of
from services.deals.sums import sum_told
from services.kernel.errors import NotFound
from services.kernel.lists.filter_conditions import Arguments
from services.kernel.log.database import one_moment
from services.kernel.log.sql import Statement
from services.kernel.views.aggregate_versions import CURRENT_AT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncpg import Pool

DEALS_PER_STAGE_DEFAULT: Final = 20

# The weight of an amount is in hundredths of a percent of a minor unit; numeric sums are exact.
BOARD_SUMS = f"""
select stage, currency, count(*) as deal_count, sum(amount_minor) as amount_minor,
    round(sum(amount_minor * coalesce(probability_bp_override, likely_bp)::numeric) / {CERTAIN_BP})
        as weighted_minor
from {{table}}
join unnest($2::text[], $3::int[]) as asked (stage, likely_bp) using (stage)
where workspace = $1 and state = {DEAL_STATE_OPEN} and not is_deleted and {{wanted}}
group by stage, currency
order by stage, currency
"""

BOARD_DEALS = f"""
select newest.*
from unnest($2::text[]) as asked (stage)
cross join lateral (
    select workspace, {LISTED_COLUMNS}
    from {{table}} listed
    where workspace = $1 and state = {DEAL_STATE_OPEN} and not is_deleted
        and listed.stage = asked.stage and {{wanted}}
    order by create_time desc, deal_id desc
    limit $3
) as newest
"""


async def get_board(
    pool: Pool,
    workspace: str,
    request: GetDealBoardRequest,
    pipelines: Mapping[str, Pipeline],
    moment: datetime | None = None,
) -> GetDealBoardResponse:
    """Returns every open stage with its count, its sums and its newest deals, as of one moment."""
    name = request.pipeline or f"pipelines/{STARTING_ID}"
    pipeline_id = PIPELINE.aggregate_id(name, "pipeline")
    pipeline = pipelines.get(pipeline_id)
    if pipeline is None:
        raise NotFound(name)
    places = {
        stage_name(pipeline_id, stage.stage_id): stage
        for stage in pipeline.stages
        if stage.kind == STAGE_KIND_OPEN
    }
    stages = {
        name: DealBoardStage(stage=name, display_name=stage.display_name)
        for name, stage in places.items()
    }
    likely = [stage.likely_bp for stage in places.values()]
    sums = _asked(BOARD_SUMS, request.filter, moment, [workspace, list(places), likely])
    limit = request.deals_per_stage or DEALS_PER_STAGE_DEFAULT
    newest = _asked(BOARD_DEALS, request.filter, moment, [workspace, list(places), limit])
    async with one_moment(pool) as snapshot:
        counted = await snapshot.fetch(sums.text, *sums.args)
        shown = await snapshot.fetch(newest.text, *newest.args)
    for row in counted:
        column = stages[row["stage"]]
        column.deal_count += row["deal_count"]
        if row["currency"] is not None:
            column.amounts.append(sum_told(int(row["amount_minor"]), row["currency"]))
            column.weighted_amounts.append(sum_told(int(row["weighted_minor"]), row["currency"]))
    for deal in map(DEAL_ROWS.row, shown):
        column = stages[deal.state.stage]
        column.deals.append(deal_of(deal.aggregate_id, deal, pipelines))
    in_use = {name for name, stage in places.items() if not stage.is_archived}
    return GetDealBoardResponse(
        stages=[stage for name, stage in stages.items() if name in in_use or stage.deal_count]
    )


def _asked(template: str, wanted: str, moment: datetime | None, values: list[object]) -> Statement:
    """A statement on the deals that a filter wants, as they are or as they were at a moment."""
    arguments = Arguments(values)
    conditions = [FIELDS.filter(wanted).sql(arguments)]
    table = "deals.deals"
    if moment is not None:
        table = "deals.deals_versions"
        at = arguments.add(moment, "timestamptz")
        conditions.append(CURRENT_AT.format(moment=at))
        if template is BOARD_DEALS:
            # Says nothing new, but where along the index to begin.
            conditions.append(f"create_time <= {at}")
    sql = template.format(table=table, wanted=" and ".join(conditions))
    return Statement(sql, arguments.values)
