"""Whatever the steps of transformations make of a customer event, they answer, and soon."""

import orjson
import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import TransformationSettings, TransformationStep
from services.events.door import Admitted, Door, admit
from services.events.event_paths import PLACES_MAX
from services.events.expressions import WORK_MAX
from services.events.schema import Opened, Reason
from services.events.transforming import STEPS_MAX, in_order, invalidities

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK


def rename(path, new_path):
    return TransformationStep(rename_property={"path": path, "new_path": new_path})


def set_(path, expression):
    return TransformationStep(set={"path": path, "expression": expression})


def of(*settings):
    """Transformations, each of so many steps, that may be created."""
    assert [] == [problem for each in settings for problem in invalidities(each)]
    named = [(f"transformations/t{number}", each) for number, each in enumerate(settings)]
    return in_order(named, hash_key=b"key").of("")


def steps_of(*steps):
    return TransformationSettings(steps=steps)


def event(**properties):
    return Opened(CustomerEvent(type=TRACK, name="Order", user_id="u-1"), properties, {}, {})


DEEPER = "{'a': " * 8 + "properties" + "}" * 8
DEEP_PATH = ".".join(["properties", "b", *"xyz" * 9])


@pytest.mark.parametrize(
    "steps",
    [
        [set_("properties.a", DEEPER)] * STEPS_MAX,
        [
            set_("properties.a", DEEPER),
            *[rename("properties.a", f"{DEEP_PATH}.a"), rename("properties.b", "properties.a.c")]
            * (STEPS_MAX // 2 - 1),
        ],
        [rename("properties.a", f"{DEEP_PATH}.a"), rename("properties.b", "properties.a.c")]
        * (STEPS_MAX // 2),
    ],
)
def test_what_is_set_and_moved_ever_deeper_is_answered(steps):
    door = Door(transformations=of(*[steps_of(*steps)] * 8))
    sent = CustomerEvent(type=TRACK, name="Order", user_id="u-1", properties='{"a":{"x":1}}')
    found = admit(door, sent)

    assert isinstance(found, Admitted) or found.reason == Reason.JSON_TOO_DEEP


def test_all_that_is_set_in_one_customer_event_is_bounded():
    """Else each step could set its fill in every object of a list."""
    filled = [
        steps_of(
            *[set_(f"properties.l.t{place}-{step}", "properties.text") for step in range(STEPS_MAX)]
        )
        for place in range(40)
    ]
    opened = event(text="x" * 16_000, l=[{} for _ in range(PLACES_MAX)])
    of(*filled).apply(opened)

    assert len(orjson.dumps(opened.properties)) < WORK_MAX
    assert "looks too often" in opened.event.violations[0].detail


def test_all_expressions_on_one_customer_event_share_what_they_may_do():
    costly = "properties.l.all(i, properties.text != '')"
    opened = event(text="x" * 16_000, l=list(range(10)))
    of(*[steps_of(*[set_("properties.a", costly)] * STEPS_MAX)] * 20).apply(opened)

    assert opened.properties["a"]
    assert "looks too often" in opened.event.violations[0].detail
