"""Orders are what customer events say of them, whatever came first."""

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path

import pytest

from deploy.demo import online_retail
from deploy.demo.cargo import Source
from rapport.events.v1.orders_pb2 import GetOrderRequest, ListOrdersRequest, OrderState
from rapport.events.v1.orders_pb2_grpc import OrdersServiceStub
from services.events.__main__ import SERVICE
from services.events.projections.commerce import CommerceView
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.log.log import read_partition
from services.kernel.views.rebuild import Rebuild
from tests.commerce_world import Sales, apply, batches, connected, create

RETAIL = "online_retail/online_retail_2010-12_2011-01.csv.gz"
DATA = Path(__file__).parents[3].parent / "shared" / "data"

LINES = [
    {"product_id": "lamp", "name": "Lamp", "quantity": 2, "price": 10},
    {"product_id": "desk", "name": "Desk", "quantity": 1, "price": "80.00"},
]
ORDER = {"order_id": "o/1", "currency": "EUR", "total": 100, "products": LINES}


@pytest.fixture
def orders(asked):
    """The service as the workspace `acme` sees it."""
    return asked.stub(OrdersServiceStub)


@pytest.fixture
def track(record, sent):
    """Records a track call with a message id and returns the write token."""

    async def track(message_id, name, properties, **fields):
        event = sent(message_id, name=name, properties=json.dumps(properties), **fields)
        return (await record(event)).write_token

    return track


async def get(orders, order_id, token):
    request = GetOrderRequest(name=f"orders/{order_id}", read_token=token)
    return (await orders.GetOrder(request)).order


async def test_an_order_is_shown_with_its_lines_refunds_and_customer_events(orders, track):
    refund = {"order_id": "o/1", "currency": "EUR", "total": -20}
    await track("r", "Order Refunded", refund, original_time={"seconds": 200})
    token = await track("c", "Order Completed", ORDER, original_time={"seconds": 100})

    order = await get(orders, "o/1", token)

    assert ("orders/o/1", "u-1") == (order.name, order.user_id)
    assert OrderState.ORDER_STATE_PARTIALLY_REFUNDED == order.state
    assert (10_000, "EUR") == (order.total.amount_minor, order.total.currency)
    assert 10_000 == order.lines_total.amount_minor
    assert not order.HasField("tax")
    assert [("products/lamp", 2, 1_000), ("products/desk", 1, 8_000)] == [
        (line.product, line.quantity, line.price.amount_minor) for line in order.lines
    ]
    assert [2_000] == [money.amount_minor for money in order.refunded]
    (refunded,) = order.refunds
    assert ("customerEvents/r", 2_000) == (refunded.customer_event, refunded.amount.amount_minor)
    assert ["customerEvents/r", "customerEvents/c"] == list(order.customer_events)
    assert (100, 200) == (order.order_time.seconds, order.update_time.seconds)


async def test_what_is_wrong_is_told_with_the_order(orders, track):
    token = await track("c", "Order Completed", ORDER | {"tax": "5 EUR", "currency": "eur"})

    order = await get(orders, "o/1", token)

    (problem,) = order.problems
    assert ("AMOUNT_INVALID", "/tax", 1) == (problem.reason, problem.path, order.problem_count)
    assert problem.detail


async def test_the_same_message_twice_is_one_refund(orders, track):
    refund = {"order_id": "o/1", "currency": "EUR", "total": 20}
    await track("c", "Order Completed", ORDER)
    await track("r", "Order Refunded", refund)
    token = await track("r", "Order Refunded", refund)

    assert 1 == (await get(orders, "o/1", token)).refund_count


async def test_an_order_that_nobody_named_is_not_found(orders, track):
    await track("c", "Order Completed", ORDER)

    with pytest.raises(NotFound):
        await orders.GetOrder(GetOrderRequest(name="orders/other"))
    for name in ("o/1", "orders/", "products/o/1", "orders/\0"):
        with pytest.raises(InvalidArgument):
            await orders.GetOrder(GetOrderRequest(name=name))


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("state = COMPLETED", ["1"]),
        ("state = ORDER_STATE_CANCELLED", ["2"]),
        ("total_minor >= 10000", ["1"]),
        ('currency = "EUR"', ["1"]),
        ('user_id = "u-2"', ["2"]),
        ("refund_count = 1", ["3"]),
        ("problem_count > 0", ["3"]),
        ("order_time > 2020-01-01T00:00:00Z", ["1", "2", "3"]),
    ],
)
async def test_a_filter_asks_the_fields(orders, track, filter_text, expected):
    await track("a", "Order Completed", ORDER | {"order_id": "1"})
    await track("b", "Order Cancelled", {"order_id": 2}, user_id="u-2")
    token = await track("c", "Order Refunded", {"order_id": "3", "total": 1})

    listed = await orders.ListOrders(ListOrdersRequest(read_token=token, filter=filter_text))

    assert [f"orders/{each}" for each in expected] == [each.name for each in listed.orders]
    assert all(not each.lines for each in listed.orders)


async def test_a_workspace_sees_only_its_own(asked, orders, track):
    token = await track("c", "Order Completed", ORDER)
    await get(orders, "o/1", token)
    others = asked.stub(OrdersServiceStub, workspace="globex")

    assert not (await others.ListOrders(ListOrdersRequest(read_token=token))).orders
    with pytest.raises(NotFound):
        await others.GetOrder(GetOrderRequest(name="orders/o/1"))


async def test_a_rebuilt_view_equals_the_live_one(asked, orders, track):
    kernel = asked.kernel
    for number in range(20):
        order = ORDER | {"order_id": str(number % 7)}
        name = ("Order Completed", "Order Refunded", "Order Updated")[number % 3]
        token = await track(f"m-{number}", name, order, original_time={"seconds": 7 * number % 20})
    await get(orders, "0", token)

    async def read(partition, after_position, limit):
        return await read_partition(kernel.pool, partition, after=after_position, limit=limit)

    [consumer] = [each for each in SERVICE.consumers if each.name == CommerceView.name]
    rebuild = Rebuild.of_consumer(kernel.pool, kernel.log, consumer, {"events": read})
    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert 7 == comparison.live["orders"][0]
    assert comparison.equal


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets do not lie beside the repository")
async def test_the_orders_of_a_real_shop_are_what_its_file_says(database, tmp_path):
    """Each invoice of the file, in parts or not: its sum, its lines, what was given back."""
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress((DATA / RETAIL).read_bytes())))
    cargo = online_retail.read(Source(RETAIL, path))
    expected = defaultdict(lambda: [0, 0])
    sales, events = Sales(), []
    for item in cargo.items:
        said = json.loads(item.message.properties)
        expected[said["order_id"]][0] += said["total_minor"]
        expected[said["order_id"]][1] += len(said["products"])
        events.append(sales.track(item.message.name, said, message_id=item.message.message_id))
    async with connected(database) as connection:
        await create(connection)
        for batch in batches(random.Random(1), events, 500):
            await apply(connection, batch)
        rows = await connection.fetch(
            "select order_id, total_minor, standing, lines from commerce.orders"
        )

    assert set(expected) == {row["order_id"] for row in rows}
    for row in rows:
        minor, lines = expected[row["order_id"]]
        standing = json.loads(row["standing"])
        assert [] == standing["problems"]
        if row["order_id"].startswith("C"):
            assert {"GBP": -minor} == standing["refunded"]
        else:
            assert (minor, lines) == (row["total_minor"], len(json.loads(row["lines"])))
