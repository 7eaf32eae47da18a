"""Whatever comes, a plan has a verdict; what it leaves in is what it allows; order is nothing."""

import copy
import json
import random

import orjson
from hypothesis import given
from hypothesis import strategies as st

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import TrackingPlanContent, TrackingPlanRule, ViolationPolicy
from services.events.door import Verdict
from services.events.plan_diff import diff
from services.events.plan_inference import Inference
from services.events.plan_preview import Preview
from services.events.plan_schemas import compiled
from services.events.plans import compiled_plan, instance_of, invalidities
from services.events.schema import Opened

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
POLICIES = [value for value in ViolationPolicy.values() if value]
OMIT = ViolationPolicy.VIOLATION_POLICY_OMIT_PROPERTY

names = st.sampled_from(["a", "b", "c", "d/e", "f~"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "gold", "a@x.org", "2026-01-01T00:00:00Z", "2026-01-01", "é" * 30])
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, values, max_size=5)
types = st.sampled_from(["string", "number", "integer", "boolean", "object", "array", "null"])
leaves = st.one_of(
    st.builds(lambda type_: {"type": type_}, types),
    st.builds(lambda one, other: {"type": sorted({one, other})}, types, types),
    st.sampled_from(
        [
            True,
            False,
            {"minimum": 0},
            {"maxLength": 3},
            {"enum": ["gold", 1, None]},
            {"format": "email"},
            {"const": "gold"},
            {"minProperties": 2},
            {"uniqueItems": True},
            {"pattern": "^[a-z]+$"},
        ]
    ),
)


def of_inner(inner):
    return st.one_of(
        st.builds(
            lambda properties, required, more: {
                "properties": properties,
                "required": sorted(set(required)),
                **({} if more is None else {"additionalProperties": more}),
            },
            st.dictionaries(names, inner, max_size=3),
            st.lists(names, max_size=2),
            st.none() | inner,
        ),
        st.builds(lambda items: {"items": items}, inner),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda some: {"allOf": some}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda no: {"not": no}, inner),
        st.builds(lambda names_: {"propertyNames": names_}, inner),
        st.builds(
            lambda one, other: {"if": one, "then": other, "unevaluatedProperties": False},
            inner,
            inner,
        ),
    )


schemas = st.recursive(leaves, of_inner, max_leaves=6)
policies = st.sampled_from(POLICIES)
events = st.builds(
    lambda type_, name, properties, traits: Opened(
        CustomerEvent(type=type_, name=name, user_id="u-1", message_id="m"), properties, traits, {}
    ),
    st.sampled_from([TRACK, CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE]),
    st.sampled_from(["Order", "View"]),
    objects,
    objects,
)


def rule_of(event_name, schema, policy, type_=TRACK):
    inside = {"properties": {"properties": schema, "traits": schema}}
    return TrackingPlanRule(
        type=type_, event_name=event_name, schema=json.dumps(inside), policy=policy
    )


contents = st.builds(
    lambda named, unnamed, common, unplanned: TrackingPlanContent(
        rules=[rule_of("Order", *named), *([rule_of("", *unnamed)] if unnamed else [])],
        common=None if common is None else rule_of("", *common, type_=0),
        unplanned_policy=unplanned,
    ),
    st.tuples(schemas, policies),
    st.none() | st.tuples(schemas, policies),
    st.none() | st.tuples(schemas, policies),
    st.sampled_from([value for value in ViolationPolicy.values() if value != OMIT]),
)


@given(contents, events)
def test_every_customer_event_has_a_verdict(content, opened):
    assert [] == invalidities(content)
    before = copy.deepcopy(opened)
    judgement = compiled_plan("trackingPlans/x@1", content).judge(opened)

    assert judgement.verdict in Verdict
    assert (judgement.verdict is Verdict.LET_IN) or judgement.violations
    for violation in judgement.violations:
        assert violation.rule
        assert violation.path == "" or violation.path.startswith("/")
    if judgement.verdict is not Verdict.LET_IN:
        assert before == opened
    for name in ("properties", "traits", "context"):
        assert (name in opened.changed) == (getattr(before, name) != getattr(opened, name))
    orjson.dumps([opened.properties, opened.traits])


@given(contents, events)
def test_leaving_out_twice_is_leaving_out_once(content, opened):
    plan = compiled_plan("trackingPlans/x@1", content)
    first = plan.judge(opened)
    once = copy.deepcopy((opened.properties, opened.traits))
    opened.changed.clear()
    second = plan.judge(opened)

    assert once == (opened.properties, opened.traits)
    assert not opened.changed
    assert first.verdict is second.verdict
    if not first.violations:
        assert not second.violations


@given(schemas, events)
def test_what_is_left_is_what_the_plan_allows_or_could_not_be_mended(schema, opened):
    content = TrackingPlanContent(rules=[rule_of("", schema, OMIT)])
    judgement = compiled_plan("trackingPlans/x@1", content).judge(opened)
    if judgement.verdict is not Verdict.LET_IN or opened.event.type != TRACK:
        return

    for error in compiled(content.rules[0].schema).iter_errors(instance_of(opened)):
        is_missing = error.kind.name == "required"
        is_whole_object = len(error.instance_path) == 1
        assert is_missing or is_whole_object


@given(contents, events, st.randoms(use_true_random=False))
def test_the_order_of_rules_is_nothing(content, opened, shuffle: random.Random):
    shuffled = TrackingPlanContent()
    shuffled.CopyFrom(content)
    rules = list(content.rules)
    shuffle.shuffle(rules)
    del shuffled.rules[:]
    shuffled.rules.extend(rules)
    other = copy.deepcopy(opened)

    one = compiled_plan("trackingPlans/x@1", content).judge(opened)
    two = compiled_plan("trackingPlans/x@1", shuffled).judge(other)
    assert (one.verdict, list(one.violations)) == (two.verdict, list(two.violations))
    assert opened == other
    assert not diff(content, shuffled).changes


@given(contents, contents)
def test_a_diff_is_empty_only_between_contents_that_say_the_same(before, after):
    found = diff(before, after)
    back = diff(after, before)

    assert bool(found.changes) == bool(back.changes)
    assert not diff(before, before).changes
    assert [change.event_name for change in found.changes] == [c.event_name for c in back.changes]


@given(st.lists(events, max_size=12))
def test_every_customer_event_that_a_plan_was_inferred_from_satisfies_it(seen):
    inference = Inference()
    for opened in seen:
        for _ in range(6):  # often enough for values and forms to be taken for rules
            inference.add(opened)
    content, left_out = inference.content()

    assert ([], 0) == (invalidities(content), left_out)
    plan = compiled_plan("trackingPlans/x@1", content)
    for opened in seen:
        assert not plan.judge(opened).violations
    kinds = {(o.event.type, o.event.name if o.event.type == TRACK else "") for o in seen}
    assert kinds == {(rule.type, rule.event_name) for rule in content.rules}


@given(contents, st.lists(events, max_size=8))
def test_a_preview_counts_each_customer_event_once(content, seen):
    preview = Preview(compiled_plan("trackingPlans/x@1", content))
    for opened in seen:
        opened.changed.update(("properties", "traits"))
        preview.add(opened.closed())
    told = preview.response(is_complete=True)

    def total(outcomes):
        return sum(value for _, value in outcomes.ListFields())

    assert len(seen) == told.looked_at == total(told.outcomes)
    assert len(seen) == sum(total(event.outcomes) for event in told.events)
