"""Only what is in quarantine leaves it, and who comes second hears what happened first."""

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.events_pb2 import CustomerEventRecorded, QuarantinedEventDiscarded
from rapport.events.v1.quarantine_pb2 import QuarantineOutcome
from services.events.leaving import Leaving
from services.events.schema import Reason, Refusal
from services.kernel.command.work import StreamState
from services.kernel.log.log import Origin

ORIGIN = Origin("acme", "tests", "c", "")
FACTS = {
    message_id: CustomerEventRecorded(
        customer_event=CustomerEvent(message_id=message_id, occur_time={"seconds": 7})
    )
    for message_id in "ab"
}
DISCARDED = QuarantinedEventDiscarded(comment="x")


def state(last, version=1):
    return StreamState(version, last_type=f"rapport.events.v1.{last}")


def told(leaving):
    return [
        QuarantineOutcome.Name(receipt.outcome).removeprefix("QUARANTINE_OUTCOME_")
        for receipt in leaving.receipts([])
    ]


def test_what_waits_is_recorded_at_its_own_time_behind_what_was_seen():
    leaving = Leaving(ORIGIN, ["a"], facts=FACTS, versions={"a": 3})

    [change] = leaving.decide({"message-a": state("CustomerEventQuarantined", 3)})

    [new] = change.append.events
    assert ("message-a", 3) == (change.append.stream, change.append.expected_version)
    assert 7 == new.occur_time.timestamp()
    assert ["RECORDED"] == told(leaving)
    assert (1, 0) == (leaving.left_quarantine(), leaving.stayed())


def test_what_was_judged_at_another_version_stays():
    leaving = Leaving(ORIGIN, ["a", "b"], facts=FACTS, versions={"a": 1})
    waits = state("CustomerEventQuarantined", 3)

    assert [] == leaving.decide({"message-a": waits, "message-b": waits})
    assert ["STILL_QUARANTINED"] * 2 == told(leaving)
    assert {"CONFLICT"} == {receipt.reason for receipt in leaving.receipts([])}
    assert (0, 2) == (leaving.left_quarantine(), leaving.stayed())


def test_what_is_refused_stays_with_its_reason():
    refused = {"a": Refusal(Reason.PLAN_VIOLATED, "no total")}
    leaving = Leaving(ORIGIN, ["a"], facts=FACTS, refused=refused, versions={"a": 1})

    assert [] == leaving.decide({"message-a": state("CustomerEventQuarantined")})
    [receipt] = leaving.receipts([])
    assert ("PLAN_VIOLATED", "no total") == (receipt.reason, receipt.detail)


def test_each_is_told_what_it_has_come_to():
    leaving = Leaving(ORIGIN, "fedcbaa", facts=dict.fromkeys("abcdef", DISCARDED))

    changes = leaving.decide(
        {
            "message-a": state("CustomerEventQuarantined"),
            "message-b": state("CustomerEventRecorded", 2),
            "message-c": state("QuarantinedEventDiscarded", 2),
            "message-d": state("CustomerEventRetracted", 2),
            "message-e": state("CustomerEventRecorded"),
        }
    )

    assert ["message-a"] == [change.append.stream for change in changes]
    assert [
        "NOT_THERE",
        "ALREADY_RECORDED",
        "NOT_THERE",
        "ALREADY_DISCARDED",
        "ALREADY_RECORDED",
        "DISCARDED",
    ] == told(leaving)


def test_what_is_decided_again_forgets_what_was_decided_before():
    leaving = Leaving(ORIGIN, ["a"], facts=FACTS, versions={"a": 1})
    leaving.decide({"message-a": state("CustomerEventQuarantined")})

    assert [] == leaving.decide({"message-a": state("CustomerEventRecorded", 2)})
    assert ["ALREADY_RECORDED"] == told(leaving)
