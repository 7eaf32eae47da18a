"""Reports at their edges: too much money, the calendar's beginning, every field, no time."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.deals.v1.currencies_pb2 import SetExchangeRateRequest
from rapport.deals.v1.currencies_pb2_grpc import CurrenciesServiceStub
from rapport.deals.v1.pipelines_pb2 import ChangeStageRequest
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub
from rapport.deals.v1.reports_pb2 import (
    TIME_BASIS_OCCURRED,
    TIME_BASIS_RECORDED,
    GetPipelineWaterfallRequest,
    GetSalesReportRequest,
    GetSlippageRequest,
    GetStageConversionRequest,
    GetTimeInStageRequest,
    ReportScope,
    WaterfallLineKind,
)
from rapport.deals.v1.reports_pb2_grpc import ReportsServiceStub
from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN, StageSettings
from services.deals.deal import AMOUNT_MINOR_MAX
from services.deals.projections.deals import FIELDS
from services.deals.service import reports as served
from services.kernel.errors import DeadlineExceeded, OutOfRange
from services.kernel.lists.filter import Kind
from services.kernel.log.database import transaction
from services.kernel.log.recorded import timestamp_of
from services.kernel.testing import eventually
from tests.deals_world import DAY, FIRST, NOW, PROPOSAL, ago, at

FEBRUARY = ReportScope(start_time=ago(28), end_time=at(NOW))
REQUESTS = {
    "GetPipelineWaterfall": GetPipelineWaterfallRequest,
    "GetSalesReport": GetSalesReportRequest,
    "GetStageConversion": GetStageConversionRequest,
    "GetTimeInStage": GetTimeInStageRequest,
    "GetSlippage": GetSlippageRequest,
}
WITH_MONEY = ("GetPipelineWaterfall", "GetSalesReport", "GetSlippage")
VALUES = {
    Kind.TEXT: ' != "x"',
    Kind.INTEGER: " < 9",
    Kind.TIMESTAMP: ' > "2026-01-01T00:00:00Z"',
    Kind.ENUM: ":*",
    Kind.TEXT_MAP: ':"contacts/a"',
    Kind.STRUCT: '.source = "fair"',
}
EVERY_FIELD = " OR ".join(f"{name}{VALUES[FIELDS[name].kind]}" for name in FIELDS.names())
# Expected to close before the window ends, and worth this much each.
MANY = f"""
insert into deals.deal_periods (
    workspace, deal_id, state, contacts, pipeline, stage, custom_fields, is_deleted,
    version, partition, create_position, update_position, create_time, update_time, place,
    from_time, to_time, currency, amount_minor, expected_close_time
)
select 'acme', 'd' || n, 1, '{{}}', 'pipelines/sales', '{PROPOSAL}', '{{}}',
    false, 1, 0, 1, 1, $3, $3, 1, $3, 'infinity', 'EUR', $2, '2026-02-20'
from generate_series(1, $1::int) n
"""

HANG = "lock table deals.deal_periods in access exclusive mode"
WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
"""


@pytest.fixture
def reports(asked):
    """The reports of the workspace `acme`."""
    return asked.stub(ReportsServiceStub)


async def report(reports, method, scope, **said):
    """Asks for a report by the name of its method."""
    return await getattr(reports, method)(REQUESTS[method](scope=scope, **said))


async def test_sums_beyond_64_bits_are_refused_and_never_wrong(asked, reports):
    fitting = (2**63 - 1) // AMOUNT_MINOR_MAX
    await asked.kernel.pool.execute(MANY, fitting, AMOUNT_MINOR_MAX, NOW - 40 * DAY)
    slippage = await report(reports, "GetSlippage", FEBRUARY)
    await asked.kernel.pool.execute(
        "update deals.deal_periods set amount_minor = amount_minor + 1000000000000"
    )

    assert fitting * AMOUNT_MINOR_MAX == slippage.expected.amounts[0].amount_minor
    for method in WITH_MONEY:
        with pytest.raises(OutOfRange):
            await report(reports, method, FEBRUARY)


async def test_many_large_amounts_are_told_in_another_currency_as_each_by_itself(asked, reports):
    rate = SetExchangeRateRequest(
        from_currency="EUR", to_currency="USD", effective_date="2026-01-01", rate="0.9"
    )
    await asked.stub(CurrenciesServiceStub).SetExchangeRate(rate)
    await asked.kernel.pool.execute(MANY, 2, AMOUNT_MINOR_MAX, NOW - 40 * DAY)
    in_dollars = ReportScope(start_time=ago(28), end_time=at(NOW), currency="USD")

    waterfall = await report(reports, "GetPipelineWaterfall", in_dollars)

    assert [] == list(waterfall.unconverted)
    assert {"OPEN_AT_START": 18 * 10**14, "OPEN_AT_END": 18 * 10**14} == {
        WaterfallLineKind.Name(line.kind).removeprefix("WATERFALL_LINE_KIND_"): (
            line.converted.amount_minor
        )
        for line in waterfall.lines
        if line.converted.amount_minor
    }


@pytest.mark.parametrize("basis", [TIME_BASIS_OCCURRED, TIME_BASIS_RECORDED])
async def test_a_window_may_begin_with_the_calendar(asked, reports, open_deal, basis):
    settings = StageSettings(display_name="Proposal", kind=STAGE_KIND_OPEN, probability_bp=5_000)
    settings.rot_after.FromTimedelta(DAY)
    pipelines = asked.stub(PipelinesServiceStub)
    await pipelines.ChangeStage(ChangeStageRequest(name=PROPOSAL, settings=settings))
    await open_deal("looms", stage=PROPOSAL)

    for end_time in (Timestamp(seconds=FIRST.seconds + 1), timestamp_of(asked.kernel.clock.now())):
        scope = ReportScope(start_time=FIRST, end_time=end_time, time_basis=basis, currency="EUR")
        for method in REQUESTS:
            await report(reports, method, scope)


async def test_a_filter_may_ask_every_field_of_every_report(asked, reports, open_deal):
    await open_deal("looms", owner="members/kim", custom_fields={"source": "fair"})
    read_time = timestamp_of(asked.kernel.clock.now())
    await open_deal("yarn", occur_time=ago(20))

    for basis in (TIME_BASIS_OCCURRED, TIME_BASIS_RECORDED):
        scope = ReportScope(start_time=ago(28), filter=EVERY_FIELD, time_basis=basis)
        for method in REQUESTS:
            assert await report(reports, method, scope)
            assert await report(reports, method, scope, read_time=read_time)


async def test_what_nobody_waits_for_any_more_is_not_worked_out(asked, reports):
    async with transaction(asked.kernel.pool) as blocker:
        await blocker.execute(HANG)
        for method, request in REQUESTS.items():
            with pytest.raises(DeadlineExceeded):
                await getattr(reports, method)(request(scope=FEBRUARY), timeout=0.2)

        async def nobody_waits():
            assert not await blocker.fetchval(WAITING)

        await eventually(nobody_waits)


async def test_a_report_that_takes_too_long_is_told_so(asked, reports, monkeypatch):
    monkeypatch.setattr(served, "STATEMENT_S_MAX", 0.1)
    async with transaction(asked.kernel.pool) as blocker:
        await blocker.execute(HANG)
        with pytest.raises(DeadlineExceeded) as error:
            await report(reports, "GetSlippage", FEBRUARY)

    assert "ask for less" in error.value.message
