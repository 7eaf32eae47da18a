"""Whatever comes and whatever is asked, a transformation answers and what is left is JSON."""

import copy

import orjson
from hypothesis import given
from hypothesis import strategies as st

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import TransformationSettings, TransformationStep
from services.events.door import Admitted, Door, admit
from services.events.schema import Opened, Refusal, refusal_of
from services.events.transforming import in_order, invalidities

TYPES = [value for value in CustomerEventType.values() if value]

names = st.sampled_from(["a", "b", "c"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text("xyz@", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(names, values, max_size=3)
inner_paths = st.builds(
    lambda first, rest: ".".join([first, *rest]),
    st.sampled_from(["properties", "traits", "context"]),
    st.lists(names, min_size=1, max_size=3),
)
paths = inner_paths | st.sampled_from(["user_id", "anonymous_id", "group_id", "name"])
expressions = st.sampled_from(
    [
        "1",
        "'text'",
        "null",
        "properties",
        "properties.a",
        "properties.a.b + 1",
        "traits.a == properties.a",
        "user_id + name",
        "lowerAscii(name)",
        "properties.a.exists(i, i == 1)",
        "[properties.a, {'b': traits}]",
        "1 / size(name)",
    ]
)
steps = st.one_of(
    st.builds(lambda path: TransformationStep(drop={"path": path}), paths),
    st.builds(lambda path: TransformationStep(hash={"path": path}), paths),
    st.builds(
        lambda path, kept: TransformationStep(mask={"path": path, "kept_characters": kept}),
        paths,
        st.integers(0, 5),
    ),
    st.builds(
        lambda path, new: TransformationStep(rename_property={"path": path, "new_path": new}),
        paths,
        paths,
    ),
    st.builds(
        lambda path, expression: TransformationStep(set={"path": path, "expression": expression}),
        paths,
        expressions,
    ),
    st.just(TransformationStep(rename_event={"event_name": "Other"})),
)
settings = st.builds(
    lambda steps, when, rank: TransformationSettings(steps=steps, when=when, rank=rank),
    st.lists(steps, min_size=1, max_size=5),
    st.just("") | st.sampled_from(["properties.a == 1", "name == 'Order'", "true"]),
    st.integers(-1, 1),
).filter(lambda made: not invalidities(made))
opened_events = st.builds(
    lambda type_, properties, traits: Opened(
        CustomerEvent(type=type_, name="Order", user_id="u-1", previous_id="p", group_id="g"),
        properties,
        traits,
        {},
    ),
    st.sampled_from(TYPES),
    objects,
    objects,
)


def transformations(several):
    named = [(f"transformations/t{number}", each) for number, each in enumerate(several)]
    return in_order(named, hash_key=b"key").of("sources/web")


@given(st.lists(settings, min_size=1, max_size=3), opened_events)
def test_it_answers_and_what_is_left_is_json(several, opened):
    before = copy.deepcopy(opened)
    refusal = transformations(several).apply(opened)

    assert refusal is None
    for name in ("properties", "traits", "context"):
        now = getattr(opened, name)
        assert now == orjson.loads(orjson.dumps(now))
        if name not in opened.changed:
            assert getattr(before, name) == now


@given(st.lists(settings, min_size=1, max_size=3), opened_events, st.randoms())
def test_the_order_they_come_in_is_nothing(several, opened, shuffle):
    named = [(f"transformations/t{number}", each) for number, each in enumerate(several)]
    other, shuffled = copy.deepcopy(opened), list(named)
    shuffle.shuffle(shuffled)
    in_order(named, hash_key=b"key").of("").apply(opened)
    in_order(shuffled, hash_key=b"key").of("").apply(other)

    assert opened == other


@given(st.lists(settings, min_size=1, max_size=3), opened_events)
def test_what_comes_out_of_a_door_is_a_customer_event_or_refused_with_a_reason(several, opened):
    opened.changed.update(("properties", "traits"))
    found = admit(Door(transformations=transformations(several)), opened.closed())

    if isinstance(found, Refusal):
        assert found.reason
    else:
        assert isinstance(found, Admitted)
        found.opened.event.ClearField("violations")
        assert refusal_of(found.opened.event) is None
