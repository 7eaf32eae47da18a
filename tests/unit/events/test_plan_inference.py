"""What is always so becomes a rule; what was seen too seldom, or is too much, stays open."""

import json

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import ViolationPolicy
from services.events.plan_inference import (
    ENUM_CHARACTERS_MAX,
    ENUM_EVIDENCE_MIN,
    ENUM_VALUES_MAX,
    FORMAT_EVIDENCE_MIN,
    NAMES_MAX,
    Inference,
    Room,
)
from services.events.plans import CONTENT_BYTES_MAX, RULES_MAX, invalidities
from services.events.schema import Opened

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
IDENTIFY = CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY


def event(properties=None, *, name="Order", type_=TRACK, traits=None):
    return Opened(CustomerEvent(type=type_, name=name), properties or {}, traits or {}, {})


def content_of(*seen):
    inference = Inference()
    for opened in seen:
        inference.add(opened)
    content, left_out = inference.content()
    assert [] == invalidities(content)
    return content, left_out


def schema_of(*several):
    content, _ = content_of(*[event(properties) for properties in several])
    return json.loads(content.rules[0].schema)["properties"].get("properties", {})


def test_types_are_those_that_were_seen():
    schema = schema_of({"a": 1, "b": 1, "c": None}, {"a": 1.5, "b": True, "c": "x"}, {"a": 2})

    assert {
        "a": {"type": "number"},
        "b": {"type": ["boolean", "integer"]},
        "c": {"type": ["null", "string"]},
    } == schema["properties"]


def test_what_was_always_there_is_required():
    schema = schema_of({"sku": "a", "price": 1}, {"sku": "b"})

    assert ["sku"] == schema["required"]


def test_objects_and_lists_are_looked_into():
    schema = schema_of({"items": [{"n": 1, "m": 1}, {"n": 2}], "card": {"last": "4"}})

    assert {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}},
            "required": ["n"],
        },
    } == schema["properties"]["items"]
    assert ["last"] == schema["properties"]["card"]["required"]


def test_few_values_that_came_often_are_all_there_are():
    colours = [f"c{n}" for n in range(ENUM_VALUES_MAX)] * ENUM_EVIDENCE_MIN

    assert (
        sorted(set(colours)) == schema_of(*[{"a": c} for c in colours])["properties"]["a"]["enum"]
    )
    assert "enum" not in schema_of(*[{"a": c} for c in colours[:-1]])["properties"]["a"]
    more = [*colours, *["one more"] * ENUM_EVIDENCE_MIN]
    assert "enum" not in schema_of(*[{"a": c} for c in more])["properties"]["a"]
    long = ["x" * (ENUM_CHARACTERS_MAX + 1)] * ENUM_EVIDENCE_MIN
    assert "enum" not in schema_of(*[{"a": c} for c in long])["properties"]["a"]


def test_a_form_that_all_texts_have_is_told():
    mails = [{"a": f"{n}@example.com"} for n in range(FORMAT_EVIDENCE_MIN)]
    times = [{"a": f"2026-01-0{n}T00:00:00Z"} for n in range(1, FORMAT_EVIDENCE_MIN + 1)]

    assert {"type": "string", "format": "email"} == schema_of(*mails)["properties"]["a"]
    assert {"type": "string", "format": "date-time"} == schema_of(*times)["properties"]["a"]
    assert {"type": "string"} == schema_of(*mails[:-1])["properties"]["a"]
    assert {"type": "string"} == schema_of(*mails, {"a": "nobody"})["properties"]["a"]


def test_an_object_with_very_many_names_is_a_map():
    within = schema_of({"map": {f"k{n}": 1 for n in range(NAMES_MAX)}})
    beyond = schema_of({"map": {f"k{n}": 1 for n in range(NAMES_MAX + 1)}})

    assert NAMES_MAX == len(within["properties"]["map"]["properties"])
    assert {"type": "object"} == beyond["properties"]["map"]


def test_track_calls_have_a_rule_per_name_and_other_types_one():
    content, _ = content_of(
        event(name="A"),
        event(name="B"),
        event(name="Home", type_=PAGE),
        event(name="Pricing", type_=PAGE),
        event(name="", type_=IDENTIFY, traits={"plan": "gold"}),
    )

    assert [(TRACK, "A"), (TRACK, "B"), (IDENTIFY, ""), (PAGE, "")] == [
        (rule.type, rule.event_name) for rule in content.rules
    ]
    assert ViolationPolicy.VIOLATION_POLICY_ALLOW_AND_FLAG == content.unplanned_policy
    assert "plan" in content.rules[2].schema


def test_what_is_too_much_for_a_plan_is_left_out_and_counted():
    content, left_out = content_of(*[event(name=f"E{n}") for n in range(RULES_MAX + 1)])

    assert (RULES_MAX, 1) == (len(content.rules), left_out)
    assert not content.unplanned_policy
    wide = [event({f"{'x' * 90}{n}": n for n in range(100)}, name=f"E{m}") for m in range(50)]
    content, left_out = content_of(*wide)
    assert left_out
    assert (50, True) == (len(content.rules) + left_out, content.ByteSize() <= CONTENT_BYTES_MAX)


def test_a_schema_that_would_be_too_large_asks_less_deep():
    deep = {f"a{n}": {f"b{m}": {"c" * 50: m} for m in range(60)} for n in range(30)}

    content, _ = content_of(event(deep))
    inside = json.loads(content.rules[0].schema)["properties"]["properties"]["properties"]
    assert 30 == len(inside)
    assert {"type": "object"} == inside["a0"] or "c" * 50 not in content.rules[0].schema


def test_an_inference_keeps_so_many_places_in_memory():
    inference = Inference(room=Room(3))
    inference.add(event({"a": 1, "b": {"c": 1, "d": 2}}))
    content, _ = inference.content()

    schema = json.loads(content.rules[0].schema)["properties"]["properties"]
    assert 0 == inference.room.left
    assert {"a", "b"} == set(schema["properties"])
    assert {"c"} == set(schema["properties"]["b"]["properties"])
