"""Products and orders follow from the set of events: no order or batching of them can be seen."""

import random

import pytest

from tests.commerce_world import (
    DenseSales,
    Sales,
    another_order,
    apply,
    batches,
    connected,
    create,
    tables,
)

SEEDS = range(3)
WORKSPACES = 15
EVENTS = 30


def crowd(seed):
    """Many dense histories, each in a workspace of its own."""
    rng = random.Random(seed)
    found = [DenseSales(rng, f"w{n}").some(rng.randint(1, EVENTS)) for n in range(WORKSPACES)]
    return rng, [event for history in found for event in history]


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_order_in_any_batches_gives_the_same_rows(database, seed):
    rng, events = crowd(seed)
    async with connected(database) as connection:
        await create(connection, "whole")
        await apply(connection, events, "whole")
        expected = await tables(connection, "whole")
        assert expected["orders"]
        assert expected["products"]
        for number, largest in enumerate((1_000, 40, 7, 1)):
            schema = f"g{number}"
            await create(connection, schema)
            for batch in batches(rng, another_order(rng, events), largest):
                await apply(connection, batch, schema)

            assert expected == await tables(connection, schema)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_retracted_was_never_there(database, seed):
    rng, events = crowd(seed)
    retracted = {}
    for event in events:
        is_customer_event = event.stream.startswith("message-")
        if is_customer_event and hasattr(event.event, "customer_event"):
            retracted[event.workspace, event.stream] = event
        elif is_customer_event:
            retracted.pop((event.workspace, event.stream), None)
    kept = [
        event
        for event in events
        if not event.stream.startswith("message-")
        or retracted.get((event.workspace, event.stream)) is event
    ]
    async with connected(database) as connection:
        await create(connection, "all_of_them")
        for batch in batches(rng, events, 20):
            await apply(connection, batch, "all_of_them")
        await create(connection, "kept")
        await apply(connection, kept, "kept")

        assert len(kept) < len(events)
        assert await tables(connection, "kept") == await tables(connection, "all_of_them")


async def test_when_everything_is_retracted_nothing_is_left(database):
    sales = Sales()
    line = {"product_id": "p", "quantity": 2, "price": 5, "name": "Lamp"}
    order = {"order_id": "1", "currency": "EUR", "total": 10, "products": [line]}
    recorded = [sales.track("Order Completed", order), sales.track("Order Refunded", order)]
    recorded.append(sales.track("Product Viewed", line))
    async with connected(database) as connection:
        await create(connection)
        await apply(connection, recorded)
        before = await tables(connection, "commerce")
        for event in recorded:
            await apply(connection, [sales.retract(event)])

        assert all(before.values())
        assert not any((await tables(connection, "commerce")).values())


async def test_a_retraction_of_what_is_no_sale_changes_nothing(database):
    sales = Sales()
    async with connected(database) as connection:
        await create(connection)
        await apply(connection, [sales.track("Song Played", {})])
        await apply(connection, [sales.retract(sales.track("Song Played", {}))])

        assert not any((await tables(connection, "commerce")).values())


async def test_a_workspace_does_not_change_another(database):
    async with connected(database) as connection:
        rng = random.Random(7)
        ours = DenseSales(rng, "ours").some(60)
        theirs = DenseSales(rng, "theirs").some(60)
        await create(connection, "alone")
        await apply(connection, ours, "alone")
        await create(connection, "mixed")
        for batch in batches(rng, [*theirs[:30], *ours, *theirs[30:]], 9):
            await apply(connection, batch, "mixed")
        for table in ("mentions", "statements", "refund_sums", "orders", "products"):
            await connection.execute(f"delete from mixed.{table} where workspace = 'theirs'")

        assert await tables(connection, "alone") == await tables(connection, "mixed")
