"""SQL counts what the definition counts: of deals as they are, as they were recorded, as they were.

The tables are filled by hand, so that random deals are cheap.
"""

import uuid
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapport.deals.v1.forecasts_pb2 import ForecastErrorReason, ForecastGroupBy, ForecastTimeBasis
from rapport.deals.v1.service_pb2 import DEAL_STATE_LOST, DEAL_STATE_OPEN, DEAL_STATE_WON
from services.deals.exchange import CONVERTED_MINOR_MAX, Rate, Rates
from services.deals.forecast_periods import consecutive, known_period
from services.deals.pipeline import STARTING, STARTING_ID, stage_name
from services.deals.projections.deals import DealsView
from services.deals.projections.forecast_settings import Reading
from services.deals.projections.forecasts import (
    ERRORS_MAX,
    GROUPS_MAX,
    Asked,
    count_deals,
    source_of,
    statement,
)
from tests.forecast_reference import COUNTS, CountedDeal, reference

PERIODS = consecutive(known_period("2026-Q4"), 2)
BEGIN, MIDDLE, END = PERIODS[0].begin_time, PERIODS[1].begin_time, PERIODS[1].end_time
MOMENT = BEGIN + timedelta(days=40, hours=23)
US = timedelta(microseconds=1)
DAY = timedelta(days=1)
RATES = Rates(
    [
        Rate("USD", "EUR", date(2026, 1, 1), Decimal("0.9")),
        Rate("USD", "EUR", date(2026, 11, 1), Decimal("0.87654321")),
        Rate("JPY", "EUR", date(2026, 10, 20), Decimal("0.0055")),
        Rate("CHF", "EUR", date(2026, 1, 1), Decimal("1.05")),
    ]
)
STAGES = {
    stage_name(STARTING_ID, stage.stage_id): (stage.likely_bp, stage.category)
    for stage in STARTING.stages
}
OWNER = ForecastGroupBy.FORECAST_GROUP_BY_OWNER
TEAM = ForecastGroupBy.FORECAST_GROUP_BY_TEAM
TOO_LARGE = ForecastErrorReason.FORECAST_ERROR_REASON_AMOUNT_TOO_LARGE
NONE = ForecastGroupBy.FORECAST_GROUP_BY_NONE
RECORD = ForecastTimeBasis.FORECAST_TIME_BASIS_RECORD
OCCUR = ForecastTimeBasis.FORECAST_TIME_BASIS_OCCUR
GROUP_OF = {
    OWNER: lambda deal: deal.owner or "",
    TEAM: lambda deal: deal.team or "",
    NONE: lambda _: "",
}

FILL = """
insert into deals.{table} (
    workspace, deal_id, state, amount_minor, currency, stage, forecast_category_override,
    probability_bp_override, expected_close_time, close_time, owner, team, pipeline, is_deleted,
    contacts, custom_fields, version, partition, create_position, update_position, create_time,
    update_time {columns}
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, '[]', '{{}}', 1, 0, 1, 1,
    'epoch', 'epoch' {values})
"""
FILLS = {
    "deals": FILL.format(table="deals", columns="", values=""),
    "deals_versions": FILL.format(
        table="deals_versions", columns=", from_time, to_time", values=", $15, $16"
    ),
    "deal_periods": FILL.format(
        table="deal_periods", columns=", from_time, to_time, place", values=", $15, $16, 1"
    ),
}

MANY = """
insert into deals.{table} (
    workspace, deal_id, state, amount_minor, currency, stage, expected_close_time, close_time,
    owner, pipeline, is_deleted, contacts, custom_fields, version, partition, create_position,
    update_position, create_time, update_time {columns}
)
select 'acme', 'd' || n, 1 + n % 3, n, 'EUR', 'pipelines/sales/stages/proposal',
    '2020-01-01'::timestamptz + n % 3650 * interval '1 day',
    '2020-01-01'::timestamptz + n % 3650 * interval '1 day', 'members/' || n % 50,
    'pipelines/sales', false, '[]', '{{}}', 1, 0, n, n, 'epoch', 'epoch' {values}
from generate_series(1, 20000) n
"""


@pytest.fixture
async def pool(database):
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        await pool.execute("create schema deals")
        await pool.execute(DealsView().tables("deals"))
        yield pool


def reading_at(moment):
    pipelines = {STARTING_ID: STARTING}
    return Reading(moment, "EUR", RATES, pipelines, BEGIN.date(), min(END, moment).date())


async def filled(pool, deals, table="deals"):
    """A workspace with these deals."""
    workspace = uuid.uuid4().hex
    rows = [
        (
            *(workspace, f"d{number}", deal.state, deal.amount_minor, deal.currency, deal.stage),
            *(deal.category, deal.likely_bp, deal.expected_close_time, deal.close_time),
            *(deal.owner, deal.team, deal.pipeline, deal.is_deleted),
            *(() if table == "deals" else (deal.from_time, deal.to_time)),
        )
        for number, deal in enumerate(deals)
    ]
    await pool.executemany(FILLS[table], rows)
    return workspace


async def counted(pool, asked, source, *readings):
    """What SQL counts at each reading, in the shape of the reference."""
    async with pool.acquire() as connection:
        found, error_count = await count_deals(connection, asked, source, readings)
    assert error_count == sum(len(each.errors) for each in found)
    return [_as_reference(each) for each in found]


def _as_reference(each):
    tallies = {
        (group, place, category): Counter({name: getattr(tally, name) for name in COUNTS})
        for group, places in each.groups.items()
        for place, categories in places.items()
        for category, tally in categories.items()
    }
    wrong = {
        (error.place, error.currency, error.day): Counter(
            deal_count=error.deal_count, amount_minor=error.amount_minor
        )
        for error in each.errors
    }
    return tallies, wrong


def asked_of(workspace, **said):
    return Asked(**{"workspace": workspace, "periods": PERIODS, "currency": "EUR"} | said)


edges = st.sampled_from([BEGIN - US, BEGIN, MOMENT, MIDDLE - US, MIDDLE, END - US, END])
closed = st.sampled_from([BEGIN - US, BEGIN, BEGIN + 19 * DAY, MOMENT - DAY, MOMENT])
currencies = st.sampled_from(["EUR", "EUR", "USD", "JPY", "GBP"])
prices = st.one_of(
    st.just((None, None)),
    st.tuples(st.integers(0, 10**6) | st.just(10**15), currencies).filter(
        lambda price: price[1] != "JPY" or price[0] < 10**15
    ),
)
spans = st.sampled_from(
    [(BEGIN - DAY, MOMENT), (BEGIN - DAY, END), (MOMENT, END), (MOMENT, MOMENT)]
)


@st.composite
def deals(draw):
    state = draw(
        st.sampled_from([DEAL_STATE_OPEN, DEAL_STATE_OPEN, DEAL_STATE_WON, DEAL_STATE_LOST])
    )
    amount_minor, currency = draw(prices)
    from_time, to_time = draw(spans)
    close_time = None if state == DEAL_STATE_OPEN else draw(closed)
    return CountedDeal(
        state=state,
        amount_minor=amount_minor,
        currency=currency,
        stage=draw(st.sampled_from([*STAGES, "pipelines/gone/stages/gone"])),
        category=draw(st.none() | st.integers(1, 5)),
        likely_bp=draw(st.none() | st.integers(0, 10_000)),
        expected_close_time=draw(st.none() | edges),
        close_time=close_time,
        owner=draw(st.sampled_from([None, "members/kim", "members/lee"])),
        team=draw(st.sampled_from([None, "teams/north"])),
        pipeline=draw(st.sampled_from(["pipelines/sales", "pipelines/renewals"])),
        is_deleted=draw(st.sampled_from([False, False, False, True])),
        # No moment sees a deal closed before it was.
        from_time=max(from_time, close_time or from_time),
        to_time=to_time,
    )


asks = st.fixed_dictionaries(
    {
        "group_by": st.sampled_from([OWNER, TEAM, NONE]),
        "pipeline": st.sampled_from(["", "", "pipelines/renewals"]),
        "owner": st.sampled_from(["", "", "members/kim"]),
        "team": st.sampled_from(["", "", "teams/north"]),
    }
)
few = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@given(st.lists(deals(), max_size=20), asks)
@few
async def test_deals_are_counted_as_the_definition_counts_them(pool, deals, ask):
    asked = asked_of(await filled(pool, deals), **ask)
    reading = reading_at(MOMENT)

    [found] = await counted(pool, asked, source_of(RECORD, None), reading)

    assert reference(deals, reading, asked, GROUP_OF[ask["group_by"]], STAGES) == found


@given(st.lists(deals(), max_size=20), asks, st.sampled_from([RECORD, OCCUR]))
@few
async def test_deals_of_several_moments_are_counted_as_each_moment_saw_them(
    pool, deals, ask, basis
):
    table = "deals_versions" if basis == RECORD else "deal_periods"
    asked = asked_of(await filled(pool, deals, table), **ask)
    readings = [reading_at(moment) for moment in (BEGIN - DAY, MOMENT - US, MOMENT)]

    found = await counted(pool, asked, source_of(basis, MOMENT), *readings)

    for reading, each in zip(readings, found, strict=True):
        seen = [deal for deal in deals if deal.from_time <= reading.moment < deal.to_time]
        assert reference(seen, reading, asked, GROUP_OF[ask["group_by"]], STAGES) == each


OPEN = CountedDeal(amount_minor=100, currency="EUR", expected_close_time=BEGIN)


async def test_groups_add_up_to_all_to_the_cent(pool):
    third = replace(OPEN, currency="USD", amount_minor=33)
    deals = [replace(third, owner=f"members/{number}") for number in range(9)]
    workspace = await filled(pool, deals)

    [(groups, _)] = await counted(
        pool, asked_of(workspace, group_by=OWNER), source_of(RECORD, None), reading_at(MOMENT)
    )
    [(whole, _)] = await counted(
        pool, asked_of(workspace, group_by=NONE), source_of(RECORD, None), reading_at(MOMENT)
    )

    assert sum(groups.values(), Counter()) == sum(whole.values(), Counter())


async def test_an_amount_that_grows_too_large_is_an_error(pool):
    largest = replace(OPEN, amount_minor=CONVERTED_MINOR_MAX)
    deals = [largest, replace(largest, currency="CHF")]
    asked = asked_of(await filled(pool, deals))

    async with pool.acquire() as connection:
        [found], _ = await count_deals(
            connection, asked, source_of(RECORD, None), [reading_at(MOMENT)]
        )

    [tally] = found.groups[""][1].values()
    assert (2, 1, CONVERTED_MINOR_MAX) == (
        tally.deal_count,
        tally.left_out_count,
        tally.amount_minor,
    )
    assert [(1, CONVERTED_MINOR_MAX, "CHF")] == [
        (error.deal_count, error.amount_minor, error.currency) for error in found.errors
    ]
    assert {TOO_LARGE} == {error.reason for error in found.errors}


async def test_no_more_groups_and_errors_are_answered_than_the_limits_allow(pool):
    foreign = replace(OPEN, currency="GBP", state=DEAL_STATE_WON)
    days = range(ERRORS_MAX + 1)
    groups = range(GROUPS_MAX + 2)
    asked = asked_of(
        await filled(
            pool,
            [replace(foreign, close_time=BEGIN - number * DAY) for number in days]
            + [replace(OPEN, owner=f"members/{number:04}") for number in groups],
        ),
        periods=consecutive(known_period("2025"), 2),
        group_by=OWNER,
    )

    async with pool.acquire() as connection:
        [found], error_count = await count_deals(
            connection, asked, source_of(RECORD, None), [reading_at(MOMENT)]
        )

    assert GROUPS_MAX + 1 == len(found.groups)
    assert (ERRORS_MAX, ERRORS_MAX + 1) == (len(found.errors), error_count)


@pytest.mark.parametrize(
    ("table", "basis", "columns", "values"),
    [
        ("deals", None, "", ""),
        ("deals_versions", RECORD, ", from_time, to_time", ", 'epoch', 'infinity'"),
        ("deal_periods", OCCUR, ", from_time, to_time, place", ", 'epoch', 'infinity', 1"),
    ],
)
async def test_a_period_of_many_deals_is_read_along_indexes(pool, table, basis, columns, values):
    async with pool.acquire() as connection:
        await connection.execute(MANY.format(table=table, columns=columns, values=values))
        await connection.execute(f"vacuum analyze deals.{table}")
        asked = asked_of("acme", group_by=OWNER)
        source = source_of(basis or RECORD, None if basis is None else MOMENT)
        sql, args = statement(asked, source, [reading_at(MOMENT)], {"EUR"})
        plan = "\n".join(row[0] for row in await connection.fetch(f"explain {sql}", *args))

    assert f"Seq Scan on {table}" not in plan
    assert "by_expected_close_time" in plan
    assert "by_close_time" in plan
