"""The view is a pure fold of the log: built anew, it has the same rows, and lists go on."""

import asyncio

from rapport.events.v1.service_pb2 import ListCustomerEventsRequest
from services.events.__main__ import SERVICE
from services.events.projections.customer_events import VIEW
from services.kernel.log.log import read_partition
from services.kernel.log.pace import BURST_SIZE_MIN
from services.kernel.views.projection import LEASE_S
from services.kernel.views.rebuild import Rebuild


def rebuild_of(kernel):
    """The rebuild of the view, from the log in the same database."""

    async def read(partition, after_position, limit):
        return await read_partition(kernel.pool, partition, after=after_position, limit=limit)

    [consumer] = [each for each in SERVICE.consumers if each.view is VIEW]
    return Rebuild.of_consumer(kernel.pool, kernel.log, consumer, {"events": read})


async def test_a_rebuilt_view_equals_the_live_one(asked, record, events, sent):
    await record(*[sent(f"m-{number}", original_time={"seconds": number}) for number in range(40)])
    token = (await record(sent("é", name="", type=3, user_id="", anonymous_id="a"))).write_token
    await events.ListCustomerEvents(ListCustomerEventsRequest(read_token=token))
    rebuild = rebuild_of(asked.kernel)

    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert 41 == comparison.live["customer_events"][0]
    assert comparison.equal


async def test_a_walk_survives_the_swap_of_the_view(asked, record, events, sent):
    token = (await record(*[sent(f"m-{number}") for number in range(10)])).write_token
    first = await events.ListCustomerEvents(
        ListCustomerEventsRequest(read_token=token, page_size=5)
    )
    rebuild = rebuild_of(asked.kernel)
    async for _ in rebuild.build():
        pass
    await rebuild.swap()

    second = await events.ListCustomerEvents(
        ListCustomerEventsRequest(page_token=first.next_page_token, page_size=5)
    )

    walked = [*first.customer_events, *second.customer_events]
    assert [f"m-{number}" for number in reversed(range(10))] == [e.message_id for e in walked]
    assert not second.next_page_token


async def test_a_read_that_waits_ends_the_pause_of_a_burst(record, events, sent, monkeypatch):
    """Else it would end with the share of its lease that a follower waits at most."""
    monkeypatch.setattr("services.kernel.log.pace.PAUSE_S", 60.0)
    burst = [sent(f"m-{number}") for number in range(BURST_SIZE_MIN)]
    for recorded in (burst, [sent("last")]):
        token = (await record(*recorded)).write_token

        async with asyncio.timeout(0.9 * LEASE_S / 3):
            found = await events.ListCustomerEvents(ListCustomerEventsRequest(read_token=token))

        assert recorded[-1].message_id == found.customer_events[0].message_id
