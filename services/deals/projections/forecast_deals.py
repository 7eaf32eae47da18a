"""Which deals make a number of a forecast up, a page at a time, now or at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rapport.deals.v1 import forecasts_pb2 as pb
from rapport.deals.v1.service_pb2 import DEAL_STATE_OPEN, DEAL_STATE_WON
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
)
from services.deals.forecast import CATEGORIES
from services.deals.forecast_periods import known_period
from services.deals.pipeline import stage_name
from services.deals.projections.deal_rows import DEAL_ROWS, LISTED_COLUMNS
from services.deals.projections.deals import deal_of
from services.deals.projections.forecast_settings import existing_pipeline, read_pipelines
from services.deals.projections.forecasts import GROUPS, source_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.filter_conditions import Arguments
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.log import read_heads
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncpg import Pool

    from services.deals.pipeline import Pipeline
    from services.deals.projections.forecasts import Source

# It stands before the page's own statement, whose parameters come first. `asked` is all that the
# page was asked with, so that its token is bound to it.
_COUNTED: Final = f"""
with counted as not materialized (
    select deals.*, {{asked}} as asked
    from {{source}} deals left join unnest({{stages}}, {{categories}}) as stages (stage, category)
        using (stage)
    where not is_deleted and ({{pipeline}} = '' or pipeline = {{pipeline}})
        and ({{owner}} = '' or owner = {{owner}}) and ({{team}} = '' or team = {{team}})
        and {{grouped}} = {{group}} and {{due}}
        and case state
            when {DEAL_STATE_OPEN}
                then coalesce(forecast_category_override, category, {FORECAST_CATEGORY_PIPELINE})
            when {DEAL_STATE_WON} then {FORECAST_CATEGORY_CLOSED}
            else {FORECAST_CATEGORY_OMITTED} end = any({{wanted}})
)
"""

_IN_PERIOD: Final = f"""(
    state = {DEAL_STATE_OPEN} and expected_close_time >= {{begin}} and expected_close_time < {{end}}
    or state <> {DEAL_STATE_OPEN} and close_time >= {{begin}} and close_time < {{end}})"""
_UNDATED: Final = f"state = {DEAL_STATE_OPEN} and expected_close_time is null"

FORECAST_DEALS = Listing(
    method="ListForecastDeals",
    table=Table(
        "counted",
        key="deal_id",
        positions=Positions(partition="partition"),
        versions="counted",
    ),
    columns=f"workspace, {LISTED_COLUMNS}",
    fields=Fields(
        {
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            )
        }
    ),
    default_order="create_time",
)


async def list_forecast_deals(
    pool: Pool, workspace: str, request: pb.ListForecastDealsRequest, moment: datetime | None
) -> pb.ListForecastDealsResponse:
    """Returns a page of the deals that a forecast counts."""
    source = source_of(request.time_basis, moment)
    pipelines = await read_pipelines(pool, workspace, moment, is_told_late=source.is_told_late)
    existing_pipeline(request.pipeline, pipelines)
    heads = {} if moment is not None else await read_heads(pool)
    asked = _asked(request)
    query = FORECAST_DEALS.query(
        workspace=workspace,
        positions=tuple(heads.values()),
        page_size=request.page_size,
        page_token=request.page_token,
        where={"asked": asked},
        moment=moment,
    )
    arguments = Arguments(query.args)
    counted = _counted(request, source, pipelines, asked, arguments)
    page = query.page(await pool.fetch(counted + query.sql, *arguments.values))
    rows = map(DEAL_ROWS.row, page.rows)
    return pb.ListForecastDealsResponse(
        deals=[deal_of(row.aggregate_id, row, pipelines) for row in rows],
        next_page_token=page.next_page_token,
    )


def _asked(request: pb.ListForecastDealsRequest) -> str:
    """What tells one walk from another, as text."""
    asked = pb.ListForecastDealsRequest()
    asked.CopyFrom(request)
    for field in ("page_size", "page_token", "read_token", "read_time"):
        asked.ClearField(field)
    return asked.SerializeToString(deterministic=True).hex()


def _counted(
    request: pb.ListForecastDealsRequest,
    source: Source,
    pipelines: Mapping[str, Pipeline],
    asked: str,
    arguments: Arguments,
) -> str:
    """The deals that are asked for, with the parameters they need added to those of the page."""
    stages = [
        (stage_name(pipeline_id, stage.stage_id), stage.category)
        for pipeline_id, pipeline in pipelines.items()
        for stage in pipeline.stages
    ]
    names, categories = columns(stages)
    due = _UNDATED
    if request.period:
        period = known_period(request.period)
        due = _IN_PERIOD.format(
            begin=arguments.add(period.begin_time, "timestamptz"),
            end=arguments.add(period.end_time, "timestamptz"),
        )
    return _COUNTED.format(
        asked=arguments.add(asked, "text"),
        source=source.table,
        stages=arguments.add(names, "text[]"),
        categories=arguments.add(categories, "int[]"),
        pipeline=arguments.add(request.pipeline, "text"),
        owner=arguments.add(request.owner, "text"),
        team=arguments.add(request.team, "text"),
        grouped=GROUPS[request.group_by],
        group=arguments.add(request.group, "text"),
        wanted=arguments.add(list(request.categories or CATEGORIES), "int[]"),
        due=due,
    )
