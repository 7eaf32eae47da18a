"""Who watches is told what comes: what matches, from where the watch began or was left."""

import asyncio
from contextlib import aclosing

import pytest

from rapport.events.v1.quarantine_pb2 import ResubmitQuarantinedEventsRequest
from rapport.events.v1.service_pb2 import (
    ReceiptOutcome,
    RecordCustomerEventsRequest,
    WatchCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events.service.customer_events import TOLD_AT_ONCE_MAX
from services.kernel.errors import InvalidArgument
from services.kernel.log.tokens import encode_write_token

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
WITHIN_S = 10.0


class Watch:
    """A watch that has begun."""

    def __init__(self, stream):
        self._stream = stream
        self.token = ""

    @classmethod
    async def begin(cls, stub, **options):
        watch = cls(aiter(stub.WatchCustomerEvents(WatchCustomerEventsRequest(**options))))
        assert [] == await watch.next()
        return watch

    async def next(self):
        """What the next response tells."""
        async with asyncio.timeout(WITHIN_S):
            response = await anext(self._stream)
        self.token = response.resume_token
        return list(response.customer_events)

    async def until(self, message_id):
        """The message ids told until one comes."""
        seen = []
        while message_id not in seen:
            seen += [each.customer_event.message_id for each in await self.next()]
        return seen

    async def aclose(self):
        await self._stream.aclose()


async def test_what_comes_is_told_whole_with_its_outcome_and_place(events, record, sent, plan):
    await record(sent("before"))
    async with aclosing(await Watch.begin(events)) as watch:
        receipts = (await record(sent("a"), sent("b", properties='{"total": 1}'))).receipts
        told = await watch.next()

    assert [("a", QUARANTINED, 2), ("b", ACCEPTED, 3)] == [
        (each.customer_event.message_id, each.outcome, each.position) for each in told
    ]
    assert [receipt.position for receipt in receipts] == [each.position for each in told]
    assert '{"total": 1}' == told[1].customer_event.properties
    assert ["required"] == [each.rule for each in told[0].customer_event.violations]


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("outcome = RECORDED", ["b", "c", "a", "end"]),
        ("outcome = QUARANTINED OR message_id = end", ["a", "end"]),
        ('name = "Cart*" OR message_id = end', ["b", "end"]),
        ('source = "sources/shop" OR message_id = end', ["c", "end"]),
        ('user_id = "u-9" OR message_id = end', ["end"]),
    ],
)
async def test_only_what_matches_is_told(
    events, record, sent, plan, quarantine, filter_text, expected
):
    async with aclosing(await Watch.begin(events, filter=filter_text)) as watch:
        await record(sent("a"))
        plan.needed = ""
        await record(sent("b", name="Cart Viewed"))
        await record(sent("c"), source="sources/shop")
        await quarantine.ResubmitQuarantinedEvents(
            ResubmitQuarantinedEventsRequest(names=["quarantinedEvents/a"])
        )
        await record(sent("end"))

        assert expected == await watch.until("end")


async def test_a_watch_goes_on_where_it_was_left(events, record, sent):
    async with aclosing(await Watch.begin(events)) as watch:
        await record(sent("a"))
        await watch.until("a")
        token = watch.token
    await record(sent("b"))
    async with aclosing(await Watch.begin(events, resume_token=token)) as watch:
        await record(sent("c"))

        assert ["b", "c"] == await watch.until("c")


async def test_a_large_batch_is_told_in_parts_and_the_first_part_is_not_the_whole(
    events, record, sent
):
    ids = [f"m-{number:04}" for number in range(2 * TOLD_AT_ONCE_MAX + 1)]
    async with aclosing(await Watch.begin(events)) as watch:
        await record(*[sent(message_id) for message_id in ids])
        first = await watch.next()
        token = watch.token
    assert TOLD_AT_ONCE_MAX == len(first)

    async with aclosing(await Watch.begin(events, resume_token=token)) as watch:
        assert ids == await watch.until(ids[-1])


async def test_a_workspace_is_told_its_own_only(asked, events, record, sent):
    others = asked.stub(EventsServiceStub, workspace="globex")
    async with aclosing(await Watch.begin(events)) as watch:
        await others.RecordCustomerEvents(
            RecordCustomerEventsRequest(customer_events=[sent("theirs")])
        )
        await record(sent("mine"))

        assert ["mine"] == await watch.until("mine")


async def test_what_cannot_be_watched_is_refused(events):
    for wrong in (
        {"filter": "colour = red"},
        {"filter": "outcome = REFUSED"},
        {"resume_token": "x"},
        {"resume_token": encode_write_token("contacts", {0: 1})},
    ):
        with pytest.raises(InvalidArgument):
            await Watch.begin(events, **wrong)
