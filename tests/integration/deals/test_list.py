"""Lists show deals filtered and in order."""

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import ListDealsRequest, LoseDealRequest, WinDealRequest
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from services.deals.projections.deals import DEALS
from tests.deals_world import STAGES

MANY_DEALS = """
insert into deals.deals (
    workspace, deal_id, state, display_name, contact, contacts, amount_minor, currency, pipeline,
    stage, custom_fields, is_deleted, version, partition, create_position,
    update_position, create_time, update_time
)
select 'acme', 'd' || n, 1, 'd' || n, 'contacts/c' || n, '{}', n, 'EUR', 'x', 'x',
    jsonb_build_object('number', 'd' || n), false, 1, 0, n, n,
    'epoch'::timestamptz + n * interval '1 s', 'epoch'::timestamptz + n * interval '1 s'
from generate_series(1, 5000) n
"""


@pytest.fixture
def names(deals):
    async def names(**options):
        response = await deals.ListDeals(ListDealsRequest(**options))
        return [deal.name.removeprefix("deals/") for deal in response.deals]

    return names


@pytest.fixture
async def four(deals, open_deal):
    await open_deal("d", contact="contacts/ada", amount=Money(amount_minor=5, currency="EUR"))
    await open_deal("b", stage=STAGES[1], custom_fields={"source": "fair"})
    await open_deal("c", amount=Money(amount_minor=0, currency="USD"))
    await open_deal("a", contact="contacts/ada")
    await deals.WinDeal(WinDealRequest(name="deals/a"))
    await deals.LoseDeal(LoseDealRequest(name="deals/c", reason="price too high"))


async def test_deals_come_in_the_order_of_their_creation(four, names):
    assert ["d", "b", "c", "a"] == await names()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ('contact = "contacts/ada"', ["d", "a"]),
        ('contact = "contacts/ada" AND state = OPEN', ["d"]),
        ("state = DEAL_STATE_WON", ["a"]),
        ("amount_minor >= 0", ["d", "c"]),
        ("currency = EUR", ["d"]),
        ("NOT amount_minor:*", ["b", "a"]),
        (f'stage = "{STAGES[1]}"', ["b"]),
        ('lost_reason = "price*"', ["c"]),
        ("custom_fields.source = fair", ["b"]),
        ('close_time > "2020-01-01T00:00:00Z"', ["c", "a"]),
    ],
)
async def test_a_filter_finds(four, names, wanted, found):
    assert found == await names(filter=wanted)


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        ("display_name", ["a", "b", "c", "d"]),
        ("amount_minor, display_name", ["c", "d", "a", "b"]),
        ("close_time desc, display_name", ["b", "d", "c", "a"]),
    ],
)
async def test_a_list_is_sorted(four, names, order_by, found):
    assert found == await names(order_by=order_by)


async def test_a_walk_shows_each_deal_once(four, deals):
    seen, token = [], ""
    while True:
        page = await deals.ListDeals(ListDealsRequest(page_size=1, page_token=token))
        seen += [deal.name for deal in page.deals]
        token = page.next_page_token
        if not token:
            break

    assert ["deals/d", "deals/b", "deals/c", "deals/a"] == seen


async def test_another_workspace_sees_nothing(four, asked):
    other = asked.stub(DealsServiceStub, workspace="other")

    assert [] == list((await other.ListDeals(ListDealsRequest())).deals)


@pytest.mark.parametrize(
    ("options", "index"),
    [
        ({}, "deals_by_create_time"),
        ({"filter": "contact = contacts/c7"}, "deals_by_contact"),
        ({"filter": "custom_fields.number = d7"}, "deals_by_custom_fields"),
    ],
)
async def test_a_large_list_is_read_along_an_index(asked, options, index):
    async with asked.kernel.pool.acquire() as connection:
        await connection.execute(MANY_DEALS)
        await connection.execute("analyze deals.deals")
        query = DEALS.query(workspace="acme", positions=(9_999,), page_size=10, **options)
        plan = str(await connection.fetch(f"explain {query.sql}", *query.args))

    assert index in plan
