"""Partitions of the log meet in one order: who comes second sees what the first one did."""

import asyncio

from services.events.projections import commerce
from services.kernel.testing import eventually
from tests.commerce_world import Sales, apply, connected, create, tables

ORDER = {"order_id": "1", "currency": "EUR", "total": 10, "products": [{"sku": "s", "quantity": 1}]}
REFUND = {"order_id": "1", "currency": "EUR", "total": 4}
WAITING = "select count(*) from pg_locks where not granted"
# What stands where the lock stands, and locks nothing.
NO_LOCK = "select $1::text, $2::text[]"


async def both_at_once(database):
    """Two transactions fold a refund and its order; returns the rows, and those of one after it."""
    sales = Sales()
    completed, refunded = (
        sales.track("Order Completed", ORDER),
        sales.track("Order Refunded", REFUND),
    )
    async with connected(database) as one, connected(database) as other:
        await create(one, "alone")
        await apply(one, [completed, refunded], "alone")
        await create(one)
        transaction = one.transaction()
        await transaction.start()
        await commerce.CommerceView().apply(one, "commerce", [completed])
        second = asyncio.create_task(apply(other, [refunded]))

        async def waits():
            assert await one.fetchval(WAITING)

        await eventually(waits)
        await transaction.commit()
        await second
        return await tables(one, "commerce"), await tables(one, "alone")


async def test_two_partitions_that_fold_one_order_give_what_one_gives(database):
    together, alone = await both_at_once(database)

    assert alone == together


async def test_without_the_lock_the_second_overwrites_what_the_first_said(database, monkeypatch):
    monkeypatch.setattr(commerce, "_LOCK", NO_LOCK)

    together, alone = await both_at_once(database)

    assert alone["statements"] == together["statements"]
    assert alone["orders"] != together["orders"]
