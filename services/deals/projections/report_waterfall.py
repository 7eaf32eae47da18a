"""The waterfall, counted: what was open at both ends of a window, and every step between.

A step is two rows of a deal, one after the other, the later of which begins in the window. What it
counts for follows from whether the deal was open in the pipeline asked about before and after, so
the lines add up whatever happened.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.reports_pb2 import (
    WATERFALL_LINE_KIND_AMOUNT_DOWN,
    WATERFALL_LINE_KIND_AMOUNT_UP,
    WATERFALL_LINE_KIND_CREATED,
    WATERFALL_LINE_KIND_DELETED,
    WATERFALL_LINE_KIND_LOST,
    WATERFALL_LINE_KIND_MOVED_IN,
    WATERFALL_LINE_KIND_MOVED_OUT,
    WATERFALL_LINE_KIND_OPEN_AT_END,
    WATERFALL_LINE_KIND_OPEN_AT_START,
    WATERFALL_LINE_KIND_REOPENED,
    WATERFALL_LINE_KIND_UNDELETED,
    WATERFALL_LINE_KIND_WON,
    GetPipelineWaterfallResponse,
    WaterfallLine,
    WaterfallLineKind,
)
from rapport.deals.v1.service_pb2 import DEAL_STATE_LOST, DEAL_STATE_OPEN, DEAL_STATE_WON
from services.deals.projections.report_money import (
    day_before,
    money,
    moneys,
    rates_for,
    sum_of,
    unconverted_of,
)
from services.deals.projections.report_source import asked
from services.deals.waterfall import waterfall

if TYPE_CHECKING:
    from services.deals.projections.report_source import Question
    from services.deals.sums import Sum
    from services.kernel.log.sql import Tx

STEPS: Final = """
    (
        select *, {is_open} as is_open
        from {rows}
        where workspace = $1 and from_time >= $2 and from_time < $3
    ) cur
    left join (
        select *, {is_open} as is_open
        from {rows}
        where workspace = $1 and to_time >= $2 and to_time < $3
    ) prev on prev.deal_id = cur.deal_id and prev.{place} = cur.{place} - 1
"""
"""Each row that begins in the window, with the one before it, which a deal's first has not.

A row ends where the next begins, so the one before ends in the window, too: both sides are read in
one go, which takes half as long as to look up each row's own.
"""

# Half a step that is in both is a change of its worth; in another currency it is two of them. Steps
# are added up before they are told as lines: there are few kinds of them, and very many steps.
_STEPS: Final = f"""
with {{prefix}} steps as (
    select
        case
            when prev.is_open and cur.is_open then null
            when prev.is_open and cur.is_deleted then {WATERFALL_LINE_KIND_DELETED}
            when prev.is_open and cur.state = {DEAL_STATE_WON} then {WATERFALL_LINE_KIND_WON}
            when prev.is_open and cur.state = {DEAL_STATE_LOST} then {WATERFALL_LINE_KIND_LOST}
            when prev.is_open then {WATERFALL_LINE_KIND_MOVED_OUT}
            when prev.deal_id is null then {WATERFALL_LINE_KIND_CREATED}
            when prev.is_deleted then {WATERFALL_LINE_KIND_UNDELETED}
            when prev.state <> {DEAL_STATE_OPEN} then {WATERFALL_LINE_KIND_REOPENED}
            else {WATERFALL_LINE_KIND_MOVED_IN}
        end as kind,
        prev.is_open is true as was_open, cur.is_open,
        (cur.from_time at time zone 'UTC')::date as day,
        prev.currency as old_currency, prev.amount_minor as old_minor,
        cur.currency as new_currency, cur.amount_minor as new_minor,
        cur.amount_minor
            - case when prev.currency = cur.currency then prev.amount_minor else 0 end as up_minor,
        prev.amount_minor
            - case when prev.currency = cur.currency then cur.amount_minor else 0 end as down_minor
    from {STEPS}
    where cur.is_open or prev.is_open
),
counted as (
    select kind, was_open, is_open, day, old_currency, new_currency, count(*) as count,
        sum(old_minor) as old_minor, sum(new_minor) as new_minor,
        count(*) filter (where up_minor > 0) as up_count,
        sum(up_minor) filter (where up_minor > 0) as up_minor,
        count(*) filter (where down_minor > 0) as down_count,
        sum(down_minor) filter (where down_minor > 0) as down_minor
    from steps
    group by kind, was_open, is_open, day, old_currency, new_currency
)
select line.kind, line.currency, day, sum(line.count)::bigint as count,
    sum(line.amount_minor)::numeric as amount_minor
from counted
cross join lateral (
    select kind, old_currency as currency, count, old_minor as amount_minor where not is_open
    union all
    select kind, new_currency, count, new_minor where not was_open
    union all
    select {WATERFALL_LINE_KIND_AMOUNT_UP}, new_currency, up_count, up_minor
    where was_open and is_open and up_count > 0
    union all
    select {WATERFALL_LINE_KIND_AMOUNT_DOWN}, old_currency, down_count, down_minor
    where was_open and is_open and down_count > 0
) as line
group by line.kind, line.currency, day
"""

_OPEN: Final = f"""
with {{prefix}} open as (
    select {WATERFALL_LINE_KIND_OPEN_AT_START} as kind, currency, amount_minor
    from {{rows}}
    where workspace = $1 and from_time < $2 and to_time >= $2 and {{is_open}}
    union all
    select {WATERFALL_LINE_KIND_OPEN_AT_END}, currency, amount_minor
    from {{rows}}
    where workspace = $1 and from_time < $3 and to_time >= $3 and {{is_open}}
)
select kind, currency, count(*) as count, sum(amount_minor)::numeric as amount_minor
from open
group by kind, currency
"""


async def get_pipeline_waterfall(
    connection: Tx, question: Question
) -> GetPipelineWaterfallResponse:
    """Returns the waterfall of a window."""
    about = await asked(connection, question)
    sums: defaultdict[WaterfallLineKind.ValueType, list[Sum]] = defaultdict(list)
    days = {
        WATERFALL_LINE_KIND_OPEN_AT_START: day_before(question.start),
        WATERFALL_LINE_KIND_OPEN_AT_END: day_before(question.end),
    }
    for row in await connection.fetch(about.sql(_OPEN), *about.arguments.values):
        sums[row["kind"]].append(sum_of(row, days[row["kind"]]))
    for row in await connection.fetch(about.sql(_STEPS), *about.arguments.values):
        sums[row["kind"]].append(sum_of(row, row["day"]))
    rates = await rates_for(connection, question, [part for each in sums.values() for part in each])
    lines, left_out = waterfall(sums, question.currency, rates)
    return GetPipelineWaterfallResponse(
        lines=[
            WaterfallLine(
                kind=kind,
                count=line.count,
                amounts=moneys(line.amounts),
                converted=money(line.converted_minor, question.currency),
            )
            for kind, line in lines.items()
        ],
        unconverted=unconverted_of(left_out, question.currency),
    )
