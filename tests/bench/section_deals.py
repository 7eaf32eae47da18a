"""A pipeline of many deals: the board now, and as it was a year ago."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

from asyncpg import Pool

from rapport.deals.v1.service_pb2 import GetDealBoardRequest, ListDealsRequest
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from services.kernel.clock import SystemClock
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import open_pool
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.sizes import READ_CALLERS
from tests.bench.world import World

CALL_TIMEOUT_S = 30.0
FILL_TIMEOUT_S = 300.0
YEAR = timedelta(days=365)
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
    false, v, 0, n, n, opened, opened + (v - 1) * pace, opened + (v - 1) * pace,
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
