"""The questions about orders, answered from the view `commerce`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rapport.common.v1.money_pb2 import Money
from rapport.events.v1.orders_pb2 import (
    ListOrdersResponse,
    Order,
    OrderLine,
    OrderRefund,
    OrderState,
)
from rapport.events.v1.products_pb2 import CommerceProblem
from services.events.commerce import Line, Slot, Statement, lines_total
from services.events.money import Amount
from services.events.orders import amount_refunded, shown_minor
from services.events.projections.orders import occurred
from services.events.projections.product_answers import id_in
from services.kernel.errors import NotFound
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from asyncpg import Pool

    from rapport.events.v1.orders_pb2 import ListOrdersRequest

COLLECTION = "orders"
STATEMENTS_SHOWN_MAX = 100

_COLUMNS = """order_id, state, user_id, anonymous_id, checkout_id, refund_count, problem_count,
    order_time, update_time, standing"""

_ONE = f"""
select {_COLUMNS}, lines from commerce.orders where workspace = $1 and order_id = $2
"""

_STATEMENTS = """
select message_id from commerce.statements where workspace = $1 and order_id = $2
order by key desc limit $3
"""

_REFUNDS = f"""
select message_id, key, said from commerce.statements
where workspace = $1 and order_id = $2 and slot = {Slot.REFUND:d}
order by key desc limit $3
"""

_SHOWN: Final = ("total", "subtotal", "revenue", "shipping", "tax", "discount")

_STATES: Final = enum_values(OrderState)

ORDERS = Listing(
    method="ListOrders",
    # No positions: partitions of the log meet in one row, so the walk is along the id.
    table=Table("commerce.orders", key="order_id", positions=None),
    columns=_COLUMNS,
    fields=Fields(
        {
            "order_id": Field("order_id", Kind.TEXT, nullable=False),
            "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
            "user_id": Field("user_id", Kind.TEXT),
            "anonymous_id": Field("anonymous_id", Kind.TEXT),
            "checkout_id": Field("checkout_id", Kind.TEXT),
            "currency": Field("currency", Kind.TEXT),
            "total_minor": Field("total_minor", Kind.INTEGER),
            "refund_count": Field("refund_count", Kind.INTEGER, nullable=False),
            "problem_count": Field("problem_count", Kind.INTEGER, nullable=False),
            "order_time": Field("order_time", Kind.TIMESTAMP, nullable=False),
            "update_time": Field("update_time", Kind.TIMESTAMP, nullable=False),
        }
    ),
)


async def get_order(pool: Pool, workspace: str, name: str) -> Order:
    """Returns an order with its lines, refunds and customer events, else NotFound."""
    order_id = id_in(name, COLLECTION)
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        row = await connection.fetchrow(_ONE, workspace, order_id)
        if row is None:
            raise NotFound(name)
        asked = workspace, order_id, STATEMENTS_SHOWN_MAX
        statements = await connection.fetch(_STATEMENTS, *asked)
        refunds = await connection.fetch(_REFUNDS, *asked) if row["refund_count"] else []
    order = _order_of(row)
    lines = msgspec.json.decode(row["lines"], type=tuple[Line, ...])
    order.lines.extend(map(_line_of, lines))
    order.refunds.extend(map(_refund_of, refunds))
    order.customer_events.extend(_customer_event(each["message_id"]) for each in statements)
    total = lines_total(lines)
    if total is not None:
        order.lines_total.CopyFrom(_money(total))
    return order


async def list_orders(pool: Pool, workspace: str, request: ListOrdersRequest) -> ListOrdersResponse:
    """Returns a page of orders, by id."""
    query = ORDERS.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    return ListOrdersResponse(
        orders=[_order_of(row) for row in page.rows], next_page_token=page.next_page_token
    )


def _order_of(row: Any) -> Order:
    standing = json.loads(row["standing"])
    amounts = {name: Amount.of_text(text) for name, text in standing["amounts"].items()}
    order = Order(
        name=f"{COLLECTION}/{row['order_id']}",
        state=row["state"],
        user_id=row["user_id"] or "",
        anonymous_id=row["anonymous_id"] or "",
        checkout_id=row["checkout_id"] or "",
        affiliation=standing["affiliation"],
        coupon=standing["coupon"],
        refunded=[
            Money(amount_minor=shown_minor(minor), currency=currency)
            for currency, minor in sorted(standing["refunded"].items())
        ],
        refund_count=row["refund_count"],
        order_time=timestamp_of(row["order_time"]),
        update_time=timestamp_of(row["update_time"]),
        problems=[CommerceProblem(**problem) for problem in standing["problems"]],
        problem_count=row["problem_count"],
    )
    for name in _SHOWN:
        if name in amounts:
            getattr(order, name).CopyFrom(_money(amounts[name]))
    return order


def _line_of(line: Line) -> OrderLine:
    return OrderLine(
        product=f"products/{line.product}" if line.product else "",
        display_name=line.name,
        sku=line.sku,
        variant=line.variant,
        quantity=line.quantity,
        price=None if line.price is None else _money(Amount.of_text(line.price)),
        coupon=line.coupon,
    )


def _refund_of(row: Any) -> OrderRefund:
    refund = msgspec.json.decode(row["said"], type=Statement)
    amount = amount_refunded(refund)
    return OrderRefund(
        customer_event=_customer_event(row["message_id"]),
        amount=None if amount is None else _money(amount),
        is_whole=refund.is_whole_refund,
        occur_time=timestamp_of(occurred(row["key"])),
    )


def _money(amount: Amount) -> Money:
    return Money(amount_minor=shown_minor(amount.minor), currency=amount.currency)


def _customer_event(message_id: str) -> str:
    return f"customerEvents/{message_id}"
