"""Whatever a door says and quarantine comes to, each message id counts once, for ever."""

import uuid
from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType, Violation
from rapport.events.v1.events_pb2 import (
    CustomerEventQuarantined,
    CustomerEventRecorded,
    CustomerEventRetracted,
    QuarantinedEventDiscarded,
)
from rapport.events.v1.quarantine_pb2 import QuarantineOutcome
from rapport.events.v1.service_pb2 import ReceiptOutcome
from services.events.door import Door, Judgement, Verdict
from services.events.leaving import Leaving
from services.events.receipts import Batch, Inlet, stream_of
from services.events.recording import _Recording
from services.events.schema import Reason, Refusal
from services.events.suppressed import hash_of
from services.kernel.clock import FixedClock
from services.kernel.command.work import Outcome, StreamState
from services.kernel.log.log import Append, Head, Log, NewEvent, Origin

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = b"the key of a workspace"
SUPPRESSED = hash_of(KEY, "user_id", "left-alone")
ORIGIN = Origin("acme", "tests", "c", "")
TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
ANSWERS = {
    name: ReceiptOutcome.Value(f"RECEIPT_OUTCOME_{name}")
    for name in ("ACCEPTED", "DUPLICATE", "REFUSED", "QUARANTINED", "SAMPLED_OUT")
}
FATES = {
    value: name.removeprefix("QUARANTINE_OUTCOME_") for name, value in QuarantineOutcome.items()
}

message_ids = st.sampled_from("abcde")
# What each customer event meets at the door.
verdicts = st.sampled_from(
    ["let in", "quarantine", "refuse", "broken", "suppressed", "not allowed"]
)
batches = st.lists(st.tuples(message_ids, verdicts), min_size=1, max_size=8)


class ByName:
    """A plan whose verdict is the name of the customer event."""

    def judge(self, opened):
        verdict = Verdict(opened.event.name)
        violations = [] if verdict is Verdict.LET_IN else [Violation(rule="r", path="/name")]
        return Judgement(verdict, violations)


DOOR = Door(plan=ByName(), has_suppressions=True, allowed_types=frozenset({TRACK}))


def sent(message_id, verdict):
    return CustomerEvent(
        message_id=message_id,
        type=PAGE if verdict == "not allowed" else TRACK,
        name=verdict if verdict in {each.value for each in Verdict} else "let in",
        user_id={"broken": "", "suppressed": "left-alone"}.get(verdict, "u-1"),
    )


class Workspace(RuleBasedStateMachine):
    """A log without a database, and beside it the little that must be true of it."""

    def __init__(self):
        super().__init__()
        self.log = Log(
            service="events",
            partitions=2,
            clock=FixedClock(NOON),
            new_ids=lambda count: [uuid.uuid4() for _ in range(count)],
        )
        self.heads = dict.fromkeys(range(2), Head(0, NOON))
        self.streams = {}
        # The model: of each message id what became of it, and how often it was said to be accepted.
        self.known = {}
        self.accepted = []
        self.taken_back = []

    def commit(self, decide, streams):
        """Decides on the streams' ends, and appends; what `decide` returns are changes."""
        changes = decide(
            {stream: self.state(stream) for stream in streams if stream in self.streams}
        )
        appends = [change.append for change in changes]
        versions = {("acme", stream): len(events) for stream, events in self.streams.items()}
        recorded = self.log._record(appends, self.heads, versions)
        for event in recorded:
            self.heads[event.partition] = Head(event.position, event.record_time)
            self.streams.setdefault(event.stream, []).append(event)
        return recorded

    def state(self, stream):
        events = self.streams[stream]
        return StreamState(
            len(events), last_position=events[-1].position, last_type=events[-1].type
        )

    @rule(pieces=batches)
    def send(self, pieces):
        batch = Batch(
            [sent(*piece) for piece in pieces],
            Inlet(DOOR, NOON, "c", suppression_key=KEY),
        )
        batch.refuse({SUPPRESSED}, {})
        recording = _Recording(SimpleNamespace(log=self.log), ORIGIN, batch)
        work = recording.work()
        recorded = self.commit(work.decide, work.probed)
        response = work.respond(Outcome(recorded, "", NOON))
        for (message_id, verdict), receipt in zip(pieces, response.receipts, strict=True):
            expected = self.expected(message_id, verdict)
            assert receipt.outcome == ANSWERS[expected]
            is_there = expected in {"ACCEPTED", "DUPLICATE", "QUARANTINED"}
            assert bool(receipt.position) == is_there
            assert bool(receipt.reason) == (expected in {"REFUSED", "QUARANTINED"})
            if is_there:
                last = self.streams[stream_of(message_id)][-1]
                assert (last.partition, last.position) == (receipt.partition, receipt.position)

    def expected(self, message_id, verdict):
        """What the model says of one customer event, and remembers."""
        if verdict not in {"let in", "quarantine"}:
            return "REFUSED"
        if message_id in self.known:
            return "DUPLICATE"
        if verdict == "quarantine":
            self.known[message_id] = "quarantined"
            return "QUARANTINED"
        self.known[message_id] = "recorded"
        self.accepted.append(message_id)
        return "ACCEPTED"

    @rule(asked=st.lists(message_ids, min_size=1, max_size=6), mended=st.sets(message_ids))
    def resubmit(self, asked, mended):
        waiting = {each: self.streams[stream_of(each)] for each in asked if self.is_waiting(each)}
        leaving = Leaving(
            ORIGIN,
            asked,
            facts={
                each: CustomerEventRecorded(customer_event=events[-1].event.customer_event)
                for each, events in waiting.items()
            },
            refused={each: Refusal(Reason.PLAN_VIOLATED, "x") for each in set(waiting) - mended},
            versions={each: len(events) for each, events in waiting.items()},
        )
        self.leave(leaving, {"RECORDED": "recorded"}, lambda each: each in mended)

    @rule(asked=st.lists(message_ids, min_size=1, max_size=6))
    def discard(self, asked):
        fact = QuarantinedEventDiscarded(comment="x")
        leaving = Leaving(ORIGIN, asked, facts=dict.fromkeys(asked, fact))
        self.leave(leaving, {"DISCARDED": "discarded"}, lambda _: True)

    def leave(self, leaving, fate, leaves):
        [(told, becomes)] = fate.items()
        recorded = self.commit(leaving.decide, leaving.streams)
        for message_id, receipt in zip(
            leaving.message_ids, leaving.receipts(recorded), strict=True
        ):
            if self.is_waiting(message_id):
                expected = told if leaves(message_id) else "STILL_QUARANTINED"
                if expected == told:
                    self.known[message_id] = becomes
                    self.accepted += [message_id] if becomes == "recorded" else []
            else:
                before = self.known.get(message_id)
                expected = f"ALREADY_{before.upper()}" if before else "NOT_THERE"
            assert FATES[receipt.outcome] == expected
            assert bool(receipt.position) == (expected == told)

    def is_waiting(self, message_id):
        return self.known.get(message_id) == "quarantined"

    @rule(message_id=message_ids)
    def retract(self, message_id):
        """An import is undone: whatever came with it is as if it had never been sent."""
        if self.known.get(message_id) != "recorded":
            return
        fact = CustomerEventRetracted(message_id=message_id)
        append = Append(ORIGIN, stream_of(message_id), [NewEvent(fact)])
        self.commit(lambda _: [SimpleNamespace(append=append)], [])
        del self.known[message_id]
        self.taken_back.append(message_id)

    @invariant()
    def each_message_id_counts_once(self):
        counts = {message_id for message_id, fate in self.known.items() if fate == "recorded"}
        in_log = {
            event.event.customer_event.message_id
            for events in self.streams.values()
            for event in events[-1:]
            if isinstance(event.event, CustomerEventRecorded)
        }
        assert counts == in_log
        assert sorted(self.accepted) == sorted([*counts, *self.taken_back])

    @invariant()
    def a_stream_is_a_life(self):
        followers = {
            None: {CustomerEventRecorded, CustomerEventQuarantined},
            CustomerEventQuarantined: {CustomerEventRecorded, QuarantinedEventDiscarded},
            CustomerEventRecorded: {CustomerEventRetracted},
            CustomerEventRetracted: {CustomerEventRecorded, CustomerEventQuarantined},
            QuarantinedEventDiscarded: set(),
        }
        for events in self.streams.values():
            kinds = [None, *(type(event.event) for event in events)]
            assert all(after in followers[before] for before, after in pairwise(kinds))


TestWorkspace = Workspace.TestCase
