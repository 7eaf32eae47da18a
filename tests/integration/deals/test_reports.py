"""What a sales leader is told of a small pipeline, worked out by hand, now and as of a moment."""

from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.currencies_pb2 import SetBaseCurrencyRequest, SetExchangeRateRequest
from rapport.deals.v1.currencies_pb2_grpc import CurrenciesServiceStub
from rapport.deals.v1.pipelines_pb2 import ChangeStageRequest
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub
from rapport.deals.v1.reports_pb2 import (
    SALES_GROUPING_CUSTOM_FIELD,
    SALES_GROUPING_LOST_REASON,
    SALES_GROUPING_MONTH,
    SALES_GROUPING_OWNER,
    TIME_BASIS_RECORDED,
    GetPipelineWaterfallRequest,
    GetSalesReportRequest,
    GetSlippageRequest,
    GetStageConversionRequest,
    GetTimeInStageRequest,
    ReportScope,
    UnconvertedAmount,
    WaterfallLineKind,
)
from rapport.deals.v1.reports_pb2_grpc import ReportsServiceStub
from rapport.deals.v1.service_pb2 import (
    DealDetails,
    ListDealsRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN, StageSettings
from services.deals.projections.report_sales import ROWS_MAX
from services.kernel.errors import InvalidArgument, NotFound, PermissionDenied
from services.kernel.log.recorded import timestamp_of
from tests.deals_world import DAY, NOW, PROPOSAL, QUALIFICATION, ago, at

FEBRUARY = ReportScope(start_time=ago(28), end_time=at(NOW))


@pytest.fixture
def reports(asked):
    """The reports of the workspace `acme`."""
    return asked.stub(ReportsServiceStub)


@pytest.fixture
async def told(asked, deals, open_deal):
    """Three deals, told today about days before a moment long past."""
    await open_deal(
        "looms",
        amount=euros(1000),
        owner="members/kim",
        custom_fields={"source": "fair"},
        occur_time=ago(20),
    )
    await open_deal("yarn", amount=money(500, "USD"), occur_time=ago(18))
    await open_deal(
        "dye", amount=euros(300), expected_close_time=ago(5), occur_time=ago(32), stage=PROPOSAL
    )
    await deals.MoveDealStage(
        MoveDealStageRequest(name="deals/looms", stage=PROPOSAL, occur_time=ago(15))
    )
    await deals.WinDeal(WinDealRequest(name="deals/looms", occur_time=ago(10)))
    await deals.LoseDeal(LoseDealRequest(name="deals/yarn", reason="price", occur_time=ago(8)))
    await expect(deals, "dye", NOW + 20 * DAY, occur_time=ago(6))


async def expect(deals, deal_id, moment, occur_time):
    """Says when a deal is expected to close."""
    await deals.UpdateDeal(
        UpdateDealRequest(
            name=f"deals/{deal_id}",
            deal=DealDetails(expected_close_time=at(moment)),
            update_mask=FieldMask(paths=["expected_close_time"]),
            occur_time=occur_time,
        )
    )


def money(amount_minor, currency):
    return Money(amount_minor=amount_minor, currency=currency)


def euros(amount_minor):
    return money(amount_minor, "EUR")


def lines_of(response):
    """The lines in which anything is counted."""
    return {
        WaterfallLineKind.Name(line.kind).removeprefix("WATERFALL_LINE_KIND_"): line
        for line in response.lines
        if line.count or line.converted.amount_minor
    }


@pytest.mark.usefixtures("told")
async def test_without_a_base_currency_each_is_told_by_itself(reports):
    waterfall = lines_of(
        await reports.GetPipelineWaterfall(GetPipelineWaterfallRequest(scope=FEBRUARY))
    )
    [row] = (await reports.GetSalesReport(GetSalesReportRequest(scope=FEBRUARY))).rows

    assert {
        "OPEN_AT_START": (1, [euros(300)]),
        "CREATED": (2, [euros(1000), money(500, "USD")]),
        "WON": (1, [euros(1000)]),
        "LOST": (1, [money(500, "USD")]),
        "OPEN_AT_END": (1, [euros(300)]),
    } == {kind: (line.count, list(line.amounts)) for kind, line in waterfall.items()}
    assert (2, 1, 1, 1, 5_000) == (
        row.created_count,
        row.won_count,
        row.lost_count,
        row.open_count,
        row.win_rate_bp,
    )
    assert (10 * DAY, 10 * DAY) == (row.cycle_mean.ToTimedelta(), row.cycle_median.ToTimedelta())
    in_euros, in_dollars = row.values
    # 1 open deal · 1/2 · 10.00 ÷ 10 days.
    assert (10_000, euros(1000), euros(50)) == (
        in_euros.win_rate_bp,
        in_euros.average_deal,
        in_euros.velocity_per_day,
    )
    assert (0, money(500, "USD")) == (in_dollars.win_rate_bp, in_dollars.lost)
    assert not in_dollars.HasField("average_deal")


@pytest.mark.usefixtures("told")
async def test_sums_are_told_in_the_base_currency_at_the_rates_of_their_days(asked, reports):
    currencies = asked.stub(CurrenciesServiceStub)
    await currencies.SetBaseCurrency(SetBaseCurrencyRequest(currency="EUR"))
    unknown = await reports.GetSalesReport(GetSalesReportRequest(scope=FEBRUARY))
    opened, lost = (NOW - days * DAY for days in (18, 8))
    for moment, rate in ((opened, "0.5"), (lost, "0.75")):
        await currencies.SetExchangeRate(
            SetExchangeRateRequest(
                from_currency="USD",
                to_currency="EUR",
                effective_date=moment.date().isoformat(),
                rate=rate,
            )
        )

    sales = await reports.GetSalesReport(GetSalesReportRequest(scope=FEBRUARY))
    waterfall = lines_of(
        await reports.GetPipelineWaterfall(GetPipelineWaterfallRequest(scope=FEBRUARY))
    )

    # Left out of what was created, and of what was lost.
    assert [
        UnconvertedAmount(
            amount=money(1000, "USD"), to_currency="EUR", date=lost.date().isoformat(), count=2
        )
    ] == list(unknown.unconverted)
    assert [0] == [value.lost.amount_minor for row in unknown.rows for value in row.values]
    assert [euros(375)] == [value.lost for row in sales.rows for value in row.values]
    assert [7_273] == [value.win_rate_bp for row in sales.rows for value in row.values]
    assert not sales.unconverted
    assert {
        "OPEN_AT_START": 300,
        "CREATED": 1250,
        "WON": 1000,
        "LOST": 375,
        "REVALUATION": 125,
        "OPEN_AT_END": 300,
    } == {kind: line.converted.amount_minor for kind, line in waterfall.items()}


@pytest.mark.usefixtures("told")
async def test_rows_are_made_of_months_of_reasons_and_of_own_fields(reports):
    async def rows(**by):
        request = GetSalesReportRequest(scope=FEBRUARY, **by)
        return {row.group: row for row in (await reports.GetSalesReport(request)).rows}

    by_month = await rows(group_by=SALES_GROUPING_MONTH)
    by_reason = await rows(group_by=SALES_GROUPING_LOST_REASON)
    by_source = await rows(group_by=SALES_GROUPING_CUSTOM_FIELD, custom_field="source")

    assert {"2026-02": (2, 1, 1)} == {
        month: (row.created_count, row.won_count, row.lost_count) for month, row in by_month.items()
    }
    assert not by_month["2026-02"].HasField("open_count")
    assert {"": 0, "price": 1} == {reason: row.lost_count for reason, row in by_reason.items()}
    assert {"": 0, "fair": 1} == {source: row.won_count for source, row in by_source.items()}


@pytest.mark.usefixtures("told")
async def test_stages_tell_how_many_get_further_and_how_long_they_stay(asked, deals, reports):
    pipelines = asked.stub(PipelinesServiceStub)
    await rot_after(pipelines, days=20)

    conversion = await reports.GetStageConversion(GetStageConversionRequest(scope=FEBRUARY))
    times = await reports.GetTimeInStage(GetTimeInStageRequest(scope=FEBRUARY))
    proposal = times.stages[1]
    rotting = await deals.ListDeals(ListDealsRequest(filter=proposal.rotting_filter))

    # Qualification: looms got further, yarn was lost. Proposal: looms was won.
    assert [(2, 1, 5_000), (1, 1, 10_000), (1, 1, 10_000)] == [
        (row.entered_count, row.passed_count, row.conversion_bp) for row in conversion.stages
    ]
    assert [QUALIFICATION, PROPOSAL] == [row.stage for row in times.stages[:2]]
    assert [(2, 7.5), (1, 5), (0, 0)] == [
        (row.left_count, row.mean.ToTimedelta() / DAY) for row in times.stages
    ]
    assert (1, 32 * DAY, 1) == (
        proposal.open_count,
        proposal.age_mean.ToTimedelta(),
        proposal.rotting_count,
    )
    assert ["deals/dye"] == [deal.name for deal in rotting.deals]
    assert not times.stages[0].rotting_filter


async def rot_after(pipelines, days):
    """Says how long a deal may stay in proposal."""
    settings = StageSettings(display_name="Proposal", kind=STAGE_KIND_OPEN, probability_bp=5_000)
    settings.rot_after.FromTimedelta(timedelta(days=days))
    await pipelines.ChangeStage(ChangeStageRequest(name=PROPOSAL, settings=settings))


@pytest.mark.usefixtures("told")
async def test_what_slipped_is_told_with_what_was_expected(reports):
    slippage = await reports.GetSlippage(GetSlippageRequest(scope=FEBRUARY))

    assert (1, [euros(300)]) == (
        slippage.expected.deal_count,
        list(slippage.expected.amounts),
    )
    assert (1, [euros(300)]) == (slippage.slipped.deal_count, list(slippage.slipped.amounts))
    assert (1, 1) == (slippage.push_count, slippage.pushed_deal_count)


@pytest.mark.usefixtures("told")
async def test_as_of_a_moment_every_report_is_what_it_was_then(asked, deals, reports, open_deal):
    read_time = timestamp_of(asked.kernel.clock.now())
    before = await every_report(reports, read_time)

    await expect(deals, "dye", NOW + 60 * DAY, occur_time=ago(3))
    await open_deal("wool", amount=euros(5), occur_time=ago(25))
    await deals.WinDeal(WinDealRequest(name="deals/dye", occur_time=ago(7)))
    await rot_after(asked.stub(PipelinesServiceStub), days=1)
    await asked.stub(CurrenciesServiceStub).SetBaseCurrency(SetBaseCurrencyRequest(currency="EUR"))
    now = await every_report(reports, timestamp_of(asked.kernel.clock.now()))

    assert before == await every_report(reports, read_time)
    assert all(was != found for was, found in zip(before, now, strict=True))


async def every_report(reports, read_time):
    """All that reports say of February, as known at a moment."""
    asked = {"scope": FEBRUARY, "read_time": read_time}
    return [
        await reports.GetPipelineWaterfall(GetPipelineWaterfallRequest(**asked)),
        await reports.GetSalesReport(GetSalesReportRequest(**asked)),
        await reports.GetStageConversion(GetStageConversionRequest(**asked)),
        await reports.GetTimeInStage(GetTimeInStageRequest(**asked)),
        await reports.GetSlippage(GetSlippageRequest(**asked)),
    ]


@pytest.mark.usefixtures("told")
async def test_by_the_time_of_recording_all_of_it_happened_today(asked, reports):
    recorded = ReportScope(time_basis=TIME_BASIS_RECORDED, start_time=at(NOW))
    earlier = ReportScope(time_basis=TIME_BASIS_RECORDED, start_time=ago(99), end_time=at(NOW))

    [today] = (await reports.GetSalesReport(GetSalesReportRequest(scope=recorded))).rows
    [then] = (await reports.GetSalesReport(GetSalesReportRequest(scope=earlier))).rows
    other = asked.stub(ReportsServiceStub, workspace="other")
    [theirs] = (await other.GetSalesReport(GetSalesReportRequest(scope=recorded))).rows

    assert (3, 1, 1) == (today.created_count, today.won_count, today.lost_count)
    assert today.cycle_mean.ToTimedelta() < DAY
    assert (0, 0) == (then.created_count, then.open_count)
    assert (0, 0, 0) == (theirs.created_count, theirs.open_count, len(theirs.values))


async def test_what_cannot_be_answered_is_refused_with_the_field(asked, reports):
    async def refused(refusal, **scope):
        with pytest.raises(refusal) as error:
            await reports.GetSlippage(GetSlippageRequest(scope=ReportScope(**scope)))
        return [violation.field for violation in getattr(error.value, "violations", ())]

    def window(start, end):
        return {"start_time": at(start), "end_time": at(end)}

    outside = {"start_time": Timestamp(seconds=10**12)}
    tomorrow = asked.kernel.clock.now() + DAY

    assert ["scope.end_time"] == await refused(InvalidArgument, **window(NOW, tomorrow))
    assert ["scope.start_time"] == await refused(InvalidArgument, **window(NOW, NOW))
    assert ["scope.start_time"] == await refused(InvalidArgument, **outside)
    assert ["scope.currency"] == await refused(
        InvalidArgument, currency="XXZ", **window(NOW - DAY, NOW)
    )
    assert [] == await refused(NotFound, pipeline="pipelines/none", **window(NOW - DAY, NOW))
    for half in ({"group_by": SALES_GROUPING_CUSTOM_FIELD}, {"custom_field": "source"}):
        with pytest.raises(InvalidArgument):
            await reports.GetSalesReport(GetSalesReportRequest(scope=FEBRUARY, **half))
    stranger = asked.stub(ReportsServiceStub, scopes=frozenset({"contacts.read"}))
    with pytest.raises(PermissionDenied):
        await stranger.GetSlippage(GetSlippageRequest(scope=FEBRUARY))


async def test_a_report_is_for_people_to_read(asked, reports):
    await asked.kernel.pool.execute(MANY_OWNERS, ROWS_MAX + 1)
    request = GetSalesReportRequest(scope=FEBRUARY, group_by=SALES_GROUPING_OWNER)

    with pytest.raises(InvalidArgument) as error:
        await reports.GetSalesReport(request)
    await asked.kernel.pool.execute("delete from deals.deal_periods where deal_id = 'd1'")
    response = await reports.GetSalesReport(request)

    assert ["group_by"] == [violation.field for violation in error.value.violations]
    assert ROWS_MAX == len(response.rows)


MANY_OWNERS = f"""
insert into deals.deal_periods (
    workspace, deal_id, state, contacts, owner, pipeline, stage, custom_fields, is_deleted, version,
    partition, create_position, update_position, create_time, update_time, place, from_time, to_time
)
select 'acme', 'd' || n, 1, '{{}}', 'members/m' || n, 'pipelines/sales', '{PROPOSAL}', '{{}}',
    false, 1, 0, 1, 1, '2026-02-01', '2026-02-01', 1, '2026-02-01', 'infinity'
from generate_series(1, $1::int) n
"""
