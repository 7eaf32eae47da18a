"""A tracking plan says of a customer event what is wrong with it, and what follows from that."""

import json
import time

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import TrackingPlanContent, TrackingPlanRule, ViolationPolicy
from services.events.door import Verdict
from services.events.plans import (
    CONTENT_BYTES_MAX,
    CONTENT_PARTS_MAX,
    DESCRIPTION_CHARACTERS_MAX,
    DETAIL_CHARACTERS_MAX,
    FAULTS_MAX,
    RULES_MAX,
    VIOLATIONS_MAX,
    compiled_plan,
    instance_of,
    invalidities,
)
from services.events.schema import Opened, count_values

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
IDENTIFY = CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY
FLAG = ViolationPolicy.VIOLATION_POLICY_ALLOW_AND_FLAG
OMIT = ViolationPolicy.VIOLATION_POLICY_OMIT_PROPERTY
QUARANTINE = ViolationPolicy.VIOLATION_POLICY_QUARANTINE
REFUSE = ViolationPolicy.VIOLATION_POLICY_REFUSE

ORDER = {
    "type": "object",
    "properties": {
        "sku": {"type": "string"},
        "price": {"type": "number", "minimum": 0},
        "email": {"type": "string", "format": "email"},
        "items": {"type": "array", "items": {"properties": {"n": {"type": "integer"}}}},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["sku"],
}


def rule(schema=None, *, policy=FLAG, event_name="Order", type_=TRACK, **more):
    inside = {"properties": {"properties": ORDER if schema is None else schema}}
    return TrackingPlanRule(
        type=type_, event_name=event_name, schema=json.dumps(inside), policy=policy, **more
    )


def plan(*rules, **more):
    content = TrackingPlanContent(rules=rules, **more)
    assert [] == invalidities(content)
    return compiled_plan("trackingPlans/shop@1", content)


def order(*, name="Order", type_=TRACK, traits=None, **properties):
    event = CustomerEvent(type=type_, name=name, user_id="u-1")
    return Opened(event, properties, traits or {}, {})


def broken(judgement):
    return [(violation.rule, violation.path) for violation in judgement.violations]


def test_what_is_as_planned_is_let_in_as_it_is():
    opened = order(sku="a", price=3)
    judgement = plan(rule()).judge(opened)

    assert (Verdict.LET_IN, 0) == (judgement.verdict, len(judgement.violations))
    assert not opened.changed


@pytest.mark.parametrize(
    ("properties", "rule_", "path"),
    [
        ({}, "required", "/properties/sku"),
        ({"sku": 1}, "type", "/properties/sku"),
        ({"sku": "a", "price": -1}, "minimum", "/properties/price"),
        ({"sku": "a", "email": "nobody"}, "format", "/properties/email"),
        ({"sku": "a", "items": [{"n": 1}, {"n": "x"}]}, "type", "/properties/items/1/n"),
    ],
)
def test_a_violation_says_which_rule_and_where(properties, rule_, path):
    judgement = plan(rule()).judge(order(**properties))

    assert Verdict.LET_IN is judgement.verdict
    assert [(rule_, path)] == broken(judgement)
    assert "trackingPlans/shop@1" == judgement.violations[0].tracking_plan


def test_a_name_is_escaped_in_a_path():
    schema = {"properties": {"a/b~c": {"type": "string"}}}

    assert [("type", "/properties/a~1b~0c")] == broken(
        plan(rule(schema)).judge(order(**{"a/b~c": 1}))
    )


def test_a_violation_tells_nothing_of_the_value():
    judgement = plan(rule({"properties": {"plan": {"enum": ["gold"]}}})).judge(
        order(plan="s3cret@example.com")
    )

    assert "s3cret" not in judgement.violations[0].detail


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        (FLAG, Verdict.LET_IN),
        (OMIT, Verdict.LET_IN),
        (QUARANTINE, Verdict.QUARANTINE),
        (REFUSE, Verdict.REFUSE),
    ],
)
def test_the_policy_of_a_rule_decides(policy, verdict):
    assert verdict is plan(rule(policy=policy)).judge(order(sku=1)).verdict


def test_what_is_wrong_is_left_out():
    opened = order(sku="a", price="much", items=[{"n": "x", "m": 1}], tags=["a", 1])
    judgement = plan(rule(policy=OMIT)).judge(opened)

    assert {"sku": "a", "items": [{"m": 1}]} == opened.properties
    assert {"properties"} == opened.changed
    assert ["/properties/items/0/n", "/properties/price", "/properties/tags/1"] == [
        violation.path for violation in judgement.violations
    ]


def test_what_cannot_be_mended_by_leaving_out_is_flagged():
    opened = order(sku=1)
    judgement = plan(rule(policy=OMIT)).judge(opened)

    assert Verdict.LET_IN is judgement.verdict
    assert {} == opened.properties
    assert [("required", "/properties/sku"), ("type", "/properties/sku")] == broken(judgement)


def test_what_was_mended_and_then_breaks_a_stricter_rule_stays_whole():
    common = rule({"required": ["price"]}, policy=QUARANTINE, event_name="", type_=0)
    opened = order(sku="a", price="much")
    judgement = plan(rule(policy=OMIT), common=common).judge(opened)

    assert Verdict.QUARANTINE is judgement.verdict
    assert {"sku": "a", "price": "much"} == opened.properties
    assert not opened.changed
    assert ("required", "/properties/price") == broken(judgement)[0]


def test_unplanned_properties_may_have_a_policy_of_their_own():
    schema = {**ORDER, "additionalProperties": False}
    strict = rule(schema, policy=REFUSE, unplanned_property_policy=OMIT)
    opened = order(sku="a", colour="red", size=3)
    judgement = plan(strict).judge(opened)

    assert Verdict.LET_IN is judgement.verdict
    assert {"sku": "a"} == opened.properties
    assert [
        ("additionalProperties", "/properties/colour"),
        ("additionalProperties", "/properties/size"),
    ] == broken(judgement)
    assert Verdict.REFUSE is plan(strict).judge(order(colour="red")).verdict


def test_an_object_that_may_hold_nothing_is_emptied():
    opened = order(a=1, b=2)
    plan(rule({"additionalProperties": False}, policy=OMIT)).judge(opened)

    assert {} == opened.properties


def test_a_name_that_is_not_allowed_is_left_out():
    opened = order(abc=1, x=2)
    judgement = plan(rule({"propertyNames": {"maxLength": 1}}, policy=OMIT)).judge(opened)

    assert {"x": 2} == opened.properties
    assert [("propertyNames", "/properties/abc")] == broken(judgement)


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [(FLAG, Verdict.LET_IN), (QUARANTINE, Verdict.QUARANTINE), (REFUSE, Verdict.REFUSE)],
)
def test_a_track_call_that_no_rule_is_about_is_unplanned(policy, verdict):
    judgement = plan(rule(), unplanned_policy=policy).judge(order(name="Odrer"))

    assert (verdict, [("unplanned", "/name")]) == (judgement.verdict, broken(judgement))


def test_nothing_else_is_unplanned():
    strict = plan(rule(), unplanned_policy=REFUSE)

    assert Verdict.LET_IN is strict.judge(order(name="Home", type_=PAGE)).verdict
    assert Verdict.LET_IN is plan(rule()).judge(order(name="Odrer")).verdict


def test_a_rule_without_a_name_is_about_all_names_without_a_rule_of_their_own():
    strict = plan(
        rule({}, event_name="Order"), rule({"maxProperties": 0}, event_name="", policy=REFUSE)
    )

    assert Verdict.LET_IN is strict.judge(order(sku="a")).verdict
    assert Verdict.REFUSE is strict.judge(order(name="Other", sku="a")).verdict


def test_the_common_rule_is_held_against_everything():
    common = TrackingPlanRule(
        schema=json.dumps({"required": ["user_id"], "properties": {"type": {"enum": ["track"]}}}),
        policy=REFUSE,
    )
    strict = plan(rule(), common=common)
    nobody = order(sku="a")
    nobody.event.user_id = ""

    assert Verdict.LET_IN is strict.judge(order(sku="a")).verdict
    assert [("required", "/user_id")] == broken(strict.judge(nobody))
    assert [("enum", "/type")] == broken(strict.judge(order(type_=PAGE)))


def test_the_strictest_of_several_rules_decides_and_is_told_first():
    common = rule({"required": ["price"]}, policy=QUARANTINE, event_name="", type_=0)
    judgement = plan(rule(policy=FLAG), common=common).judge(order())

    assert Verdict.QUARANTINE is judgement.verdict
    assert [("required", "/properties/price"), ("required", "/properties/sku")] == broken(judgement)


def test_traits_are_judged_like_properties():
    schema = json.dumps({"properties": {"traits": {"properties": {"age": {"type": "integer"}}}}})
    strict = plan(TrackingPlanRule(type=IDENTIFY, schema=schema, policy=OMIT))
    opened = order(type_=IDENTIFY, name="", traits={"age": "old", "plan": "gold"})
    strict.judge(opened)

    assert ({"plan": "gold"}, {"traits"}) == (opened.traits, opened.changed)


def test_very_many_violations_are_told_in_part():
    schema = {"additionalProperties": {"type": "integer"}}
    judgement = plan(rule(schema)).judge(order(**{f"p{n:04}": "x" * 10 for n in range(1000)}))

    assert VIOLATIONS_MAX == len(judgement.violations)
    assert "/properties/p0000" == judgement.violations[0].path
    enum = {"properties": {"a": {"enum": [f"value {n}" for n in range(2000)]}}}
    [violation] = plan(rule(enum)).judge(order(a=1)).violations
    assert len(violation.detail) <= DETAIL_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("policy", "unexpected", "verdict"),
    [
        (FLAG, FLAG, Verdict.LET_IN),
        (FLAG, QUARANTINE, Verdict.QUARANTINE),
        (REFUSE, FLAG, Verdict.REFUSE),
    ],
)
def test_where_very_much_may_be_wrong_it_is_not_all_looked_for(policy, unexpected, verdict):
    items = {"allOf": [{"type": "string"}] * 1_000}
    schema = {"properties": {"l": {"items": items}}}
    hostile = plan(rule(schema, policy=policy, unplanned_property_policy=unexpected))
    started = time.perf_counter()
    judgement = hostile.judge(order(l=[0] * 15_000))

    assert (verdict, [("type", "/properties/l/0")]) == (judgement.verdict, broken(judgement))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(("items", "count"), [(-1, VIOLATIONS_MAX), (0, 1)])
def test_so_much_may_be_wrong_and_is_looked_for(items, count):
    numbers = plan(rule({"properties": {"l": {"items": {"type": "string"}}}}))
    opened = order()
    others = count_values(instance_of(opened))
    # The list itself is a value, too.
    opened.properties["l"] = [0] * (FAULTS_MAX - others + items)

    assert count == len(broken(numbers.judge(opened)))


def test_of_very_much_that_is_wrong_the_property_is_left_out():
    items = {"allOf": [{"type": "string"}] * 1_000}
    opened = order(l=[0] * 1_000, n=1)
    plan(rule({"properties": {"l": {"items": items}}}, policy=OMIT)).judge(opened)

    assert {"n": 1} == opened.properties


def test_what_is_no_plan_is_refused_field_by_field():
    content = TrackingPlanContent(
        rules=[
            TrackingPlanRule(type=TRACK, event_name="A", schema="{}", policy=FLAG),
            TrackingPlanRule(type=TRACK, event_name="A", schema="{}", policy=FLAG),
            TrackingPlanRule(type=TRACK, event_name="B\0", schema="[]"),
            TrackingPlanRule(schema='{"$ref": "https://example.com"}', policy=9),
        ],
        common=TrackingPlanRule(type=TRACK, schema="{}", policy=FLAG),
        unplanned_policy=OMIT,
    )

    assert [
        "content.rules[1]",
        "content.rules[2].event_name",
        "content.rules[2].policy",
        "content.rules[2].schema",
        "content.rules[3].type",
        "content.rules[3].policy",
        "content.rules[3].schema",
        "content.common",
        "content.unplanned_policy",
    ] == [violation.field for violation in invalidities(content)]


def content_of_rules(count, schema="{}"):
    return TrackingPlanContent(
        rules=[
            TrackingPlanRule(type=TRACK, event_name=f"E{n}", schema=schema, policy=FLAG)
            for n in range(count)
        ]
    )


def test_the_number_of_rules_is_kept_at_its_edge():
    assert [] == invalidities(content_of_rules(RULES_MAX))
    assert ["content.rules"] == [v.field for v in invalidities(content_of_rules(RULES_MAX + 1))]


def test_the_size_of_a_content_is_kept_at_its_edge():
    content = content_of_rules(200)
    for each in content.rules:
        each.description = "x" * 1_000
    for each in content.rules:
        left = CONTENT_BYTES_MAX - content.ByteSize()
        each.description += "x" * min(left, DESCRIPTION_CHARACTERS_MAX - 1_000)

    assert CONTENT_BYTES_MAX == content.ByteSize()
    assert [] == invalidities(content)
    content.rules[-1].description += "x"
    assert ["content"] == [violation.field for violation in invalidities(content)]


def test_the_subschemas_of_all_rules_are_counted():
    wide = json.dumps({"$defs": {"a": {"anyOf": [{}] * 97}}, "allOf": [{"$ref": "#/$defs/a"}]})
    within, beyond = CONTENT_PARTS_MAX // 100, CONTENT_PARTS_MAX // 100 + 1

    assert [] == invalidities(content_of_rules(within, wide))
    assert ["content"] == [v.field for v in invalidities(content_of_rules(beyond, wide))]
