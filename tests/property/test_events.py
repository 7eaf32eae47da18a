"""Whatever is sent in whatever batches, each message id is recorded once, and receipts agree."""

import json
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.service_pb2 import ReceiptOutcome
from services.events.door import Door
from services.events.receipts import Batch, Inlet, stream_of
from services.events.recording import _Recording
from services.events.schema import JSON_DEPTH_MAX, Reason, refusal_of
from services.kernel.clock import FixedClock
from services.kernel.command.work import Outcome, StreamState
from services.kernel.log.log import NO_STREAM, Head, Log, Origin
from services.kernel.log.tokens import decode_write_token

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799

# One of few message ids, now and then without an identifier, hence refused.
pieces = st.tuples(st.sampled_from("abcdefg"), st.booleans() | st.just(True))
batches = st.lists(st.lists(pieces, min_size=1, max_size=12), min_size=1, max_size=8)
# How often each batch is tried in vain, and whether its answer got lost so that it comes again.
fates = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=8, max_size=8)


class InMemoryLog:
    """What a group commit does with a work, without a database: decide, append, respond."""

    def __init__(self, partitions):
        self.log = Log(
            service="events",
            partitions=partitions,
            clock=FixedClock(NOON),
            new_ids=lambda count: [uuid.uuid4() for _ in range(count)],
        )
        self.heads = dict.fromkeys(range(partitions), Head(0, NOON))
        self.first_positions = {}
        self.recorded = []

    def commit(self, work, *, keep=True):
        known = {
            stream: StreamState(1, last_position=self.first_positions[stream])
            for stream in work.probed
            if stream in self.first_positions
        }
        appends = [change.append for change in work.decide(known)]
        assert all(append.expected_version == NO_STREAM for append in appends)
        versions = {("acme", stream): 1 for stream in self.first_positions}
        recorded = self.log._record(appends, self.heads, versions)
        response = work.respond(Outcome(recorded, "", NOON))
        if keep:
            self.recorded += recorded
            for event in recorded:
                self.heads[event.partition] = Head(event.position, event.record_time)
                self.first_positions[event.stream] = event.position
        return response


def sent(message_id, *, is_valid=True):
    return CustomerEvent(
        message_id=message_id,
        type=CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE,
        user_id="u-1" if is_valid else "",
    )


@given(batches, fates, st.integers(1, 3))
def test_each_message_id_is_recorded_once_and_receipts_agree(batches, fates, partitions):
    log = InMemoryLog(partitions)
    kernel = SimpleNamespace(log=log.log)
    answered = []
    for pieces, (failures, is_answer_lost) in zip(batches, fates, strict=False):
        customer_events = [sent(message_id, is_valid=valid) for message_id, valid in pieces]
        for _ in range(1 + is_answer_lost):
            batch = Batch(customer_events, Inlet(Door(), NOON, "c"))
            recording = _Recording(kernel, Origin("acme", "tests", "c", ""), batch)
            for _ in range(failures):
                log.commit(recording.work(), keep=False)
            answered.append((pieces, log.commit(recording.work())))

    places = {event.stream: (event.partition, event.position) for event in log.recorded}
    valid_ids = {message_id for pieces in batches for message_id, valid in pieces if valid}
    assert len(log.recorded) == len(places)
    assert {stream_of(message_id) for message_id in valid_ids} == set(places)
    accepted = []
    for pieces, response in answered:
        assert len(pieces) == len(response.receipts)
        reached = {}
        for (message_id, valid), receipt in zip(pieces, response.receipts, strict=True):
            assert message_id == receipt.message_id
            assert (receipt.outcome != REFUSED) == valid
            if valid:
                place = (receipt.partition, receipt.position)
                assert places[stream_of(message_id)] == place
                reached[place[0]] = max(place[1], reached.get(place[0], 0))
            if receipt.outcome == ACCEPTED:
                accepted.append(message_id)
        landings = decode_write_token(response.write_token)
        assert reached == {landing.partition: landing.position for landing in landings}
    assert sorted(valid_ids) == sorted(accepted)


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["", " ", "\0"])
ids = st.sampled_from(["u-1", "a/b", "é"]) | texts
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
json_objects = st.dictionaries(texts, json_values, max_size=3).map(json.dumps)
json_texts = st.just("") | json_objects | json_values.map(json.dumps) | texts
seconds = st.integers(FIRST_SECOND - 2, LAST_SECOND + 2)
times = st.none() | st.builds(
    lambda seconds, nanos: {"seconds": seconds, "nanos": nanos},
    seconds,
    st.integers(-1, 1_000_000_000),
)
customer_events = st.builds(
    CustomerEvent,
    message_id=texts,
    type=st.integers(-1, 9),
    name=ids,
    user_id=ids,
    anonymous_id=ids,
    previous_id=ids,
    group_id=ids,
    properties=json_texts,
    traits=json_texts,
    context=json_texts,
    original_time=times,
    send_time=times,
    corrected_time=times,
    ends_membership=st.booleans(),
)


@given(customer_events)
def test_every_customer_event_is_either_refused_with_a_reason_or_fit_to_be_stored(customer_event):
    refusal = refusal_of(customer_event)
    if refusal is not None:
        assert refusal.reason in Reason
        assert refusal.detail
        return
    for text in (customer_event.properties, customer_event.traits, customer_event.context):
        parsed = json.loads(text or "{}")
        assert isinstance(parsed, dict)
        assert not any("\0" in each for each in _texts(parsed))
        assert _depth(parsed) <= JSON_DEPTH_MAX
    batch = Batch([customer_event], Inlet(Door(), NOON, "c"))
    [(fact, occur_time, *_)] = batch.fresh.values()
    assert datetime(1970, 1, 1, tzinfo=UTC) <= occur_time <= NOON
    assert type(fact).FromString(fact.SerializeToString()) == fact


def _inner(value):
    """The values directly inside a JSON value, keys included."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _depth(value):
    if not isinstance(value, dict | list):
        return 0
    return 1 + max((_depth(each) for each in _inner(value)), default=0)


def _texts(value):
    if isinstance(value, str):
        return [value]
    return [text for each in _inner(value) for text in _texts(each)]
