"""A diff says which rules and properties are new, gone or otherwise, and how."""

import json

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import TrackingPlanContent, TrackingPlanRule, ViolationPolicy
from rapport.events.v1.tracking_plans_pb2 import ChangeKind
from services.events.plan_diff import PROPERTY_CHANGES_MAX, diff

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
FLAG = ViolationPolicy.VIOLATION_POLICY_ALLOW_AND_FLAG
REFUSE = ViolationPolicy.VIOLATION_POLICY_REFUSE
ADDED, REMOVED, CHANGED = (
    ChangeKind.CHANGE_KIND_ADDED,
    ChangeKind.CHANGE_KIND_REMOVED,
    ChangeKind.CHANGE_KIND_CHANGED,
)


def rule(schema, *, name="Order", policy=FLAG, **more):
    return TrackingPlanRule(
        type=TRACK, event_name=name, schema=json.dumps(schema), policy=policy, **more
    )


def content(*rules, **more):
    return TrackingPlanContent(rules=rules, **more)


def told(change):
    return (change.kind, {value.field: (value.before, value.after) for value in change.values})


def test_rules_that_came_and_went_are_told_with_their_properties():
    found = diff(
        content(rule({"properties": {"a": {"type": "string"}}}, name="Old")),
        content(rule({"properties": {"b": {}}, "required": ["b"]}, name="New", policy=REFUSE)),
    )

    new, old = found.changes
    assert (ADDED, {"policy": ("", "REFUSE")}) == told(new)
    assert (REMOVED, {"policy": ("ALLOW_AND_FLAG", "")}) == told(old)
    assert [("/b", (ADDED, {"required": ("", "true")}))] == [
        (each.path, told(each)) for each in new.properties
    ]
    assert [("/a", (REMOVED, {"type": ("string", ""), "required": ("false", "")}))] == [
        (each.path, told(each)) for each in old.properties
    ]


def test_properties_are_compared_at_any_depth_through_lists_and_references():
    before = {
        "$defs": {"item": {"properties": {"n": {"type": "integer", "minimum": 1}}}},
        "properties": {"items": {"items": {"$ref": "#/$defs/item"}}, "gone": {}, "same": {}},
    }
    after = {
        "properties": {
            "items": {
                "items": {"properties": {"n": {"type": ["string", "integer"]}}, "required": ["n"]}
            },
            "same": {"title": "for people only"},
            "a/b": {},
        }
    }

    [change] = diff(content(rule(before)), content(rule(after))).changes
    assert CHANGED == change.kind
    assert {
        "/a~1b": (ADDED, {"required": ("", "false")}),
        "/gone": (REMOVED, {"required": ("false", "")}),
        "/items/*/n": (
            CHANGED,
            {
                "type": ("integer", "integer or string"),
                "required": ("false", "true"),
                "schema": ('{"minimum":1}', ""),
            },
        ),
    } == {each.path: told(each) for each in change.properties}


def test_policies_and_what_is_said_of_the_whole_are_told_of_the_rule():
    [change] = diff(
        content(rule({"type": "object"})),
        content(rule({"minProperties": 1}, policy=REFUSE, unplanned_property_policy=FLAG)),
    ).changes

    assert (
        CHANGED,
        {
            "type": ("object", ""),
            "schema": ("", '{"minProperties":1}'),
            "policy": ("ALLOW_AND_FLAG", "REFUSE"),
            "unplanned_property_policy": ("", "ALLOW_AND_FLAG"),
        },
    ) == told(change)


def test_the_common_rule_comes_first_and_what_is_unplanned_is_told_apart():
    common = TrackingPlanRule(schema="{}", policy=FLAG)
    found = diff(
        content(rule({})), content(rule({}, name="A"), common=common, unplanned_policy=REFUSE)
    )

    assert [(0, ""), (TRACK, "A"), (TRACK, "Order")] == [
        (change.type, change.event_name) for change in found.changes
    ]
    assert ("", "REFUSE") == (found.unplanned_policy.before, found.unplanned_policy.after)
    assert diff(content(), content()).unplanned_policy is None


def test_very_many_changes_are_told_in_part():
    def wide(count):
        return content(
            *[
                rule({"properties": {f"p{n}": {} for n in range(count // 10)}}, name=f"E{rule_}")
                for rule_ in range(10)
            ]
        )

    within = diff(content(), wide(PROPERTY_CHANGES_MAX))
    beyond = diff(content(), wide(PROPERTY_CHANGES_MAX + 10))

    assert (True, False) == (within.is_complete, beyond.is_complete)
    assert PROPERTY_CHANGES_MAX == sum(len(change.properties) for change in beyond.changes)
