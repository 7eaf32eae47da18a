"""The reports on stages, counted: how many deals get further, and how long they stay.

Stages are those of the pipelines as they were at the question's moment, in their order.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rapport.deals.v1.reports_pb2 import (
    GetStageConversionResponse,
    GetTimeInStageResponse,
    StageConversion,
    TimeInStage,
)
from rapport.deals.v1.service_pb2 import DEAL_STATE_OPEN, DEAL_STATE_WON
from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN
from services.deals.kpis import average, nearest, ratio_bp
from services.deals.pipeline import stage_name
from services.deals.projections.report_money import earlier
from services.deals.projections.report_source import asked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.deals.pipeline import Stage
    from services.deals.projections.report_source import Asked, Question
    from services.kernel.log.sql import Tx

_INSTANT: Final = timedelta(microseconds=1)

# Beyond all stages, where won deals are.
_WON_PLACE: Final = 2**31 - 1

_STAGES: Final = """
stages as materialized (
    select * from unnest({stages}::text[], {pipelines}::text[], {places}::int[], {rots}::bigint[])
        as stages (stage, pipeline, stage_place, rot_after_s)
),
"""

# Of each deal and pipeline: when it first was in the stage at each place, and whether it got on
# after that. One pass over its rows tells it for all places.
_CONVERSION: Final = f"""
with {{prefix}} {_STAGES} wanted as (
    select deal_id from {{rows}}
    where workspace = $1 and from_time < {{horizon}} and to_time >= {{horizon}}
        and not is_deleted and {{is_wanted}}
),
begun as (
    select distinct deal_id from {{rows}}
    where workspace = $1 and from_time >= $2 and from_time < $3
        and state in ({DEAL_STATE_OPEN}, {DEAL_STATE_WON})
),
visits as (
    select r.deal_id, r.pipeline, r.from_time, r.{{place}} as number,
        case when r.state = {DEAL_STATE_WON} then {_WON_PLACE} else s.stage_place end as reached
    from {{rows}} r
    join begun using (deal_id)
    join wanted using (deal_id)
    left join stages s on s.stage = r.stage
    where r.workspace = $1 and r.from_time < {{horizon}} and not r.is_deleted
        and r.state in ({DEAL_STATE_OPEN}, {DEAL_STATE_WON})
),
ways as (
    select pipeline, array[{{entered_at}}]::timestamptz[] as entered_at,
        array[{{is_passed}}]::boolean[] as is_passed
    from visits
    group by deal_id, pipeline
),
entries as (
    select w.pipeline, at.number, count(*) as entered_count,
        count(*) filter (where at.is_passed) as passed_count
    from ways w
    cross join lateral unnest(w.entered_at, w.is_passed) with ordinality
        as at (entered_at, is_passed, number)
    where at.entered_at >= $2 and at.entered_at < $3
    group by w.pipeline, at.number
)
select s.stage, e.entered_count, e.passed_count
from entries e
join stages s on s.pipeline = e.pipeline and s.stage_place = e.number - 1
"""

# To be further on for the first time is to have skipped what lies before.
_ENTERED: Final = "min(from_time) filter (where reached >= {place})"
_PASSED: Final = "max(reached) > {place}"
_ENTERED_ITSELF: Final = "min(from_time) filter (where reached = {place})"
_PASSED_AFTER: Final = """
    max(number) filter (where reached > {place}) > min(number) filter (where reached = {place})
"""

_TIMES: Final = f"""
with {{prefix}} {_STAGES} wanted as (
    select deal_id, state, stage, stage_time,
        case when state = {DEAL_STATE_OPEN} then {{entered}} end as entered_at
    from {{rows}} r
    where workspace = $1 and from_time < $3 and to_time >= $3 and not is_deleted and {{is_wanted}}
),
departed as (
    select distinct prev.deal_id, prev.stage
    from {{rows}} cur
    join {{rows}} prev on prev.workspace = $1 and prev.deal_id = cur.deal_id
        and prev.{{place}} = cur.{{place}} - 1 and prev.to_time >= $2 and prev.to_time < $3
    where cur.workspace = $1 and cur.from_time >= $2 and cur.from_time < $3
        and prev.state = {DEAL_STATE_OPEN} and not prev.is_deleted
        and (cur.state <> {DEAL_STATE_OPEN} or cur.stage <> prev.stage)
),
spent as (
    select r.stage, sum(
        (extract(epoch from least(r.to_time, $3) - r.from_time) * 1000000)::bigint
    )::bigint as time_us
    from departed
    join wanted using (deal_id)
    join stages on stages.stage = departed.stage
    join {{rows}} r on r.workspace = $1 and r.deal_id = departed.deal_id
        and r.stage = departed.stage
    where r.state = {DEAL_STATE_OPEN} and not r.is_deleted and r.from_time < $3
    group by r.deal_id, r.stage
),
times as (
    select stage, count(*) as left_count, sum(time_us) as time_us,
        percentile_cont(0.5) within group (order by time_us) as median_us,
        percentile_disc(0.9) within group (order by time_us) as p90_us
    from spent
    group by stage
),
ages as (
    select stage, count(*) as open_count,
        sum((extract(epoch from $3 - entered_at) * 1000000)::bigint) as age_us,
        count(*) filter (
            where stage_time <= $3 - stages.rot_after_s * interval '1 s'
        ) as rotting_count
    from wanted
    join stages using (stage)
    where state = {DEAL_STATE_OPEN}
    group by stage
)
select stage, left_count, time_us, median_us, p90_us, open_count, age_us, rotting_count
from times
full join ages using (stage)
"""


async def get_stage_conversion(
    connection: Tx, question: Question, *, skips_left_out: bool
) -> GetStageConversionResponse:
    """Returns how many deals get further, by stage."""
    horizon = question.latest + _INSTANT
    about = await asked(connection, replace(question, pipeline=""), horizon)
    stages = _open_stages(question)
    places = range(1 + max(_places(stages), default=0))
    entered_at = _ENTERED_ITSELF if skips_left_out else _ENTERED
    is_passed = _PASSED_AFTER if skips_left_out else _PASSED
    sql = about.sql(
        _CONVERSION,
        horizon=about.arguments.add(horizon, "timestamptz"),
        entered_at=", ".join(entered_at.format(place=place) for place in places),
        is_passed=", ".join(is_passed.format(place=place) for place in places),
        **_stage_columns(about, stages),
    )
    found = {row["stage"]: row for row in await connection.fetch(sql, *about.arguments.values)}
    return GetStageConversionResponse(
        stages=[_conversion(name, found.get(name)) for name in stages]
    )


async def get_time_in_stage(connection: Tx, question: Question) -> GetTimeInStageResponse:
    """Returns how long deals stay, by stage."""
    about = await asked(connection, replace(question, pipeline=""))
    stages = _open_stages(question)
    sql = about.sql(_TIMES, **_stage_columns(about, stages))
    found = {row["stage"]: row for row in await connection.fetch(sql, *about.arguments.values)}
    return GetTimeInStageResponse(
        stages=[_times(question, name, stage, found.get(name)) for name, stage in stages.items()]
    )


def _open_stages(question: Question) -> dict[str, Stage]:
    """The open stages of the pipelines asked about, by name."""
    return {
        stage_name(pipeline_id, stage.stage_id): stage
        for pipeline_id, pipeline in question.pipelines.items()
        if question.pipeline in {"", f"pipelines/{pipeline_id}"}
        for stage in pipeline.stages
        if stage.kind == STAGE_KIND_OPEN
    }


def _stage_columns(about: Asked, stages: dict[str, Stage]) -> dict[str, str]:
    """The stages as parameters, in their order."""
    add = about.arguments.add
    return {
        "stages": add(list(stages), "text[]"),
        "pipelines": add(_pipelines(stages), "text[]"),
        "places": add(_places(stages), "int[]"),
        "rots": add([stage.rot_after_s or None for stage in stages.values()], "bigint[]"),
    }


def _pipelines(stages: Iterable[str]) -> list[str]:
    """The pipeline of each stage."""
    return [name.partition("/stages/")[0] for name in stages]


def _places(stages: Iterable[str]) -> list[int]:
    """The place of each stage among the open ones of its pipeline, which follow each other."""
    return [
        place for _, together in groupby(_pipelines(stages)) for place, _ in enumerate(together)
    ]


def _conversion(name: str, found: Any) -> StageConversion:
    if found is None:
        return StageConversion(stage=name)
    return StageConversion(
        stage=name,
        entered_count=found["entered_count"],
        passed_count=found["passed_count"],
        conversion_bp=ratio_bp(found["passed_count"], found["entered_count"]),
    )


def _times(question: Question, name: str, stage: Stage, found: Any) -> TimeInStage:
    times = TimeInStage(stage=name, rotting_filter=_rotting(question, name, stage))
    if found is None:
        return times
    if found["left_count"]:
        times.left_count = found["left_count"]
        times.mean.FromMicroseconds(average(int(found["time_us"]), found["left_count"]) or 0)
        times.median.FromMicroseconds(nearest(found["median_us"]))
        times.p90.FromMicroseconds(found["p90_us"])
    if found["open_count"]:
        times.open_count = found["open_count"]
        times.age_mean.FromMicroseconds(average(int(found["age_us"]), found["open_count"]) or 0)
        times.rotting_count = found["rotting_count"]
    return times


def _rotting(question: Question, name: str, stage: Stage) -> str:
    """The filter that finds the deals that rot in a stage as the window ends."""
    if not stage.rot_after_s:
        return ""
    since = earlier(question.end, timedelta(seconds=stage.rot_after_s))
    told = f'state = OPEN AND stage = "{name}" AND stage_time <= "{since.isoformat()}"'
    return f"({question.wanted.text}) AND {told}" if question.wanted.text else told
