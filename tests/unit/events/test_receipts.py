"""Every customer event of a batch gets its receipt, in the batch's order."""

from datetime import UTC, datetime

from rapport.events.v1.customer_event_pb2 import (
    CustomerEvent,
    CustomerEventType,
    TimeFlag,
    Violation,
)
from rapport.events.v1.service_pb2 import ReceiptOutcome
from services.events.door import Door, Judgement, Verdict
from services.events.receipts import Batch, Inlet, Place, stream_of

NOON = datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)
ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED


def sent(message_id, **changes) -> CustomerEvent:
    fields = {"type": CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE, "user_id": "u-1"}
    return CustomerEvent(message_id=message_id, **fields | changes)


def judged(*customer_events) -> Batch:
    return Batch(customer_events, Inlet(Door(), NOON, "c-1"))


def told(receipts):
    return [(r.message_id, r.outcome, r.partition, r.position) for r in receipts]


def test_the_first_of_a_message_id_is_accepted_and_the_others_answer_where_it_is():
    batch = judged(sent("a"), sent("b"), sent("a", user_id="other"))

    assert [stream_of("a"), stream_of("b")] == list(batch.fresh)
    assert "u-1" == batch.fresh[stream_of("a")][0].customer_event.user_id
    recorded = {stream_of("a"): Place(0, 7), stream_of("b"): Place(1, 3)}
    assert [("a", ACCEPTED, 0, 7), ("b", ACCEPTED, 1, 3), ("a", DUPLICATE, 0, 7)] == told(
        batch.receipts(recorded=recorded, known={})
    )


def test_what_the_log_knew_is_a_duplicate():
    batch = judged(sent("a"), sent("b"), sent("a"))

    receipts = batch.receipts(
        recorded={stream_of("b"): Place(0, 9)}, known={stream_of("a"): Place(0, 2)}
    )

    assert [("a", DUPLICATE, 0, 2), ("b", ACCEPTED, 0, 9), ("a", DUPLICATE, 0, 2)] == told(receipts)


def test_a_refused_customer_event_stands_in_nobody_s_way():
    batch = judged(sent("a", user_id=""), sent("a"))

    receipts = batch.receipts(recorded={stream_of("a"): Place(0, 1)}, known={})

    assert [("a", REFUSED, 0, 0), ("a", ACCEPTED, 0, 1)] == told(receipts)
    assert "NO_IDENTIFIER" == receipts[0].reason
    assert receipts[0].detail


def test_receipts_can_be_told_again_after_a_commit_that_failed():
    batch = judged(sent("a"), sent("a"))
    batch.receipts(recorded={stream_of("a"): Place(0, 1)}, known={})

    again = batch.receipts(recorded={}, known={stream_of("a"): Place(0, 5)})

    assert [("a", DUPLICATE, 0, 5), ("a", DUPLICATE, 0, 5)] == told(again)


class Strict:
    """A plan that keeps everything in quarantine."""

    def judge(self, _opened):
        violation = Violation(path="/total", rule="type", detail="must be a number")
        return Judgement(Verdict.QUARANTINE, [violation])


def test_what_was_known_and_is_retracted_meanwhile_tells_why_it_is_in_quarantine():
    batch = Batch([sent("a")], Inlet(Door(plan=Strict()), NOON, "c-1"))
    batch.receipts(recorded={}, known={stream_of("a"): Place(0, 1)})

    [again] = batch.receipts(recorded={stream_of("a"): Place(0, 5)}, known={})

    assert (QUARANTINED, "PLAN_VIOLATED") == (again.outcome, again.reason)
    assert "must be a number" in again.detail


def test_a_number_that_is_no_type_is_counted_as_none():
    batch = judged(sent("a", type=2_000_000_000), sent("b", type=-7))

    batch.receipts(recorded={}, known={})

    [(tally, count)] = batch.turned_away().items()
    assert (0, "TYPE_UNKNOWN", 2) == (tally.type, tally.reason, count)


def test_a_fact_is_what_was_sent_with_our_two_times_and_flags():
    source_says = {"original_time": {"seconds": 1_000}, "send_time": {"seconds": 1_060}}
    forged = {"receive_time": {"seconds": 1}, "occur_time": {"seconds": 2}, "time_flags": [1, 2]}
    batch = judged(sent("a", properties='{"b":1}', **source_says, **forged))

    fact, occur_time, *_ = batch.fresh[stream_of("a")]

    stamped = fact.customer_event
    assert NOON == stamped.receive_time.ToDatetime(tzinfo=UTC)
    assert datetime(2026, 1, 1, 11, 59, 0, 123_456, tzinfo=UTC) == occur_time
    assert occur_time == stamped.occur_time.ToDatetime(tzinfo=UTC)
    assert [TimeFlag.TIME_FLAG_CLOCK_SKEWED] == list(stamped.time_flags)
    stamped.ClearField("time_flags")
    stamped.ClearField("receive_time")
    stamped.ClearField("occur_time")
    assert sent("a", properties='{"b":1}', **source_says) == stamped


def test_two_without_a_message_id_are_two():
    batch = judged(sent(""), sent(""))

    assert 2 == len(batch.fresh)
    for stream, (fact, *_) in batch.fresh.items():
        assert stream == stream_of(fact.customer_event.message_id)


def test_the_same_call_again_makes_up_the_same_message_ids():
    assert list(judged(sent(""), sent("")).fresh) == list(judged(sent(""), sent("")).fresh)


def test_what_is_sent_is_left_as_it_was():
    customer_event = sent("")
    judged(customer_event)

    assert sent("") == customer_event
