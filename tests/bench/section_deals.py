"""A pipeline of many deals: board, forecast and reports now, and as they were a year ago."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

from asyncpg import Pool

from rapport.deals.v1.currencies_pb2 import SetExchangeRateRequest
from rapport.deals.v1.currencies_pb2_grpc import CurrenciesServiceStub
from rapport.deals.v1.forecasts_pb2 import ForecastGroupBy, GetForecastRequest
from rapport.deals.v1.forecasts_pb2_grpc import ForecastsServiceStub
from rapport.deals.v1.reports_pb2 import (
    GetPipelineWaterfallRequest,
    GetSalesReportRequest,
    ReportScope,
)
from rapport.deals.v1.reports_pb2_grpc import ReportsServiceStub
from rapport.deals.v1.service_pb2 import GetDealBoardRequest, ListDealsRequest
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from services.kernel.clock import SystemClock
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import open_pool
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.world import World

CALL_TIMEOUT_S = 30.0
FILL_TIMEOUT_S = 300.0
YEAR = timedelta(days=365)
QUARTER = timedelta(days=91)
DEALS_PER_STAGE = 20

_COLUMNS = """workspace, deal_id, state, display_name, contact, contacts, company, owner, team,
    amount_minor, currency, pipeline, stage, expected_close_time, custom_fields, open_time,
    stage_time, change_time, close_time, is_deleted, version, partition, create_position,
    update_position, create_time, update_time"""

# Deals opened over two years; each enters a stage or ends every few days or weeks, and has done so
# as often as there was time for: at most three open stages, then most are closed.
_FILL_VERSIONS = f"""
insert into deals.deals_versions ({_COLUMNS}, from_time, to_time)
select 'development', 'd' || n,
    case when v < 4 then 1 when n % 5 < 2 then 2 when n % 5 < 4 then 3 else 1 end, 'Deal ' || n,
    'contacts/c' || n % 50000, jsonb_build_object('contacts/c' || n % 50000, ''),
    'companies/c' || n % 9000, 'members/m' || n % 40, 'teams/t' || n % 8,
    1000 + (n * 7919) % 5000000, case when n % 4 = 0 then 'USD' else 'EUR' end, 'pipelines/sales',
    'pipelines/sales/stages/' || case when v < 4
        then (array['qualification', 'proposal', 'negotiation'])[v]
        else (array['won', 'won', 'lost', 'lost', 'negotiation'])[1 + n % 5] end,
    opened + interval '90 days' + (n % 60) * interval '1 day', '{{}}', opened,
    opened + (v - 1) * pace, opened, case when v = 4 and n % 5 < 4 then opened + 3 * pace end,
    false, v, 0, 0, 0, opened, opened + (v - 1) * pace, opened + (v - 1) * pace,
    case when v < 4 and opened + v * pace <= $2 then opened + v * pace else 'infinity' end
from generate_series(1, $1::int) n
cross join lateral (
    select $2::timestamptz - (n::bigint * 104729 % 63072000) * interval '1 second' as opened,
        (3 + n % 40) * interval '1 day' as pace
) as history
cross join generate_series(1, 4) v
where opened + (v - 1) * pace <= $2
"""
_FILL_DEALS = f"""
insert into deals.deals ({_COLUMNS})
select {_COLUMNS} from deals.deals_versions where to_time = 'infinity'
"""
_FILL_PERIODS = f"""
insert into deals.deal_periods ({_COLUMNS}, place, from_time, to_time)
select {_COLUMNS}, version, from_time, to_time from deals.deals_versions
"""
_TABLES = ("deals.deals", "deals.deals_versions", "deals.deal_periods")

_BARE_BOARD = """
select stage, currency, count(*), sum(amount_minor) from deals.deals
where workspace = 'development' and state = 1 and not is_deleted group by stage, currency
"""

_DOLLARS = SetExchangeRateRequest(
    from_currency="USD", to_currency="EUR", effective_date="2000-01-01", rate="0.92"
)

Ask = Callable[[], Awaitable[object]]


async def fill(pool: Pool, count: int, now: datetime) -> None:
    """Makes so many deals with their histories, as the view would hold them."""
    await pool.execute(_FILL_VERSIONS, count, now, timeout=FILL_TIMEOUT_S)
    await pool.execute(_FILL_DEALS, timeout=FILL_TIMEOUT_S)
    await pool.execute(_FILL_PERIODS, timeout=FILL_TIMEOUT_S)
    for table in _TABLES:
        await pool.execute(f"vacuum analyze {table}", timeout=FILL_TIMEOUT_S)


async def timed(ask: Ask, count: int) -> Measured:
    """Asks so often, one after the other, each timed."""
    latencies_ms: list[float] = []
    began = time.perf_counter()
    for _ in range(count):
        started = time.perf_counter()
        await ask()
        latencies_ms.append((time.perf_counter() - started) * 1e3)
    return Measured(count, time.perf_counter() - began, latencies_ms)


def forecasting(stub: ForecastsServiceStub, now: datetime, moment: datetime | None) -> Ask:
    """Asks what the deals of a quarter come to by owner, now or as of a moment."""
    then = now if moment is None else moment
    request = GetForecastRequest(
        period=f"{then.year}-Q{(then.month + 2) // 3}",
        currency="EUR",
        group_by=ForecastGroupBy.FORECAST_GROUP_BY_OWNER,
        read_time=None if moment is None else timestamp_of(moment),
    )

    async def forecast() -> None:
        answer = await stub.GetForecast(request, timeout=CALL_TIMEOUT_S)
        assert answer.groups

    return forecast


def asking(stub: DealsServiceStub, moment: datetime | None) -> dict[str, Ask]:
    """Each question, about now or about a moment."""
    at = {} if moment is None else {"read_time": timestamp_of(moment)}

    async def board() -> None:
        request = GetDealBoardRequest(deals_per_stage=DEALS_PER_STAGE, **at)
        answer = await stub.GetDealBoard(request, timeout=CALL_TIMEOUT_S)
        assert all(stage.deal_count for stage in answer.stages)

    async def page() -> None:
        request = ListDealsRequest(order_by="create_time desc", **at)
        answer = await stub.ListDeals(request, timeout=CALL_TIMEOUT_S)
        assert answer.deals

    return {"board": board, "page": page}


def reporting(stub: ReportsServiceStub, now: datetime, moment: datetime | None) -> dict[str, Ask]:
    """Asks each report about the last quarter, in one currency, now or as of a moment."""
    then = now if moment is None else moment
    scope = ReportScope(start_time=timestamp_of(then - QUARTER), currency="EUR")
    read_time = None if moment is None else timestamp_of(moment)

    async def waterfall() -> None:
        request = GetPipelineWaterfallRequest(scope=scope, read_time=read_time)
        answer = await stub.GetPipelineWaterfall(request, timeout=CALL_TIMEOUT_S)
        assert answer.lines[0].count

    async def sales() -> None:
        request = GetSalesReportRequest(scope=scope, read_time=read_time)
        answer = await stub.GetSalesReport(request, timeout=CALL_TIMEOUT_S)
        assert answer.rows[0].won_count

    return {"waterfall": waterfall, "sales": sales}


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    sizes = world.sizes
    now = SystemClock().now()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.forget_feeds)
        url = await world.postgres.create_database("rapport_deals")
        await stack.enter_async_context(world.process("deals", url))
        pool = await stack.enter_async_context(open_pool(url))
        await fill(pool, sizes.deals, now)
        peer = await stack.enter_async_context(world.peer("deals"))
        stub, forecasts = DealsServiceStub(peer), ForecastsServiceStub(peer)
        reports = ReportsServiceStub(peer)
        await CurrenciesServiceStub(peer).SetExchangeRate(_DOLLARS, timeout=CALL_TIMEOUT_S)

        async def counted() -> None:
            assert await pool.fetch(_BARE_BOARD)

        asks = {
            "board by SQL": counted,
            **_named("now", asking(stub, None)),
            **_named("a year ago", asking(stub, now - YEAR)),
            "forecast now": forecasting(forecasts, now, None),
            "forecast a year ago": forecasting(forecasts, now, now - YEAR),
        }
        heavy = {
            **_named("now", reporting(reports, now, None)),
            **_named("a year ago", reporting(reports, now, now - YEAR)),
        }
        contenders = [
            Contender(name, partial(timed, ask, count))
            for count, questions in ((sizes.boards, asks), (sizes.reports, heavy))
            for name, ask in questions.items()
        ]
        yield Bout(contenders, _lines(sizes.deals))


def _named(when: str, asks: dict[str, Ask]) -> dict[str, Ask]:
    return {f"{name} {when}": ask for name, ask in asks.items()}


def _lines(deals: int) -> list[Line]:
    return [
        Line(what=f"{what}, {deals:,} deals, p95", ours=ours, bare=bare, metric="p95_ms", note=note)
        for what, ours, bare, note in (
            ("board now", "board now", "board by SQL", "bare: its counts and sums by SQL"),
            ("board as of a year ago", "board a year ago", "board now", "bare: here our board now"),
            ("forecast of a quarter by owner", "forecast now", "board now", "bare: the board"),
            (
                "forecast as of a year ago",
                "forecast a year ago",
                "forecast now",
                "bare: here our forecast now",
            ),
            ("page of deals as of a year ago", "page a year ago", "page now", "bare: now"),
            ("waterfall of a quarter", "waterfall now", "board now", "bare: the board"),
            ("waterfall as of a year ago", "waterfall a year ago", "waterfall now", "bare: now"),
            ("sales of a quarter", "sales now", "board now", "bare: the board"),
            ("sales as of a year ago", "sales a year ago", "sales now", "bare: now"),
        )
    ]


SECTION = Section("deals", "Deals: a large pipeline now and as of a year ago", _open)
