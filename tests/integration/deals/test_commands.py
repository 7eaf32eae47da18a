"""What a command answers is what a read answers from then on, once and in its own workspace."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    DealDetails,
    DeleteDealRequest,
    GetDealBoardRequest,
    GetDealRequest,
    ListDealsRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    UndeleteDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
)
from services.kernel.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from services.kernel.log.recorded import timestamp_of
from tests.deals_world import STAGES, WON_STAGE


@pytest.fixture
def get(deals):
    async def get(name):
        return (await deals.GetDeal(GetDealRequest(name=name))).deal

    return get


async def test_an_opened_deal_is_read_at_once_as_it_was_answered(deals, get):
    request = OpenDealRequest(
        deal_id="looms",
        display_name="Looms",
        contact="contacts/ada",
        amount=Money(amount_minor=120_000, currency="EUR"),
        stage=STAGES[1],
        expected_close_time=Timestamp(seconds=86_400),
        custom_fields={"source": "fair"},
    )

    deal = (await deals.OpenDeal(request)).deal

    assert await get("deals/looms") == deal
    assert ("deals/looms", STAGES[1], DEAL_STATE_OPEN, '"1"') == (
        deal.name,
        deal.stage,
        deal.state,
        deal.etag,
    )
    assert (request.amount, request.expected_close_time) == (deal.amount, deal.expected_close_time)
    assert not deal.HasField("close_time")


async def test_what_was_not_given_stays_unset(deals, get):
    deal = (await deals.OpenDeal(OpenDealRequest(display_name="Looms"))).deal

    assert await get(deal.name) == deal
    assert not any(deal.HasField(name) for name in ("amount", "expected_close_time", "close_time"))


async def test_every_change_is_read_as_it_was_answered(deals, open_deal, get):
    opened = await open_deal("looms")
    moved = (
        await deals.MoveDealStage(MoveDealStageRequest(name=opened.name, stage=STAGES[2]))
    ).deal
    assert await get(opened.name) == moved

    won = (await deals.WinDeal(WinDealRequest(name=opened.name))).deal

    assert await get(opened.name) == won
    assert (DEAL_STATE_WON, WON_STAGE, '"3"') == (won.state, won.stage, won.etag)
    assert opened.open_time != won.close_time == won.stage_time
    assert won == (await deals.WinDeal(WinDealRequest(name=opened.name))).deal


async def test_a_lost_deal_says_why(deals, open_deal, get):
    opened = await open_deal("looms")

    lost = (await deals.LoseDeal(LoseDealRequest(name=opened.name, reason="price"))).deal

    assert await get(opened.name) == lost
    assert (DEAL_STATE_LOST, "price") == (lost.state, lost.lost_reason)
    with pytest.raises(FailedPrecondition):
        await deals.WinDeal(WinDealRequest(name=opened.name))


async def test_a_retried_open_returns_the_first_deal(deals):
    request = OpenDealRequest(display_name="Looms", request_id=str(uuid.uuid4()))

    first, second = [await deals.OpenDeal(request) for _ in range(2)]

    assert first == second


async def test_a_taken_id_and_an_old_etag_are_refused(deals, open_deal):
    opened = await open_deal("looms")
    with pytest.raises(AlreadyExists) as refused:
        await open_deal("looms")
    assert "deals/looms" == refused.value.metadata["existing_name"]

    await deals.MoveDealStage(MoveDealStageRequest(name=opened.name, stage=STAGES[1]))
    with pytest.raises(Aborted):
        await deals.WinDeal(WinDealRequest(name=opened.name, etag=opened.etag))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("amount.currency", {"amount": Money(amount_minor=1)}),
        ("amount.currency", {"amount": Money(amount_minor=1, currency="euro")}),
        ("amount.amount_minor", {"amount": Money(amount_minor=-1, currency="EUR")}),
        ("stage", {"stage": "pipelines/sales/stages/won"}),
        ("contact", {"contact": "ada"}),
        ("display_name", {"display_name": ""}),
    ],
)
async def test_what_makes_no_sense_is_refused_by_its_field(open_deal, field, said):
    with pytest.raises(InvalidArgument) as refused:
        await open_deal("looms", **said)

    assert [field] == [violation.field for violation in refused.value.violations]


async def test_another_workspace_has_deals_of_its_own(asked, open_deal):
    await open_deal("looms")
    other = asked.stub(DealsServiceStub, workspace="other")

    with pytest.raises(NotFound):
        await other.GetDeal(GetDealRequest(name="deals/looms"))
    with pytest.raises(NotFound):
        await other.WinDeal(WinDealRequest(name="deals/looms"))
    await other.OpenDeal(OpenDealRequest(deal_id="looms", display_name="Theirs"))


async def test_of_two_who_move_a_deal_at_once_one_wins_and_one_is_told(deals, open_deal, get):
    opened = await open_deal("looms")
    moves = [
        MoveDealStageRequest(name=opened.name, stage=stage, etag=opened.etag)
        for stage in STAGES[1:]
    ]

    answers = await asyncio.gather(
        *(deals.MoveDealStage(move) for move in moves), return_exceptions=True
    )

    [moved] = [answer.deal for answer in answers if not isinstance(answer, Exception)]
    [refused] = [answer for answer in answers if isinstance(answer, Aborted)]
    assert moved == await get("deals/looms")
    assert {"resource": "deals/looms", "etag": '"2"'} == refused.metadata


async def test_what_is_told_late_is_read_at_once(asked, deals, open_deal, get):
    yesterday = timestamp_of(asked.kernel.clock.now() - timedelta(days=1))
    opened = await open_deal("looms", occur_time=yesterday)

    lost = await deals.LoseDeal(
        LoseDealRequest(name=opened.name, reason="price", note="far", occur_time=yesterday)
    )

    assert await get(opened.name) == lost.deal
    assert yesterday == lost.deal.open_time == lost.deal.close_time
    assert lost.deal.create_time != yesterday


async def test_a_deal_is_shown_with_what_its_stage_makes_of_it(deals, open_deal):
    opened = await open_deal("looms", probability_bp_override=0)
    details = DealDetails(forecast_category_override=FORECAST_CATEGORY_OMITTED)
    both = FieldMask(paths=["probability_bp_override", "forecast_category_override"])

    omitted = await deals.UpdateDeal(
        UpdateDealRequest(name=opened.name, deal=details, update_mask=both)
    )
    won = await deals.WinDeal(WinDealRequest(name=opened.name))

    shown = [
        (deal.probability_bp, deal.forecast_category) for deal in (opened, omitted.deal, won.deal)
    ]
    assert [
        (0, FORECAST_CATEGORY_PIPELINE),
        (2_000, FORECAST_CATEGORY_OMITTED),
        (10_000, FORECAST_CATEGORY_CLOSED),
    ] == shown


async def test_a_deleted_deal_is_in_no_list_until_it_is_undeleted(deals, open_deal, get):
    opened = await open_deal("looms")

    deleted = (await deals.DeleteDeal(DeleteDealRequest(name=opened.name))).deal

    async def listed(**options):
        return list((await deals.ListDeals(ListDealsRequest(**options))).deals)

    assert ([], [deleted]) == (await listed(), await listed(show_deleted=True))
    assert deleted.HasField("delete_time")
    board = await deals.GetDealBoard(GetDealBoardRequest())
    assert 0 == sum(stage.deal_count for stage in board.stages)
    undeleted = (await deals.UndeleteDeal(UndeleteDealRequest(name=opened.name))).deal
    assert [undeleted] == await listed()
    assert undeleted == await get(opened.name)


async def test_a_board_of_a_pipeline_that_there_is_not_is_refused(deals):
    with pytest.raises(NotFound):
        await deals.GetDealBoard(GetDealBoardRequest(pipeline="pipelines/none"))
