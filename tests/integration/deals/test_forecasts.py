"""What deals come to is told beside quotas and what people say, now and as of any moment."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.deals.v1 import forecasts_pb2 as pb
from rapport.deals.v1.currencies_pb2 import SetBaseCurrencyRequest, SetExchangeRateRequest
from rapport.deals.v1.currencies_pb2_grpc import CurrenciesServiceStub
from rapport.deals.v1.forecasts_pb2_grpc import ForecastsServiceStub
from rapport.deals.v1.lines_pb2 import LineItem, LineItems
from rapport.deals.v1.service_pb2 import (
    DealDetails,
    DeleteDealRequest,
    ListDealsRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_BEST_CASE,
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_COMMIT,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
)
from services.deals.__main__ import SERVICE
from services.deals.projections.forecast_submissions import ForecastSubmissionsView
from services.deals.projections.quotas import QuotasView
from services.kernel.clock import FixedClock
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.rebuild import Rebuild
from tests.forecast_world import (
    DUE,
    KIM,
    LEE,
    Q4,
    acts_of,
    dollars,
    euros,
    forecast_of,
    quota,
    some_deals,
    submission,
)

START = datetime(2026, 10, 5, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
BY_OWNER = pb.ForecastGroupBy.FORECAST_GROUP_BY_OWNER
UNKNOWN = pb.ForecastErrorReason.FORECAST_ERROR_REASON_RATE_UNKNOWN
OCCUR = pb.ForecastTimeBasis.FORECAST_TIME_BASIS_OCCUR


@pytest.fixture
def clock():
    """A clock that goes when it is told."""
    return FixedClock(START)


@pytest.fixture
async def asked(start_service, clock):
    """The running service."""
    return await start_service(SERVICE, clock=clock)


@pytest.fixture
def forecasts(asked):
    """Forecasts as the workspace `acme` sees them."""
    return asked.stub(ForecastsServiceStub)


@pytest.fixture
def currencies(asked):
    return asked.stub(CurrenciesServiceStub)


async def test_a_forecast_is_told_by_owner_beside_what_it_is_held_against(
    deals, open_deal, forecasts
):
    await some_deals(deals, open_deal)
    await forecasts.SetQuota(quota(euros(10_000), owner=LEE))
    await forecasts.SetQuota(quota(euros(1), owner="members/nobody", period="2027-Q1"))
    said = await forecasts.SubmitForecast(submission(euros(9_000), owner=LEE))

    answer = await forecasts.GetForecast(forecast_of(group_by=BY_OWNER, period_count=2))

    kim, lee, nobody = answer.groups
    assert [KIM, LEE, "members/nobody"] == [kim.group, lee.group, nobody.group]
    assert answer.is_complete
    assert not answer.errors
    [of_kim, of_lee] = kim.forecasts[0], lee.forecasts[0]
    assert [Q4, "2027-Q1"] == [each.period for each in kim.forecasts]
    assert [(FORECAST_CATEGORY_PIPELINE, 1, 1_000), (FORECAST_CATEGORY_BEST_CASE, 1, 2_000)] == [
        (each.category, each.deal_count, each.amount.amount_minor) for each in of_kim.tallies
    ]
    assert [
        (FORECAST_CATEGORY_OMITTED, 16_000),
        (FORECAST_CATEGORY_COMMIT, 4_000),
        (FORECAST_CATEGORY_CLOSED, 8_000),
    ] == [(each.category, each.amount.amount_minor) for each in of_lee.tallies]
    # 20 % of 10.00 and 50 % of 20.00; 80 % of 40.00.
    assert [euros(1_200), euros(3_200)] == [of_kim.weighted, of_lee.weighted]
    assert [euros(8_000), euros(12_000), euros(12_000), euros(12_000)] == [
        of_lee.closed,
        of_lee.commit,
        of_lee.most_likely,
        of_lee.best_case,
    ]
    assert [euros(4_000), euros(11_200)] == [of_lee.pipeline, of_lee.expected]
    # 40.00 / (100.00 - 80.00), and 80.00 / 100.00.
    assert ["2.0000", "0.8000"] == [of_lee.coverage, of_lee.attainment]
    assert [euros(10_000), said.submission] == [of_lee.quota, of_lee.submission]
    assert not of_kim.HasField("quota")
    assert euros(1) == nobody.forecasts[1].quota
    assert [(FORECAST_CATEGORY_PIPELINE, 1, euros(32_000))] == [
        (each.category, each.deal_count, each.amount) for each in lee.undated
    ]


async def test_what_no_rate_tells_is_an_error_and_never_a_silent_one(
    deals, open_deal, forecasts, currencies
):
    await open_deal("a", amount=dollars(1_000), expected_close_time=DUE)
    await open_deal("b", amount=euros(5), expected_close_time=DUE)
    await forecasts.SetQuota(quota(dollars(2_000)))

    answer = await forecasts.GetForecast(forecast_of())

    [group] = answer.groups
    assert euros(5) == group.forecasts[0].pipeline
    assert [(2, 1)] == [
        (each.deal_count, each.left_out_count) for each in group.forecasts[0].tallies
    ]
    about = {"reason": UNKNOWN, "period": Q4, "from_currency": "USD", "to_currency": "EUR"}
    said = pb.ForecastError(
        **about, date="2026-10-01", amount=dollars(2_000), resource="quotas/all_2026-Q4"
    )
    deal = pb.ForecastError(**about, date="2026-10-05", amount=dollars(1_000), deal_count=1)
    assert [said, deal] == list(answer.errors)

    rate = {"from_currency": "USD", "to_currency": "EUR", "rate": "0.5"}
    await currencies.SetExchangeRate(SetExchangeRateRequest(effective_date="2026-10-01", **rate))
    answer = await forecasts.GetForecast(forecast_of())

    assert not answer.errors
    assert [euros(505), euros(1_000)] == [
        answer.groups[0].forecasts[0].pipeline,
        answer.groups[0].forecasts[0].quota,
    ]


async def test_sums_are_told_in_the_base_currency_unless_another_is_asked_for(
    forecasts, currencies
):
    with pytest.raises(InvalidArgument, match="base"):
        await forecasts.GetForecast(forecast_of(currency=""))
    await currencies.SetBaseCurrency(SetBaseCurrencyRequest(currency="USD"))

    assert "USD" == (await forecasts.GetForecast(forecast_of(currency=""))).currency
    with pytest.raises(InvalidArgument, match="ISO 4217"):
        await forecasts.GetForecast(forecast_of(currency="XTS"))


async def test_a_forecast_as_of_a_moment_is_the_one_that_was_live_then(
    asked, clock, deals, open_deal, forecasts, currencies
):
    chance = random.Random(4)
    acts = acts_of(asked, chance, deals, open_deal, forecasts, currencies)
    requests = [forecast_of(group_by=BY_OWNER), forecast_of(period="2026-10", period_count=3)]
    live = []
    for number in range(40):
        await chance.choice(acts)(number)
        # What is recorded while the clock stands still is recorded a little later, one by one.
        moment = timestamp_of(clock.now() + SECOND)
        live += [(moment, each, await forecasts.GetForecast(each)) for each in requests]
        clock.advance(chance.choice([timedelta(hours=1), DAY]))

    for moment, request, answered in live:
        past = pb.GetForecastRequest(read_time=moment)
        past.MergeFrom(request)
        assert answered == await forecasts.GetForecast(past)


async def test_quotas_and_submissions_are_listed_as_they_are_and_as_they_were(
    clock, forecasts, asked
):
    set_once = await forecasts.SetQuota(quota(euros(1), owner=KIM))
    await forecasts.SetQuota(quota(euros(2), team="teams/north"))
    first = await forecasts.SubmitForecast(submission(euros(3), owner=KIM))
    before = timestamp_of(clock.now() + DAY / 2)
    clock.advance(DAY)
    name = set_once.quota.name
    removed = await forecasts.RemoveQuota(pb.RemoveQuotaRequest(name=name))
    second = await forecasts.SubmitForecast(submission(euros(4), owner=KIM))

    now = await forecasts.ListQuotas(pb.ListQuotasRequest())
    then = await forecasts.ListQuotas(pb.ListQuotasRequest(read_time=before, order_by="owner"))
    said = await forecasts.ListForecastSubmissions(pb.ListForecastSubmissionsRequest())
    said_then = await forecasts.ListForecastSubmissions(
        pb.ListForecastSubmissionsRequest(read_time=before, filter=f'owner = "{KIM}"')
    )

    assert "quotas/owner_kim_2026-Q4" == name
    assert not removed.quota.HasField("amount")
    assert ["quotas/team_north_2026-Q4"] == [each.name for each in now.quotas]
    assert set_once.quota == then.quotas[1]
    assert [second.submission, first.submission] == list(said.submissions)
    assert [first.submission] == list(said_then.submissions)
    assert ["forecastSubmissions/owner_kim_2026-Q4@2", "api_keys/tests"] == [
        second.submission.name,
        second.submission.submitter,
    ]
    for view in (QuotasView(), ForecastSubmissionsView()):
        rebuild = Rebuild(asked.kernel.pool, asked.kernel.log, view, asked.kernel.event_types, {})
        async for _ in rebuild.build():
            pass
        assert (await rebuild.compare()).equal


async def test_another_workspace_sees_nothing_of_it(asked, deals, open_deal, forecasts):
    await some_deals(deals, open_deal)
    await forecasts.SetQuota(quota(euros(1)))
    await forecasts.SubmitForecast(submission(euros(1)))
    other = asked.stub(ForecastsServiceStub, workspace="other")

    answer = await other.GetForecast(forecast_of())

    assert [0, 0] == [len(answer.groups[0].forecasts[0].tallies), len(answer.groups[0].undated)]
    assert not answer.groups[0].forecasts[0].HasField("quota")
    assert not answer.groups[0].forecasts[0].HasField("submission")
    assert not (await other.ListQuotas(pb.ListQuotasRequest())).quotas
    request = pb.ListForecastSubmissionsRequest()
    assert not (await other.ListForecastSubmissions(request)).submissions
    assert not (await other.ListForecastDeals(pb.ListForecastDealsRequest(period=Q4))).deals
    with pytest.raises(NotFound):
        await other.RemoveQuota(pb.RemoveQuotaRequest(name="quotas/all_2026-Q4"))


async def test_the_deals_that_make_a_number_up_are_listed(clock, deals, open_deal, forecasts):
    await some_deals(deals, open_deal)
    before = timestamp_of(clock.now() + DAY / 2)
    clock.advance(DAY)

    async def listed(**said):
        """The ids of all pages."""
        request = pb.ListForecastDealsRequest(**{"period": Q4, "page_size": 1} | said)
        found = []
        while True:
            page = await forecasts.ListForecastDeals(request)
            found += [deal.name.removeprefix("deals/") for deal in page.deals]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    of_lee = {"group_by": BY_OWNER, "group": LEE}
    surest = [FORECAST_CATEGORY_CLOSED, FORECAST_CATEGORY_COMMIT]
    asks = [{}, of_lee, {"categories": surest}, {"owner": KIM}, {"period": ""}, {"period": "2027"}]
    expected = [["a", "b", "c", "d", "e"], ["c", "d", "e"], ["c", "d"], ["a", "b"], ["f"], []]
    assert expected == [await listed(**said) for said in asks]
    await deals.DeleteDeal(DeleteDealRequest(name="deals/c"))
    assert expected == [await listed(**said, read_time=before) for said in asks]
    assert expected == [await listed(**said, read_time=before, time_basis=OCCUR) for said in asks]
    assert ["d"] == await listed(categories=surest)

    page = await forecasts.ListForecastDeals(pb.ListForecastDealsRequest(period=Q4, page_size=1))
    with pytest.raises(InvalidArgument, match="page_token"):
        await listed(period="2026", page_token=page.next_page_token)


async def test_the_deals_of_a_forecast_are_listed_without_their_lines(deals, forecasts, open_deal):
    await open_deal("a", expected_close_time=DUE)
    items = LineItems(currency="EUR", items=[LineItem(display_name="Loom", unit_price="1")])
    change = UpdateDealRequest(name="deals/a", deal=DealDetails(line_items=items))
    await deals.UpdateDeal(change)

    found = await forecasts.ListForecastDeals(pb.ListForecastDealsRequest(period=Q4))

    assert (await deals.ListDeals(ListDealsRequest())).deals == found.deals


async def test_a_pipeline_that_there_is_not_has_no_forecast_and_no_quota(forecasts):
    unknown = {"pipeline": "pipelines/sails"}
    asks = [
        forecasts.SetQuota(quota(euros(1), **unknown)),
        forecasts.SubmitForecast(submission(euros(1), **unknown)),
        forecasts.GetForecast(forecast_of(**unknown)),
        forecasts.ListForecastDeals(pb.ListForecastDealsRequest(period=Q4, **unknown)),
        forecasts.GetForecastAccuracy(
            pb.GetForecastAccuracyRequest(period=Q4, currency="EUR", **unknown)
        ),
    ]

    for ask in asks:
        with pytest.raises(NotFound, match="pipelines/sails"):
            await ask


async def test_what_is_asked_for_has_limits(clock, forecasts):
    most = forecast_of(period="2026-01", period_count=12)
    moments = pb.GetForecastAccuracyRequest(
        period=Q4, currency="EUR", made_at=[timestamp_of(clock.now() - DAY)] * 60
    )

    assert 12 == len((await forecasts.GetForecast(most)).groups[0].forecasts)
    assert 60 == len((await forecasts.GetForecastAccuracy(moments)).made)
    most.period_count += 1
    with pytest.raises(InvalidArgument, match="period_count"):
        await forecasts.GetForecast(most)
    moments.made_at.append(moments.made_at[0])
    with pytest.raises(InvalidArgument, match="made_at"):
        await forecasts.GetForecastAccuracy(moments)
    with pytest.raises(InvalidArgument, match="group"):
        await forecasts.ListForecastDeals(pb.ListForecastDealsRequest(period=Q4, group=KIM))


async def test_a_forecast_is_judged_by_what_came_true(clock, deals, open_deal, forecasts):
    await some_deals(deals, open_deal)
    await forecasts.SubmitForecast(submission(euros(9_000)))
    made_at = timestamp_of(clock.now() + DAY)
    request = pb.GetForecastAccuracyRequest(period=Q4, currency="EUR", made_at=[made_at])
    clock.set(datetime(2026, 11, 20, tzinfo=UTC))
    await deals.WinDeal(WinDealRequest(name="deals/b"))
    so_far = await forecasts.GetForecastAccuracy(request)
    clock.set(datetime(2027, 1, 1, tzinfo=UTC))
    await deals.WinDeal(WinDealRequest(name="deals/c"))

    answer = await forecasts.GetForecastAccuracy(request)
    weekly = await forecasts.GetForecastAccuracy(
        pb.GetForecastAccuracyRequest(period=Q4, currency="EUR")
    )

    assert [False, euros(10_000), ""] == [
        so_far.is_over,
        so_far.actual,
        so_far.made[0].expected_error,
    ]
    # What is won after the period is none of its.
    assert [True, euros(10_000)] == [answer.is_over, answer.actual]
    [made] = answer.made
    # 80.00 and 20 % of 10.00, 50 % of 20.00, 80 % of 40.00; 80.00 and 40.00; what was said.
    assert [euros(12_400), "0.2400"] == [made.expected, made.expected_error]
    assert [euros(12_000), "0.2000"] == [made.commit, made.commit_error]
    assert [euros(9_000), "0.1000"] == [made.submitted, made.submitted_error]
    assert 14 == len(weekly.made)
    assert [euros(0), euros(12_400)] == [weekly.made[0].expected, weekly.made[1].expected]
    # A day before the end 40.00 were still promised.
    assert "0.4000" == weekly.made[-1].commit_error
    for odd in (timestamp_of(clock.now() + DAY), Timestamp(seconds=-(2**60))):
        asked = pb.GetForecastAccuracyRequest(period=Q4, made_at=[made_at, odd])
        with pytest.raises(InvalidArgument, match="made_at"):
            await forecasts.GetForecastAccuracy(asked)
