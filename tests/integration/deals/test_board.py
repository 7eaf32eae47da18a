"""The board shows every open stage with exact counts and sums, and its newest deals."""

import asyncio
import uuid
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_OPEN,
    GetDealBoardRequest,
    ListDealsRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from services.deals.deal import AMOUNT_MINOR_MAX
from services.deals.projections.deal_board import BOARD_DEALS, BOARD_SUMS
from services.kernel.errors import InvalidArgument, OutOfRange, RapportError
from tests.deals_world import STAGES

MOVES = 200
MANY_DEALS = """
insert into deals.deals (
    workspace, deal_id, state, display_name, contact, contacts, amount_minor, currency, pipeline,
    stage, custom_fields, is_deleted, version, partition, create_position,
    update_position, create_time, update_time
)
select 'acme', 'd' || n, 1 + n % 3, 'd' || n, null, '{}', n, 'EUR', 'pipelines/sales',
    'pipelines/sales/stages/' || (array['qualification', 'proposal', 'negotiation'])[1 + n % 3],
    '{}', false, 1, 0, n, n, 'epoch'::timestamptz + n * interval '1 s', 'epoch'
from generate_series(1, 20000) n
"""
TOO_MANY_DEALS = f"""
insert into deals.deals (
    workspace, deal_id, state, contacts, amount_minor, currency, pipeline, stage, custom_fields,
    is_deleted, version, partition, create_position, update_position, create_time, update_time
)
select 'acme', 'd' || n, 1, '{{}}', {AMOUNT_MINOR_MAX}, 'EUR', 'pipelines/sales',
    'pipelines/sales/stages/qualification', '{{}}', false, 1, 0, n, n, 'epoch', 'epoch'
from generate_series(1, 9300) n
"""


@pytest.fixture
def board(deals):
    async def board(**options):
        response = await deals.GetDealBoard(GetDealBoardRequest(**options))
        return {stage.stage: stage for stage in response.stages}

    return board


def money(amount_minor, currency="EUR"):
    return Money(amount_minor=amount_minor, currency=currency)


async def test_an_empty_board_has_every_stage_in_the_order_of_the_pipeline(board):
    shown = await board()

    assert list(STAGES) == list(shown)
    assert {(0, 0, 0)} == {
        (stage.deal_count, len(stage.amounts), len(stage.deals)) for stage in shown.values()
    }


async def test_a_stage_has_a_count_and_one_sum_per_currency(open_deal, board):
    await open_deal("a", amount=money(1))
    await open_deal("b", amount=money(2))
    await open_deal("c", amount=money(0, "USD"))
    await open_deal("d")
    await open_deal("e", amount=money(9), stage=STAGES[1])

    shown = await board()

    assert [4, 1, 0] == [stage.deal_count for stage in shown.values()]
    assert [money(3), money(0, "USD")] == list(shown[STAGES[0]].amounts)


async def test_sums_of_the_largest_deals_are_exact(open_deal, board):
    for number in range(10):
        await open_deal(f"d{number}", amount=money(AMOUNT_MINOR_MAX - number))

    assert [money(10 * AMOUNT_MINOR_MAX - 45)] == list((await board())[STAGES[0]].amounts)


async def test_round_sums_are_told_like_others(open_deal, board):
    """The driver reads them as 1E+8."""
    amounts = [money(100_000), money(123_450_000, "GBP"), money(10**8, "USD")]
    for amount in amounts:
        await open_deal(amount.currency.lower(), amount=amount)

    first = (await board())[STAGES[0]]
    assert amounts == list(first.amounts)
    assert [money(amount.amount_minor // 5, amount.currency) for amount in amounts] == list(
        first.weighted_amounts
    )


async def test_a_sum_beyond_64_bits_is_refused_by_its_name(asked, board):
    await asked.kernel.pool.execute(TOO_MANY_DEALS)

    with pytest.raises(OutOfRange):
        await board()


@pytest.mark.parametrize("name", ["sales", "deals/sales", "pipelines/", "pipelines/sales/stages/a"])
async def test_a_board_is_that_of_a_pipeline(board, name):
    with pytest.raises(InvalidArgument):
        await board(pipeline=name)


async def test_closed_deals_leave_the_board(deals, open_deal, board):
    await open_deal("a")
    await open_deal("b")
    await deals.WinDeal(WinDealRequest(name="deals/a"))
    await deals.LoseDeal(LoseDealRequest(name="deals/b", reason="price"))

    assert [0, 0, 0] == [stage.deal_count for stage in (await board()).values()]


async def test_the_newest_deals_come_first_and_no_more_than_asked(deals, open_deal, board):
    for name in "abc":
        await open_deal(name)
    await deals.MoveDealStage(MoveDealStageRequest(name="deals/a", stage=STAGES[1]))

    first, second, _ = (await board(deals_per_stage=1)).values()

    assert ["deals/c"] == [deal.name for deal in first.deals]
    assert 2 == first.deal_count
    assert ["deals/a"] == [deal.name for deal in second.deals]


async def test_counts_and_deals_are_of_one_moment(deals, open_deal, board):
    await open_deal("a")

    async def move_on():
        for number in range(MOVES):
            stage = STAGES[1 - number % 2]
            await deals.MoveDealStage(MoveDealStageRequest(name="deals/a", stage=stage))

    moving = asyncio.create_task(move_on())
    while not moving.done():
        stages = (await board()).values()
        assert 1 == sum(stage.deal_count for stage in stages)
        assert [stage.deal_count for stage in stages] == [len(stage.deals) for stage in stages]
    await moving


async def test_another_workspace_has_a_board_of_its_own(asked, open_deal):
    await open_deal("a")
    other = asked.stub(DealsServiceStub, workspace="other")

    stages = (await other.GetDealBoard(GetDealBoardRequest())).stages

    assert [0, 0, 0] == [stage.deal_count for stage in stages]


names = st.sampled_from(["deals/a", "deals/b", "deals/c"])
commands = st.one_of(
    st.builds(
        OpenDealRequest,
        deal_id=st.sampled_from("abc"),
        display_name=st.just("x"),
        amount=st.one_of(
            st.none(), st.builds(money, st.integers(0, 9), st.sampled_from(["EUR", "USD"]))
        ),
    ),
    st.builds(MoveDealStageRequest, name=names, stage=st.sampled_from(STAGES)),
    st.builds(WinDealRequest, name=names),
    st.builds(LoseDealRequest, name=names, reason=st.just("price")),
)


@given(st.lists(commands, max_size=12))
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
async def test_the_board_is_what_the_list_of_open_deals_adds_up_to(asked, commands):
    stub = asked.stub(DealsServiceStub, workspace=uuid.uuid4().hex)
    for command in commands:
        with suppress(RapportError):
            await getattr(stub, type(command).__name__.removesuffix("Request"))(command)

    stages = (await stub.GetDealBoard(GetDealBoardRequest())).stages

    listed = (await stub.ListDeals(ListDealsRequest())).deals
    open_deals = [deal for deal in listed if deal.state == DEAL_STATE_OPEN]
    for stage in stages:
        in_stage = [deal for deal in open_deals if deal.stage == stage.stage]
        sums = {}
        for deal in in_stage:
            if deal.HasField("amount"):
                known = sums.setdefault(deal.amount.currency, 0)
                sums[deal.amount.currency] = known + deal.amount.amount_minor
        assert len(in_stage) == stage.deal_count
        assert sums == {amount.currency: amount.amount_minor for amount in stage.amounts}
        assert in_stage[::-1] == list(stage.deals)


@pytest.mark.parametrize(
    ("sql", "arguments", "index"),
    [
        (BOARD_SUMS, ([2000, 5000, 8000],), "Index Only Scan using open_deals_by_amount"),
        (BOARD_DEALS, (20,), "Index Scan Backward using open_deals_by_stage"),
    ],
)
async def test_a_large_board_is_read_along_its_indexes(asked, sql, arguments, index):
    async with asked.kernel.pool.acquire() as connection:
        await connection.execute(MANY_DEALS)
        await connection.execute("vacuum analyze deals.deals")
        asked = sql.format(table="deals.deals", wanted="true")
        plan = str(await connection.fetch(f"explain {asked}", "acme", STAGES, *arguments))

    assert index in plan
