"""Forecasts for tests: deals, quotas and words of people, and what may change them."""

from datetime import UTC, datetime

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import forecasts_pb2 as pb
from rapport.deals.v1.currencies_pb2 import SetExchangeRateRequest
from rapport.deals.v1.pipelines_pb2 import ChangeStageRequest
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub
from rapport.deals.v1.service_pb2 import (
    DealDetails,
    DeleteDealRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_COMMIT,
    FORECAST_CATEGORY_OMITTED,
    STAGE_KIND_OPEN,
    StageSettings,
)
from services.kernel.log.recorded import timestamp_of
from tests.deals_world import NEGOTIATION, PROPOSAL, QUALIFICATION

DUE = timestamp_of(datetime(2026, 11, 15, tzinfo=UTC))
Q4 = "2026-Q4"
KIM, LEE = "members/kim", "members/lee"


def euros(amount_minor):
    return Money(amount_minor=amount_minor, currency="EUR")


def dollars(amount_minor):
    return Money(amount_minor=amount_minor, currency="USD")


def forecast_of(**said):
    return pb.GetForecastRequest(**{"period": Q4, "currency": "EUR"} | said)


def quota(amount, **about):
    return pb.SetQuotaRequest(**{"period": Q4, "amount": amount} | about)


def submission(amount, **about):
    call = pb.ForecastCall(commit=amount)
    return pb.SubmitForecastRequest(**{"period": Q4, "call": call} | about)


async def some_deals(deals, open_deal):
    """Two of Kim's and three of Lee's, one of them won and one without a date."""
    kim, lee = {"owner": KIM}, {"owner": LEE}
    await open_deal("a", amount=euros(1_000), stage=QUALIFICATION, expected_close_time=DUE, **kim)
    await open_deal("b", amount=euros(2_000), stage=PROPOSAL, expected_close_time=DUE, **kim)
    await open_deal("c", amount=euros(4_000), stage=NEGOTIATION, expected_close_time=DUE, **lee)
    await open_deal("d", amount=euros(8_000), **lee)
    await open_deal("e", amount=euros(16_000), expected_close_time=DUE, **lee)
    await deals.WinDeal(WinDealRequest(name="deals/d"))
    await deals.UpdateDeal(
        UpdateDealRequest(
            name="deals/e",
            deal=DealDetails(forecast_category_override=FORECAST_CATEGORY_OMITTED),
            update_mask={"paths": ["forecast_category_override"]},
        )
    )
    await open_deal("f", amount=euros(32_000), **lee)


def acts_of(asked, chance, deals, open_deal, forecasts, currencies):
    """What may change a forecast; what is refused changes nothing."""
    pipelines = asked.stub(PipelinesServiceStub)
    opened = []

    async def open_one(number):
        deal = await open_deal(
            f"d{number}",
            amount=chance.choice([euros(number * 100), dollars(number * 100)]),
            owner=chance.choice([KIM, LEE]),
            stage=chance.choice([QUALIFICATION, PROPOSAL, NEGOTIATION]),
            expected_close_time=chance.choice([None, DUE]),
        )
        opened.append(deal.name)

    async def end_one(_):
        if opened:
            name = opened.pop(chance.randrange(len(opened)))
            await chance.choice(
                [
                    lambda: deals.WinDeal(WinDealRequest(name=name)),
                    lambda: deals.LoseDeal(LoseDealRequest(name=name, reason="price")),
                    lambda: deals.DeleteDeal(DeleteDealRequest(name=name)),
                ]
            )()

    async def move_one(_):
        if opened:
            request = MoveDealStageRequest(name=chance.choice(opened), stage=NEGOTIATION)
            await deals.MoveDealStage(request)

    async def change_stage(number):
        settings = StageSettings(
            display_name="Proposal",
            kind=STAGE_KIND_OPEN,
            probability_bp=number * 100,
            forecast_category=chance.choice([FORECAST_CATEGORY_COMMIT, FORECAST_CATEGORY_OMITTED]),
        )
        await pipelines.ChangeStage(ChangeStageRequest(name=PROPOSAL, settings=settings))

    async def set_rate(number):
        rate = SetExchangeRateRequest(
            from_currency="USD",
            to_currency="EUR",
            effective_date="2026-10-05",
            rate=f"0.{number + 1}",
        )
        await currencies.SetExchangeRate(rate)

    async def say(number):
        await forecasts.SetQuota(quota(euros(number), owner=chance.choice([KIM, LEE])))
        await forecasts.SubmitForecast(submission(dollars(number), owner=KIM))

    return [open_one, open_one, open_one, end_one, move_one, change_stage, set_rate, say]
