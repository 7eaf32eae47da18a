"""The view is a pure fold of the log: built anew, and however batched, it has the same rows."""

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import (
    LoseDealRequest,
    MoveDealStageRequest,
    WinDealRequest,
)
from services.deals.projections.deals import DealsView
from services.kernel.log.log import read_partition
from services.kernel.views.rebuild import Rebuild
from tests.deals_world import STAGES


async def test_a_rebuilt_view_equals_the_live_one(asked, deals, open_deal):
    await make_history(deals, open_deal)
    kernel = asked.kernel
    rebuild = Rebuild(kernel.pool, kernel.log, DealsView(), kernel.event_types, {})

    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert 4 == comparison.live["deals"][0]
    assert comparison.equal


async def test_one_batch_or_one_by_one_gives_the_same_rows(asked, deals, open_deal):
    await make_history(deals, open_deal)
    pool, view = asked.kernel.pool, DealsView()
    events = [asked.kernel.event_types.decode(e) for e in await read_partition(pool, 0, after=0)]
    async with pool.acquire() as tx:
        for schema in ("at_once", "one_by_one"):
            await tx.execute(f"create schema {schema}")
            await tx.execute(view.tables(schema))
        await view.apply(tx, "at_once", events)
        for event in events:
            await view.apply(tx, "one_by_one", [event])
        at_once, one_by_one, live = [
            await tx.fetch(f"select * from {schema}.deals order by deal_id")
            for schema in ("at_once", "one_by_one", "deals")
        ]

    assert live == at_once == one_by_one


async def make_history(deals, open_deal):
    for number, deal_id in enumerate("abcd"):
        amount = Money(amount_minor=number, currency="EUR") if number else None
        await open_deal(deal_id, amount=amount, custom_fields={"a": "1", "b": ""})
    await deals.MoveDealStage(MoveDealStageRequest(name="deals/a", stage=STAGES[2]))
    await deals.WinDeal(WinDealRequest(name="deals/a"))
    await deals.LoseDeal(LoseDealRequest(name="deals/b", reason="price"))
