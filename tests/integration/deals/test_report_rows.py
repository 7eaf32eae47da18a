"""What PostgreSQL counts is what the formulas say, of whatever happened, and as of any moment.

The histories are told by the rules of deals and folded by the view, each in a workspace of its own.
"""

import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import product
from random import Random

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings

from rapport.deals.v1.reports_pb2 import (
    SALES_GROUPING_CUSTOM_FIELD,
    SALES_GROUPING_LOST_REASON,
    SALES_GROUPING_MONTH,
    SALES_GROUPING_OWNER,
    SALES_GROUPING_PIPELINE,
    SALES_GROUPING_UNSPECIFIED,
    GetSalesReportRequest,
    WaterfallLineKind,
)
from rapport.deals.v1.service_pb2 import DEAL_STATE_LOST, DEAL_STATE_OPEN, DEAL_STATE_WON
from services.deals.projections.deals import FIELDS, DealsView
from services.deals.projections.report_sales import get_sales_report
from services.deals.projections.report_slippage import get_slippage
from services.deals.projections.report_source import Question, asked
from services.deals.projections.report_stages import get_stage_conversion, get_time_in_stage
from services.deals.projections.report_waterfall import get_pipeline_waterfall
from services.kernel.log.recorded import Recorded
from tests import deals_reference as reference
from tests.deals_histories import BEGIN, HALF_DAY, PIPELINES, RENEWALS, seeds, tell
from tests.deals_world import STAGES

FILTERS = {
    "": reference.everything,
    'owner = "members/kim"': lambda state: state.owner == "members/kim",
    "amount_minor > 200": lambda state: bool(state.currency) and state.amount_minor > 200,
}
ROWS = """
with {prefix} unused as (select)
select deal_id, {place}, from_time, least(to_time, $3), state, stage, owner, expected_close_time,
    close_time, is_deleted, lost_reason, amount_minor
from {rows}
where workspace = $1 and from_time >= $2 and from_time < $3
order by deal_id, {place}
"""
NAMES = tuple(f"pipelines/{pipeline_id}" for pipeline_id in PIPELINES)
GROUPINGS = {
    SALES_GROUPING_UNSPECIFIED: lambda _: "",
    SALES_GROUPING_OWNER: lambda state: state.owner,
    SALES_GROUPING_PIPELINE: lambda state: state.pipeline,
    SALES_GROUPING_LOST_REASON: lambda state: state.lost_reason,
    SALES_GROUPING_CUSTOM_FIELD: lambda state: state.custom_fields.get("source", ""),
}
histories = settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
async def connection(database):
    """A database with the view's tables."""
    connection = await asyncpg.connect(database)
    await connection.execute("create schema deals")
    await connection.execute(DealsView().tables("deals"))
    yield connection
    await connection.close()


@given(seeds)
@histories
async def test_every_report_is_what_the_formulas_say(connection, seed):
    facts, random = tell(seed), Random(seed)
    workspace = await fold(connection, facts)

    for is_recorded, is_past in product((False, True), repeat=2):
        moment = random.choice(facts).record_time if is_past else None
        about, filtered = question(workspace, random, is_recorded=is_recorded, moment=moment)
        told = reference.histories(facts, is_recorded=is_recorded, moment=moment or about.latest)
        async with connection.transaction():
            await check_waterfall(connection, about, told, filtered)
            for group_by in random.sample(sorted(GROUPINGS), 2):
                await check_sales(connection, about, told, filtered, group_by)
            await check_months(connection, about)
            await check_conversion(connection, about, told)
            await check_times(connection, about, told)
            await check_slippage(connection, about, told, filtered)


@given(seeds)
@histories
async def test_a_moment_sees_what_was_known_then_whenever_it_occurred(connection, seed):
    facts = tell(seed)
    workspace = await fold(connection, facts)

    for moment in sorted({fact.record_time for fact in facts}):
        told = reference.histories(facts, moment=moment)
        about, _ = question(workspace, Random(seed), is_recorded=False, moment=moment)
        about = replace(about, start=BEGIN - 100 * HALF_DAY, end=moment, wanted=FIELDS.filter(""))
        rows = await asked(connection, replace(about, pipeline=""))
        found = await connection.fetch(rows.sql(ROWS), *rows.arguments.values)

        assert [
            row_of(deal_id, place, was, moment)
            for deal_id, past in sorted(told.items())
            for place, was in enumerate(past, start=1)
            if was.from_time < moment
        ] == [tuple(row) for row in found]


def row_of(deal_id, place, was, moment):
    """What a report reads of a deal."""
    state = was.state
    return (
        *(deal_id, place, was.from_time, min(was.to_time, moment)),
        *(state.state, state.stage, state.owner or None, state.expected_close_time),
        *(state.close_time, state.delete_time is not None, state.lost_reason or None),
        state.amount_minor if state.currency else None,
    )


def question(workspace, random, *, is_recorded, moment):
    """A question about some window, and what it asks of deals."""
    latest = moment or BEGIN + 100 * HALF_DAY
    end = min(BEGIN + random.randrange(1, 50) * HALF_DAY, latest + reference.INSTANT)
    wanted, pipeline = random.choice(sorted(FILTERS)), random.choice(("", *NAMES))
    about = Question(
        workspace=workspace,
        start=end - random.randrange(1, 30) * HALF_DAY,
        end=end,
        latest=latest,
        moment=moment,
        is_recorded=is_recorded,
        pipeline=pipeline,
        pipelines=PIPELINES,
        wanted=FIELDS.filter(wanted),
        currency="",
    )
    return about, lambda state: pipeline in {"", state.pipeline} and FILTERS[wanted](state)


async def fold(connection, facts):
    """Folds facts in a new workspace, one by one."""
    workspace, versions, view = uuid.uuid4().hex, Counter(), DealsView()
    async with connection.transaction():
        for position, fact in enumerate(facts, start=1):
            versions[fact.deal_id] += 1
            event = Recorded(
                partition=0,
                position=position,
                workspace=workspace,
                stream=f"deal-{fact.deal_id}",
                version=versions[fact.deal_id],
                event_id=uuid.uuid4(),
                type=fact.event.DESCRIPTOR.full_name,
                event=fact.event,
                actor="",
                correlation_id="",
                causation_id="",
                occur_time=fact.occur_time,
                record_time=fact.record_time,
            )
            await view.apply(connection, "deals", [event])
    return workspace


async def check_waterfall(connection, about, told, wanted):
    response = await get_pipeline_waterfall(connection, about)
    amounts, counts = reference.waterfall(told, about.start, about.end, wanted)

    lines = {
        WaterfallLineKind.Name(line.kind).removeprefix("WATERFALL_LINE_KIND_"): line
        for line in response.lines
    }
    for name, line in lines.items():
        assert (counts[name], amounts[name]) == (line.count, by_currency(line.amounts))


async def check_sales(connection, about, told, wanted, group_by):
    custom_field = "source" if group_by == SALES_GROUPING_CUSTOM_FIELD else ""
    for stage in ("", STAGES[1]):
        request = GetSalesReportRequest(
            group_by=group_by, custom_field=custom_field, cycle_start_stage=stage
        )
        response = await get_sales_report(connection, about, request)
        counts, worth, cycles = reference.sales(
            told, about.start, about.end, wanted, GROUPINGS[group_by], stage
        )
        means = {key: (mean(each), reference.median(sorted(each))) for key, each in cycles.items()}

        assert (counts, worth, means) == sales_of(response)


async def check_months(connection, about):
    """What the months tell adds up to what the window does."""
    by_month = GetSalesReportRequest(group_by=SALES_GROUPING_MONTH)
    months = (await get_sales_report(connection, about, by_month)).rows
    [whole] = (await get_sales_report(connection, about, GetSalesReportRequest())).rows

    for count in ("created_count", "won_count", "lost_count"):
        assert getattr(whole, count) == sum(getattr(month, count) for month in months)


def sales_of(response):
    """Counts, worth and cycles as the reference tells them."""
    counts, worth, cycles = Counter(), Counter(), {}
    for row in response.rows:
        counts[row.group, "CREATED"] = row.created_count
        counts[row.group, DEAL_STATE_OPEN] = row.open_count
        counts[row.group, DEAL_STATE_WON] = row.won_count
        counts[row.group, DEAL_STATE_LOST] = row.lost_count
        for value in row.values:
            worth[row.group, "CREATED", value.currency] = value.created.amount_minor
            worth[row.group, DEAL_STATE_OPEN, value.currency] = value.open.amount_minor
            worth[row.group, DEAL_STATE_WON, value.currency] = value.won.amount_minor
            worth[row.group, DEAL_STATE_LOST, value.currency] = value.lost.amount_minor
        if row.HasField("cycle_mean"):
            cycles[row.group] = (row.cycle_mean.ToTimedelta(), row.cycle_median.ToTimedelta())
    return counts, worth, cycles


async def check_conversion(connection, about, told):
    wanted = FILTERS[about.wanted.text]
    horizon = about.latest + reference.INSTANT
    for skips_left_out in (False, True):
        response = await get_stage_conversion(connection, about, skips_left_out=skips_left_out)
        expected = {}
        for stages in (STAGES, RENEWALS):
            if about.pipeline in {"", stages[0].partition("/stages/")[0]}:
                expected |= reference.conversion(
                    told,
                    stages,
                    about.start,
                    about.end,
                    horizon,
                    wanted,
                    skips_left_out=skips_left_out,
                )

        assert expected == {
            row.stage: (row.entered_count, row.passed_count) for row in response.stages
        }


async def check_times(connection, about, told):
    wanted = FILTERS[about.wanted.text]
    response = await get_time_in_stage(connection, about)
    for row in response.stages:
        times = reference.times_in_stage(told, row.stage, about.start, about.end, wanted)
        ages = [age for age, _ in reference.ages(told, row.stage, about.end, wanted)]

        assert len(times) == row.left_count
        assert len(ages) == row.open_count
        if times:
            assert mean(times) == row.mean.ToTimedelta()
            assert reference.median(times) == row.median.ToTimedelta()
            assert reference.p90(times) == row.p90.ToTimedelta()
        if ages:
            assert mean(ages) == row.age_mean.ToTimedelta()


async def check_slippage(connection, about, told, wanted):
    response = await get_slippage(connection, about)
    expected, slipped, pushes = reference.slippage(told, about.start, about.end, wanted)

    for states, total in ((expected, response.expected), (slipped, response.slipped)):
        worth = Counter()
        for state in states:
            if state.currency:
                worth[state.currency] += state.amount_minor
        assert (len(states), worth) == (total.deal_count, by_currency(total.amounts))
    assert (pushes.total(), len(pushes)) == (response.push_count, response.pushed_deal_count)


def by_currency(amounts):
    return Counter({each.currency: each.amount_minor for each in amounts})


def mean(times):
    half_more = 2 * sum(times, timedelta()) + len(times) * reference.INSTANT
    return half_more // (2 * len(times))
