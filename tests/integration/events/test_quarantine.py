"""What breaks its tracking plan waits in quarantine until somebody mends or discards it."""

import json
import uuid

import pytest

from rapport.events.v1.quarantine_pb2 import (
    GetQuarantinedEventRequest,
    QuarantineFix,
    QuarantineOutcome,
    ResubmitQuarantinedEventsRequest,
)
from rapport.events.v1.service_pb2 import (
    ListCustomerEventsRequest,
    ReceiptOutcome,
)
from rapport.events.v1.suppressions_pb2 import SuppressIdentifierRequest
from rapport.events.v1.suppressions_pb2_grpc import SuppressionsServiceStub
from services.events.door import Verdict
from services.events.schema import EVENT_BYTES_MAX
from services.events.service import quarantine as limits
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.log.log import read_heads
from services.kernel.log.tokens import decode_write_token

RECORDED = QuarantineOutcome.QUARANTINE_OUTCOME_RECORDED
STILL = QuarantineOutcome.QUARANTINE_OUTCOME_STILL_QUARANTINED
DISCARDED = QuarantineOutcome.QUARANTINE_OUTCOME_DISCARDED
NOT_THERE = QuarantineOutcome.QUARANTINE_OUTCOME_NOT_THERE
ALREADY_RECORDED = QuarantineOutcome.QUARANTINE_OUTCOME_ALREADY_RECORDED
ALREADY_DISCARDED = QuarantineOutcome.QUARANTINE_OUTCOME_ALREADY_DISCARDED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
EVERYTHING = 'receive_time > "1970-01-01T00:00:00Z"'


def names(*message_ids):
    return [f"quarantinedEvents/{message_id}" for message_id in message_ids]


def outcomes(response):
    return [receipt.outcome for receipt in response.receipts]


async def test_what_breaks_the_plan_waits_and_counts_for_nobody(
    plan, record, sent, quarantine, got, events
):
    response = await record(sent("a"), sent("b", properties='{"total":1}'))

    assert [QUARANTINED, ACCEPTED] == outcomes(response)
    assert "PLAN_VIOLATED" == response.receipts[0].reason
    assert 1 == response.receipts[0].position
    found = await quarantine.GetQuarantinedEvent(GetQuarantinedEventRequest(name=names("a")[0]))
    kept = found.quarantined_event
    assert ("quarantinedEvents/a", 1) == (kept.name, kept.position)
    assert ["/properties/total"] == [each.path for each in kept.customer_event.violations]
    assert kept.quarantine_time.seconds >= kept.customer_event.receive_time.seconds > 0
    with pytest.raises(NotFound):
        await got("a")
    with pytest.raises(NotFound):
        await quarantine.GetQuarantinedEvent(GetQuarantinedEventRequest(name=names("b")[0]))
    listed = await events.ListCustomerEvents(
        ListCustomerEventsRequest(read_token=response.write_token)
    )
    assert ["b"] == [each.message_id for each in listed.customer_events]


async def test_a_mended_plan_lets_them_in_with_their_own_ids_and_times(
    plan, record, sent, quarantine, resubmit, got, waiting
):
    then = {"seconds": 1_577_836_800, "nanos": 250_000_000}
    await record(sent("a", original_time=then, context='{"ip":"::1"}'), sent("b"))
    found = await quarantine.GetQuarantinedEvent(GetQuarantinedEventRequest(name=names("a")[0]))
    kept = found.quarantined_event.customer_event
    plan.needed = ""

    response = await resubmit("b", "a")

    assert names("b", "a") == [receipt.name for receipt in response.receipts]
    assert [(RECORDED, 3), (RECORDED, 4)] == [(r.outcome, r.position) for r in response.receipts]
    assert 0 == response.left_count
    kept.ClearField("violations")
    assert kept == await got("a")
    assert [] == await waiting()
    assert [DUPLICATE, DUPLICATE] == outcomes(await record(sent("a"), sent("b")))
    # A duplicate points to what became of the first.
    assert 4 == (await record(sent("a"))).receipts[0].position


async def test_what_still_breaks_the_plan_stays_with_its_reason(
    plan, record, sent, resubmit, waiting, asked
):
    await record(sent("a"))
    heads = await read_heads(asked.kernel.pool)

    for verdict in (Verdict.QUARANTINE, Verdict.REFUSE):
        plan.verdict = verdict
        response = await resubmit("a")
        [receipt] = response.receipts
        assert (STILL, "PLAN_VIOLATED", 0) == (receipt.outcome, receipt.reason, receipt.position)
        assert "/properties/total" in receipt.detail
        assert 1 == response.left_count
    assert heads == await read_heads(asked.kernel.pool)
    assert ["a"] == await waiting()


async def test_each_can_be_mended_by_what_it_says_instead(plan, record, sent, resubmit, got):
    await record(sent("a", traits='{"x":1}'), sent("b"), sent("c"))
    fixes = [
        QuarantineFix(
            quarantined_event="quarantinedEvents/a",
            name="Order Paid",
            properties='{"total":1.5}',
            traits="",
            context='{"ip":"::1"}',
        ),
        QuarantineFix(quarantined_event="quarantinedEvents/b", properties="no JSON"),
    ]

    response = await resubmit("a", "b", "c", fixes=fixes)

    assert [RECORDED, STILL, STILL] == outcomes(response)
    assert ["", "JSON_INVALID", "PLAN_VIOLATED"] == [r.reason for r in response.receipts]
    mended = await got("a")
    assert ("Order Paid", '{"total":1.5}', "", '{"ip":"::1"}') == (
        mended.name,
        mended.properties,
        mended.traits,
        mended.context,
    )
    assert "u-1" == mended.user_id
    assert not mended.violations


async def test_all_can_be_mended_by_one_merge_patch(plan, record, sent, resubmit, got):
    await record(
        sent("a", properties='{"x":{"y":1,"z":2},"w":[1,2]}', context='{"n": 1.10}'), sent("b")
    )
    patch = {"properties": {"total": 3, "x": {"y": None}}, "name": "Paid"}

    response = await resubmit("a", "b", merge_patch=json.dumps(patch))

    assert [RECORDED, RECORDED] == outcomes(response)
    first, second = await got("a"), await got("b")
    assert {"x": {"z": 2}, "w": [1, 2], "total": 3} == json.loads(first.properties)
    assert '{"n": 1.10}' == first.context
    assert {"total": 3, "x": {}} == json.loads(second.properties)
    assert ["Paid", "Paid"] == [first.name, second.name]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"names": names("a"), "filter": "type = CUSTOMER_EVENT_TYPE_TRACK"},
        {"names": ["customerEvents/a"]},
        {"filter": "colour = red"},
        {"filter": 'name = "x"', "page_token": "strange"},
        {"names": names("a"), "merge_patch": "[1]"},
        {"names": names("a"), "merge_patch": '{"user_id":"u-2"}'},
        {"names": names("a"), "merge_patch": '{"properties":1}'},
        {"names": names("a"), "fixes": [QuarantineFix(quarantined_event=names("b")[0])]},
        {"names": names("a"), "fixes": [QuarantineFix(quarantined_event=names("a")[0])] * 2},
        {"names": names("a"), "request_id": "again"},
        {"names": names(*range(limits.RESUBMIT_MAX + 1))},
    ],
)
async def test_what_cannot_be_resubmitted_is_refused(plan, record, sent, quarantine, wrong):
    await record(sent("a"))
    plan.needed = ""

    with pytest.raises(InvalidArgument):
        await quarantine.ResubmitQuarantinedEvents(ResubmitQuarantinedEventsRequest(**wrong))

    await quarantine.GetQuarantinedEvent(GetQuarantinedEventRequest(name=names("a")[0]))


async def test_what_is_not_in_quarantine_is_told_by_what_became_of_it(
    plan, record, sent, resubmit, discard
):
    await record(sent("a", properties='{"total":1}'), sent("b"), sent("c"))
    await discard("c")
    plan.needed = ""
    await resubmit("b")

    response = await resubmit("a", "b", "c", "d", "a")
    discarded = await discard("a", "b", "c", "d")

    told = [ALREADY_RECORDED, ALREADY_RECORDED, ALREADY_DISCARDED, NOT_THERE]
    assert told == outcomes(response) == outcomes(discarded)
    assert [0, 0, 0, 0] == [receipt.position for receipt in response.receipts]
    # Who hears what others did can read it: "b" was recorded last, at 5.
    for token in (response.write_token, discarded.write_token):
        assert [5] == [landing.position for landing in decode_write_token(token)]


async def test_what_is_discarded_is_gone_and_stays_known(plan, record, sent, discard, waiting, got):
    await record(sent("a"), sent("b"))

    response = await discard("a")

    assert [DISCARDED] == outcomes(response)
    assert 3 == response.receipts[0].position
    assert ["b"] == await waiting()
    plan.needed = ""
    again = await record(sent("a"))
    assert [(DUPLICATE, 3)] == [(r.outcome, r.position) for r in again.receipts]
    with pytest.raises(NotFound):
        await got("a")


async def test_all_that_match_a_filter_are_resubmitted_a_thousand_at_a_time(
    plan, record, sent, resubmit, waiting, monkeypatch
):
    monkeypatch.setattr(limits, "RESUBMIT_MAX", 4)
    await record(*[sent(f"m-{n:02}") for n in range(10)], sent("other", name="Cart Viewed"))
    asked = {"filter": 'name = "Order Completed"'}
    # The first stay: a later call goes on behind them.
    stuck = await resubmit(**asked)
    assert ([STILL] * 4, 10) == (outcomes(stuck), stuck.left_count)
    plan.needed = ""

    left, token = [], stuck.next_page_token
    while token:
        response = await resubmit(**asked, page_token=token)
        left.append((outcomes(response).count(RECORDED), response.left_count))
        token = response.next_page_token

    assert [(4, 6), (2, 4)] == left
    assert ["m-00", "m-01", "m-02", "m-03", "other"] == sorted(await waiting())


async def test_all_that_match_a_filter_are_discarded(plan, record, sent, discard, waiting):
    await record(*[sent(f"m-{n}") for n in range(5)], sent("x", name="Cart Viewed"))

    response = await discard(filter='name = "Order Completed"')

    assert ([DISCARDED] * 5, 0) == (outcomes(response), response.left_count)
    assert ["x"] == await waiting()


@pytest.mark.parametrize(
    "message_id", ["a/b", "ünï→🎉", "a b%20", "é" * 100, "quarantinedEvents/a"]
)
async def test_a_message_id_may_hold_anything(plan, record, sent, resubmit, discard, message_id):
    await record(sent(message_id), sent(f"x{message_id[1:]}"))
    plan.needed = ""

    assert [RECORDED] == outcomes(await resubmit(message_id))
    assert [DISCARDED] == outcomes(await discard(f"x{message_id[1:]}"))


async def test_who_is_suppressed_meanwhile_stays_in_quarantine(asked, plan, record, sent, resubmit):
    await record(sent("a", traits='{"email":"Ada@X.org"}'), sent("b"))
    suppressions = asked.stub(SuppressionsServiceStub)
    await suppressions.SuppressIdentifier(
        SuppressIdentifierRequest(type="email", value="ada@x.org")
    )
    plan.needed = ""

    response = await resubmit("a", "b")

    assert [(STILL, "SUPPRESSED"), (RECORDED, "")] == [
        (receipt.outcome, receipt.reason) for receipt in response.receipts
    ]


async def test_a_customer_event_of_the_largest_size_comes_out_again(
    plan, record, sent, resubmit, got
):
    """What the platform adds (id, times, violations) takes nothing of the sender's room."""
    bare = sent("", properties=json.dumps({"x": ""}))
    room = EVENT_BYTES_MAX - bare.ByteSize() - 2  # the length of a long text takes two bytes more
    largest = sent("", properties=json.dumps({"x": "y" * room}))
    assert EVENT_BYTES_MAX == largest.ByteSize()
    [receipt] = (await record(largest)).receipts
    assert QUARANTINED == receipt.outcome
    plan.needed = ""

    assert [RECORDED] == outcomes(await resubmit(receipt.message_id))
    assert largest.properties == (await got(receipt.message_id)).properties


async def test_a_request_id_makes_a_retry_harmless_and_no_other_request(
    plan, record, sent, resubmit, discard, asked
):
    await record(*[sent(f"m-{n}") for n in range(6)])
    plan.needed = ""
    again, other = str(uuid.uuid4()), str(uuid.uuid4())

    first = await resubmit("m-0", "m-1", request_id=again)
    dropped = await discard("m-2", request_id=other)
    rest = str(uuid.uuid4())
    filtered = await resubmit(filter=EVERYTHING, request_id=rest)

    heads = await read_heads(asked.kernel.pool)
    assert first == await resubmit("m-0", "m-1", request_id=again)
    assert dropped == await discard("m-2", request_id=other)
    assert filtered == await resubmit(filter=EVERYTHING, request_id=rest)
    assert heads == await read_heads(asked.kernel.pool)
    with pytest.raises(InvalidArgument):
        await resubmit("m-3", request_id=again)
