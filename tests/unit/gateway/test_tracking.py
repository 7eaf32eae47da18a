"""What trackers send is read as the protocol says, item by item."""

from __future__ import annotations

import itertools

import orjson
import pytest

from gateway.tracking import EVENTS_MAX, read_batch, read_document, read_single, write_key_of
from rapport.events.v1 import customer_event_pb2 as pb
from rapport.events.v1.service_pb2 import (
    RECEIPT_OUTCOME_ACCEPTED,
    RECEIPT_OUTCOME_DUPLICATE,
    Receipt,
    ReceiptOutcome,
    RecordCustomerEventsResponse,
)
from services.kernel.errors import InvalidArgument

TRACK = {"type": "track", "event": "Order Placed", "userId": "u1", "messageId": "m1"}


def read(*items, **around):
    ids = (f"made-{number}" for number in itertools.count(1))
    return read_batch({"batch": list(items), **around}, new_message_id=lambda: next(ids))


def one(item=None, around=None, **more) -> pb.CustomerEvent:
    batch = read({**TRACK, **(item or {}), **more}, **(around or {}))
    assert not batch.refused, batch.refused
    return batch.request.customer_events[0]


def reason(item) -> str:
    batch = read(item)
    assert not batch.request.customer_events
    return batch.refused[0].reason


def test_every_field_has_its_place():
    sent = one(
        anonymousId="a1",
        previousId="p1",
        groupId="g1",
        properties={"total": 9.5},
        traits={"plan": "gold"},
        context={"ip": "1.2.3.4"},
        timestamp="2026-01-02T03:04:05.678Z",
        sentAt="2026-01-02T03:04:06Z",
    )

    assert (sent.message_id, sent.type, sent.name) == ("m1", 1, "Order Placed")
    assert (sent.user_id, sent.anonymous_id) == ("u1", "a1")
    assert (sent.previous_id, sent.group_id) == ("p1", "g1")
    assert orjson.loads(sent.properties) == {"total": 9.5}
    assert orjson.loads(sent.traits) == {"plan": "gold"}
    assert orjson.loads(sent.context) == {"ip": "1.2.3.4"}
    assert sent.original_time.ToJsonString() == "2026-01-02T03:04:05.678Z"
    assert sent.send_time.ToJsonString() == "2026-01-02T03:04:06Z"
    assert not sent.HasField("receive_time")


def test_null_is_absent():
    names = ("anonymousId", "properties", "traits", "context", "timestamp", "sentAt", "groupId")

    assert one(dict.fromkeys(names)) == one()


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (10**18, "1" + "0" * 18), (1.5, "1.5"), ("x", "x"), (0, "0")]
)
def test_a_number_may_be_an_id(value, text):
    assert one(userId=value).user_id == text


@pytest.mark.parametrize("value", [True, ["x"], {"id": 1}])
def test_nothing_else_is_an_id(value):
    assert reason({**TRACK, "userId": value}) == "IDENTIFIER_INVALID"


def test_the_name_is_the_event_of_a_track_and_the_name_of_a_page():
    assert one(type="page", name="Home").name == "Home"
    assert one(type="screen", name="Home").name == "Home"
    assert one(name="ignored").name == "Order Placed"
    assert reason({**TRACK, "event": 5}) == "NAME_INVALID"


def test_a_category_is_a_property():
    page = one(type="page", category="Docs", properties={"url": "/"})
    told = one(type="page", category="Docs", properties={"category": "Own"})

    assert orjson.loads(page.properties) == {"category": "Docs", "url": "/"}
    assert orjson.loads(told.properties) == {"category": "Own"}


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.123Z", "2026-01-02T03:04:05.123Z"),
        ("2026-01-02T03:04:05.123456+00:00", "2026-01-02T03:04:05.123456Z"),
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456Z"),
        ("2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05Z"),
        ("2026-01-02", "2026-01-02T00:00:00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500Z"),
        (0, "1970-01-01T00:00:00Z"),
        (1767323045, "2026-01-02T03:04:05Z"),
        (1767323045123, "2026-01-02T03:04:05.123Z"),
    ],
)
def test_a_time_is_read_however_it_is_written(written, read_as):
    sent = one(timestamp=written)

    assert sent.HasField("original_time")
    assert sent.original_time.ToJsonString() == read_as


@pytest.mark.parametrize("written", ["yesterday", "", "2026-13-01", [], True, 1e300, "9" * 400])
def test_a_time_that_is_none_is_refused(written):
    assert reason({**TRACK, "timestamp": written}) == "TIME_INVALID"


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_at_the_end_of_the_calendar_harms_nobody(written):
    batch = read({**TRACK, "timestamp": written})

    assert len(batch.request.customer_events) + len(batch.refused) == 1


def test_the_original_timestamp_is_the_sources_own():
    sent = one(timestamp="2026-01-02T00:00:00Z", originalTimestamp="2026-01-01T00:00:00Z")

    assert sent.original_time.ToJsonString() == "2026-01-01T00:00:00Z"


def test_the_batch_says_when_it_was_sent_unless_the_item_does():
    around = {"sentAt": "2026-01-02T00:00:00Z"}

    assert one(around=around).send_time.ToJsonString() == "2026-01-02T00:00:00Z"
    sent = one(around=around, sentAt="2026-01-03T00:00:00Z")
    assert sent.send_time.ToJsonString() == "2026-01-03T00:00:00Z"
    assert not one().HasField("send_time")


def test_context_and_integrations_of_the_batch_hold_for_each_item():
    around = {
        "context": {"app": {"name": "shop", "build": 1}, "ip": "1.2.3.4"},
        "integrations": {"All": False},
    }

    sent = one(around=around, context={"app": {"build": 2}}, integrations={"Mail": True})

    assert orjson.loads(sent.context) == {
        "app": {"name": "shop", "build": 2},
        "ip": "1.2.3.4",
        "integrations": {"All": False, "Mail": True},
    }
    assert around["context"]["app"] == {"name": "shop", "build": 1}


def test_integrations_alone_make_a_context():
    assert orjson.loads(one(integrations={"All": True}).context) == {"integrations": {"All": True}}
    assert one(integrations={}).context == ""


def test_the_channel_is_kept_in_the_context():
    assert orjson.loads(one(channel="web").context) == {"channel": "web"}
    assert orjson.loads(one(channel="web", context={"channel": "app"}).context)["channel"] == "app"


def test_the_traits_of_an_identify_may_be_in_its_context():
    inside = {"traits": {"email": "a@b.c"}}

    assert orjson.loads(one(type="identify", context=inside).traits) == {"email": "a@b.c"}
    assert one(type="track", context=inside).traits == ""
    own = one(type="identify", context=inside, traits={"plan": "gold"})
    assert orjson.loads(own.traits) == {"plan": "gold"}


def test_what_is_no_object_stays_for_the_service_to_refuse():
    sent = one(properties=[1], context="x")

    assert (sent.properties, sent.context) == ("[1]", '"x"')


@pytest.mark.parametrize("field", ["timestamp", "sentAt", "userId", "event", "properties"])
def test_what_is_nested_too_deeply_is_refused_wherever_it_stands(field):
    deep: object = 1
    for _ in range(2000):
        deep = [deep]

    assert reason({**TRACK, field: deep})


def test_contexts_too_deep_to_be_merged_are_refused_alone():
    deep: dict = {}
    for _ in range(2000):
        deep = {"a": deep}

    batch = read({**TRACK, "context": deep}, {**TRACK, "context": 7}, context=deep)

    assert ["JSON_TOO_DEEP"] == [refusal.reason for refusal in batch.refused.values()]
    assert len(batch.request.customer_events) == 1


def test_what_is_nested_too_deeply_is_refused():
    deep: object = 1
    for _ in range(500):
        deep = [deep]

    assert reason({**TRACK, "properties": {"deep": deep}}) == "JSON_TOO_DEEP"


def test_a_missing_message_id_is_made_up():
    batch = read({**TRACK, "messageId": None}, {**TRACK, "messageId": ""}, TRACK)

    assert [sent.message_id for sent in batch.request.customer_events] == ["made-1", "made-2", "m1"]


@pytest.mark.parametrize("item", [5, None, "x", [TRACK]])
def test_an_item_that_is_no_object_is_refused_alone(item):
    batch = read(TRACK, item)

    assert len(batch.request.customer_events) == 1
    assert batch.refused[1].reason == "NO_OBJECT"


@pytest.mark.parametrize("call", ["Track", "purchase", "", None, 5, ["track"]])
def test_an_unknown_call_is_refused(call):
    assert reason({**TRACK, "type": call}) == "TYPE_UNKNOWN"


def test_receipts_come_in_the_order_of_the_items():
    batch = read(5, TRACK, {**TRACK, "userId": []}, {**TRACK, "messageId": "m2"})
    response = RecordCustomerEventsResponse(
        receipts=[
            Receipt(message_id="m1", outcome=RECEIPT_OUTCOME_ACCEPTED, position=7),
            Receipt(message_id="m2", outcome=RECEIPT_OUTCOME_DUPLICATE, position=3, partition=1),
        ],
        write_token="t",
    )

    answer = batch.answer(response)

    assert answer["writeToken"] == "t"
    assert [(it["messageId"], it["outcome"], it.get("position")) for it in answer["receipts"]] == [
        ("", "refused", None),
        ("m1", "accepted", 7),
        ("m1", "refused", None),
        ("m2", "duplicate", 3),
    ]


def test_each_outcome_has_its_word():
    outcomes = [it for it in ReceiptOutcome.values() if it]
    response = RecordCustomerEventsResponse(receipts=[Receipt(outcome=it) for it in outcomes])

    told = read(*[TRACK] * len(outcomes)).answer(response)["receipts"]

    words = ["accepted", "duplicate", "refused", "quarantined", "sampled_out"]
    assert words == [receipt["outcome"] for receipt in told]


def test_more_than_a_batch_takes_is_refused_one_by_one():
    batch = read(*[TRACK] * (EVENTS_MAX + 1))

    assert len(batch.request.customer_events) == EVENTS_MAX
    assert list(batch.refused) == [EVENTS_MAX]


@pytest.mark.parametrize("where", [{"endsMembership": True}, {"context": {"endsMembership": True}}])
def test_a_group_call_may_end_a_membership(where):
    assert one(type="group", groupId="g1", **where).ends_membership
    assert not one(type="track", **where).ends_membership


@pytest.mark.parametrize("told", [None, False])
def test_without_a_word_a_group_call_begins_one(told):
    assert not one(type="group", groupId="g1", endsMembership=told).ends_membership


@pytest.mark.parametrize("told", ["true", 1, "no", []])
def test_what_may_mean_the_opposite_is_refused(told):
    assert reason({**TRACK, "type": "group", "endsMembership": told}) == "ENDS_MEMBERSHIP_INVALID"


@pytest.mark.parametrize("name", ["groupId", "accountId"])
def test_an_account_call_is_about_an_account_and_nobody_else(name):
    sent = one({"userId": None, "type": "account", name: "g1", "traits": {"plan": "gold"}})

    assert (sent.type, sent.group_id, sent.user_id) == (7, "g1", "")
    assert orjson.loads(sent.traits) == {"plan": "gold"}


def test_a_time_that_somebody_corrected_is_kept_beside_the_original():
    both = one(timestamp="2026-01-02T00:00:00Z", originalTimestamp="2026-01-01T00:00:00Z")

    assert both.corrected_time.ToJsonString() == "2026-01-02T00:00:00Z"
    assert not one(timestamp="2026-01-02T00:00:00Z").HasField("corrected_time")


def test_a_batch_whose_time_is_none_is_refused_where_an_item_has_no_own():
    batch = read(TRACK, {**TRACK, "sentAt": "2026-01-02T00:00:00Z"}, sentAt="soon")

    assert [refusal.reason for refusal in batch.refused.values()] == ["TIME_INVALID"]
    assert len(batch.request.customer_events) == 1


def test_one_of_the_calls_comes_alone():
    batch = read_single(
        "page", {"name": "Home", "userId": 5, "type": "track"}, new_message_id=lambda: "made"
    )

    [sent] = batch.request.customer_events
    assert (sent.type, sent.name, sent.user_id, sent.message_id) == (3, "Home", "5", "made")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a": Nan}'])
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(InvalidArgument) as raised:
        read_document(body)

    assert raised.value.violations[0].reason == "invalid_json"


BROKEN = b"""{"context": {"os": "x\\ud83d"}, "batch": [
    {"type": "track", "event": "cut \\ud83d", "userId": "u1", "messageId": "m1",
     "properties": {"\\ude00": "\\ud83d\\ude00", "n": 12345678901234567890123}},
    {"type": "track", "event": "b", "userId": "u1", "messageId": "m2",
     "properties": {"deep": [%s]}},
    {"type": "track", "event": "c", "userId": "u1", "messageId": "m3"}]}"""


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"NaN", b"Infinity", b"9" * 400])
def test_what_one_event_cannot_mean_costs_no_other(number):
    document = read_document(BROKEN % number)
    batch = read_batch(document, new_message_id=lambda: "")

    cut, sound = batch.request.customer_events
    assert (cut.name, sound.name) == ("cut \ufffd", "c")
    assert orjson.loads(cut.properties) == {"\ufffd": "\U0001f600", "n": 1.2345678901234568e22}
    assert orjson.loads(cut.context) == {"os": "x\ufffd"}
    assert batch.refused[1].receipt == {
        "messageId": "m2",
        "outcome": "refused",
        "reason": "NUMBER_INVALID",
        "detail": "properties holds a number that is infinite or none",
    }


@pytest.mark.parametrize("field", ["userId", "event", "timestamp"])
def test_a_number_that_is_none_is_refused_wherever_it_stands(field):
    item = b'{"type": "track", "event": "b", "userId": "u1", "%s": 1e400}' % field.encode()
    batch = read_batch(
        read_document(b'{"batch": [%s, %s]}' % (item, orjson.dumps(TRACK))),
        new_message_id=lambda: "made",
    )

    assert len(batch.request.customer_events) == 1
    assert list(batch.refused) == [0]


def test_of_a_key_that_is_there_twice_the_last_counts():
    assert read_document(b'{"a": 1, "a": {"b": 1, "b": 2}}') == {"a": {"b": 2}}


def test_a_mark_of_the_byte_order_is_no_part_of_the_body():
    assert read_document(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_the_write_key_may_be_in_the_body():
    assert write_key_of({"writeKey": "wk"}) == "wk"
    assert write_key_of({"writeKey": 5}) is None
    assert write_key_of({}) is None
