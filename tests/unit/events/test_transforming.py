"""A transformation changes what it says, leaves alone what is not there, and loses nothing."""

import copy
import hashlib
import hmac

import orjson
import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import TransformationSettings, TransformationStep
from services.events.door import Admitted, Door, admit, readmit
from services.events.event_paths import PATH_CHARACTERS_MAX, PATH_PARTS_MAX, PLACES_MAX
from services.events.plans import VIOLATIONS_MAX
from services.events.schema import EVENT_BYTES_MAX, Opened, Reason, Refusal
from services.events.transforming import (
    KEPT_CHARACTERS_MAX,
    REFUSAL_CHARACTERS_MAX,
    SETTINGS_BYTES_MAX,
    SOURCES_MAX,
    STEPS_MAX,
    in_order,
    invalidities,
)

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
KEY = b"a key of the workspace"


def step(**said):
    return TransformationStep(**said)


def rename(path, new_path):
    return step(rename_property={"path": path, "new_path": new_path})


def set_(path, expression):
    return step(set={"path": path, "expression": expression})


def of(*steps, **more):
    settings = TransformationSettings(steps=steps, **more)
    assert [] == invalidities(settings)
    return settings


def applied(opened, *settings, source="sources/web"):
    named = [(f"transformations/t{number}", each) for number, each in enumerate(settings)]
    transformations = in_order(named, hash_key=KEY).of(source)
    return None if transformations is None else transformations.apply(opened)


def event(properties=None, traits=None, **fields):
    sent = CustomerEvent(**{"type": TRACK, "name": "Order", "user_id": "u-1"} | fields)
    return Opened(sent, properties or {}, traits or {}, {})


def hash_of(content):
    return hmac.new(KEY, content, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("steps", "before", "after"),
    [
        ([rename("properties.a", "properties.b")], {"a": 1}, {"b": 1}),
        ([rename("properties.a", "properties.x.y")], {"a": 1}, {"x": {"y": 1}}),
        ([rename("properties.l.a", "properties.l.b")], {"l": [{"a": 1}, 2]}, {"l": [{"b": 1}, 2]}),
        ([rename("properties.a", "properties.b")], {"c": 1}, {"c": 1}),
        ([step(drop={"path": "properties.card.number"})], {"card": {"number": 1}}, {"card": {}}),
        ([step(drop={"path": "/properties/a.b"})], {"a.b": 1, "c": 2}, {"c": 2}),
        ([step(drop={"path": "/properties/a~1b"})], {"a/b": 1, "c": 2}, {"c": 2}),
        ([step(drop={"path": "properties.l.a"})], {"l": [{"a": 1}, [{"a": 2}]]}, {"l": [{}, [{}]]}),
        ([step(hash={"path": "properties.a"})], {"a": "é"}, {"a": hash_of("é".encode())}),
        ([step(hash={"path": "properties.a"})], {"a": {"y": 1}}, {"a": hash_of(b'{"y":1}')}),
        ([step(hash={"path": "properties.a"})], {"a": ["x"]}, {"a": [hash_of(b"x")]}),
        ([step(hash={"path": "properties.a"})], {"a": None}, {"a": None}),
        (
            [step(mask={"path": "properties.a", "kept_characters": 4})],
            {"a": "123456"},
            {"a": "**3456"},
        ),
        ([step(mask={"path": "properties.a", "kept_characters": 4})], {"a": "1234"}, {"a": "****"}),
        ([step(mask={"path": "properties.a"})], {"a": 1234}, {"a": "****"}),
        ([step(mask={"path": "properties.a"})], {"a": ["ab", True]}, {"a": ["**", True]}),
        ([set_("properties.a", "properties.b + 1")], {"b": 1}, {"b": 1, "a": 2}),
        ([set_("properties.x.y.z", "'new'")], {}, {"x": {"y": {"z": "new"}}}),
        (
            [set_("properties.l.seen", "true")],
            {"l": [{}, {"a": 1}]},
            {"l": [{"seen": True}, {"a": 1, "seen": True}]},
        ),
        (
            [
                set_("properties.email", "lowerAscii(properties.email)"),
                step(hash={"path": "properties.email"}),
            ],
            {"email": "A@X"},
            {"email": hash_of(b"a@x")},
        ),
    ],
)
def test_a_step_does_what_it_says(steps, before, after):
    opened = event(copy.deepcopy(before))
    refusal = applied(opened, of(*steps))

    assert (None, after, 0) == (refusal, opened.properties, len(opened.event.violations))
    assert before == after or {"properties"} == opened.changed


def test_an_event_gets_another_name():
    opened = event(name="order")
    applied(opened, of(step(rename_event={"event_name": "Order Completed"}), event_name="order"))

    assert "Order Completed" == opened.event.name


def test_ids_are_texts_that_can_be_changed_too():
    opened = event({"customer": "c-9"}, anonymous_id="device")
    applied(
        opened,
        of(
            step(hash={"path": "user_id"}),
            step(drop={"path": "anonymous_id"}),
            rename("properties.customer", "group_id"),
            set_("previous_id", "'was ' + group_id"),
        ),
    )

    ids = [
        getattr(opened.event, f"{name}_id") for name in ("user", "anonymous", "group", "previous")
    ]
    assert [hash_of(b"u-1"), "", "c-9", "was c-9"] == ids


@pytest.mark.parametrize(
    ("impossible", "before", "path", "why"),
    [
        (set_("properties.a", "properties.missing"), {}, "/properties/a", "there is no 'missing'"),
        (set_("properties.a", "1 / int(name)"), {}, "/properties/a", "RuntimeError"),
        (set_("properties.a.b", "1"), {"a": 5}, "/properties/a/b", "a is no object"),
        (set_("user_id", "5"), {}, "/user_id", "user_id can only be a text"),
        (
            rename("properties.a", "properties.b"),
            {"a": 1, "b": 2},
            "/properties/a",
            "is there, too",
        ),
        (rename("properties.a", "user_id"), {"a": "x"}, "/properties/a", "is there, too"),
        (rename("properties.a", "group_id"), {"a": 5}, "/properties/a", "can only be a text"),
        (
            rename("properties.l.a", "properties.b"),
            {"l": [{"a": 1}, {"a": 2}]},
            "/properties/l/a",
            "more than once",
        ),
    ],
)
def test_a_step_that_cannot_be_done_leaves_everything_as_it_was_and_says_so(
    impossible, before, path, why
):
    opened = event(copy.deepcopy(before))
    refusal = applied(opened, of(impossible, step(mask={"path": "user_id"})))

    assert (None, before, "***") == (refusal, opened.properties, opened.event.user_id)
    [violation] = opened.event.violations
    assert ("transformation", path) == (violation.rule, violation.path)
    assert why in violation.detail
    assert violation.detail.startswith("transformations/t0, steps[0]")


def test_a_condition_without_a_value_does_not_hold_and_says_so():
    opened = event()
    applied(opened, of(step(drop={"path": "user_id"}), when="properties.total > 5"))

    assert "u-1" == opened.event.user_id
    assert "when: there is no 'total'" in opened.event.violations[0].detail


def test_it_is_not_flagged_more_often_than_can_be_kept():
    opened = event()
    applied(opened, of(*[set_("properties.a", "properties.b")] * (VIOLATIONS_MAX + 5)))

    assert VIOLATIONS_MAX == len(opened.event.violations)


def test_an_event_is_refused_with_what_the_step_says():
    stop = of(step(refuse={"detail": "tests are not wanted"}), when="user_id == 'u-1'")

    assert Refusal(Reason.DROPPED, "tests are not wanted") == applied(event(), stop)
    assert applied(event(user_id="u-2"), stop) is None


@pytest.mark.parametrize(
    ("more", "is_changed"),
    [
        ({}, True),
        ({"sources": ["sources/web"]}, True),
        ({"sources": ["sources/app"]}, False),
        ({"type": TRACK}, True),
        ({"type": PAGE}, False),
        ({"event_name": "Order"}, True),
        ({"event_name": "order"}, False),
        ({"when": "name.startsWith('O')"}, True),
        ({"when": "name == ''"}, False),
    ],
)
def test_only_what_it_is_about_is_changed(more, is_changed):
    opened = event()
    applied(opened, of(set_("properties.seen", "true"), **more))

    assert is_changed == ("seen" in opened.properties)


def test_they_are_applied_by_rank_and_then_by_name():
    opened = event()
    add = [
        of(set_("properties.a", f"(has(properties.a) ? properties.a : '') + '{word}'"), rank=rank)
        for word, rank in (("c", 1), ("d", 1), ("a", -1), ("b", 0))
    ]
    applied(opened, *add)

    assert {"a": "abcd"} == opened.properties


def test_values_that_double_at_each_step_fill_no_memory():
    opened = event({"a": "x" * 1_000})
    applied(opened, of(*[set_("properties.b", "properties")] * STEPS_MAX))

    assert len(orjson.dumps(opened.properties)) < 2 * EVENT_BYTES_MAX
    assert "has more than" in opened.event.violations[0].detail


def test_one_path_leads_to_so_many_places():
    within = event({"l": [{} for _ in range(PLACES_MAX)]})
    beyond = event({"l": [{} for _ in range(PLACES_MAX + 1)]})
    for opened in (within, beyond):
        applied(opened, of(set_("properties.l.a", "[1]")))

    assert all(item == {"a": [1]} for item in within.properties["l"])
    assert not any(beyond.properties["l"])


def test_what_is_set_in_several_places_is_not_one_value():
    opened = event({"l": [{}, {}]})
    applied(opened, of(set_("properties.l.a", "{'b': 1}"), step(drop={"path": "properties.l.a.b"})))

    assert {"l": [{"a": {}}, {"a": {}}]} == opened.properties


def through_a_door(settings, **fields):
    named = [("transformations/t", settings)]
    door = Door(transformations=in_order(named, hash_key=KEY).of(""))
    sent = CustomerEvent(**{"type": TRACK, "name": "Order", "user_id": "u-1"} | fields)
    return admit(door, sent)


def test_what_is_no_customer_event_any_more_is_refused():
    found = through_a_door(of(step(drop={"path": "user_id"})))

    assert Reason.NO_IDENTIFIER == found.reason


def test_a_customer_event_of_the_largest_size_is_not_lost_to_what_is_flagged_on_it():
    sent = CustomerEvent(type=TRACK, name="Order", user_id="u-1", properties='{"a":""}')
    left = EVENT_BYTES_MAX - sent.ByteSize() - 2  # a longer length takes two more bytes
    found = through_a_door(
        of(set_("properties.b", "properties.missing")), properties=f'{{"a":"{"x" * left}"}}'
    )

    assert isinstance(found, Admitted)
    assert 1 == len(found.opened.event.violations)


def test_what_was_changed_before_it_was_quarantined_is_not_changed_again():
    named = [("transformations/t", of(step(hash={"path": "user_id"})))]
    door = Door(transformations=in_order(named, hash_key=KEY).of(""))
    kept = admit(door, CustomerEvent(type=TRACK, name="Order", user_id="u-1")).opened.event

    assert hash_of(b"u-1") == kept.user_id
    assert hash_of(b"u-1") == readmit(door, kept).opened.event.user_id


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (TransformationSettings(), "settings.steps"),
        (TransformationSettings(steps=[step()]), "settings.steps[0]"),
        (of(set_("user_id", "'x'")), None),
        (TransformationSettings(steps=[set_("x", "1")]), "settings.steps[0].set.path"),
        (TransformationSettings(steps=[set_("message_id", "'1'")]), "settings.steps[0].set.path"),
        (TransformationSettings(steps=[set_("properties", "1")]), "settings.steps[0].set.path"),
        (TransformationSettings(steps=[set_("name", "1 +")]), "settings.steps[0].set.expression"),
        (
            TransformationSettings(steps=[rename("properties.a", "properties.a.b")]),
            "settings.steps[0].rename_property.new_path",
        ),
        (
            TransformationSettings(steps=[step(rename_event={"event_name": " "})]),
            "settings.steps[0].rename_event.event_name",
        ),
        (TransformationSettings(steps=[step(refuse={})]), "settings.steps[0].refuse.detail"),
        (
            TransformationSettings(steps=[step(refuse={"detail": "a\0b"})]),
            "settings.steps[0].refuse.detail",
        ),
        (TransformationSettings(steps=[step(refuse={"detail": "x"})], when="x"), "settings.when"),
        (TransformationSettings(steps=[step(refuse={"detail": "x"})], type=99), "settings.type"),
        (
            TransformationSettings(steps=[step(refuse={"detail": "x"})], sources=["web"]),
            "settings.sources[0]",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_field(settings, field):
    assert ([] if field is None else [field]) == [each.field for each in invalidities(settings)]


def long_path(parts):
    return ".".join(["properties", *["a"] * (parts - 1)])


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (
            {"steps": [step(refuse={"detail": "x"})] * STEPS_MAX},
            {"steps": [step(refuse={"detail": "x"})] * (STEPS_MAX + 1)},
        ),
        (
            {"sources": [f"sources/{n}" for n in range(SOURCES_MAX)]},
            {"sources": [f"sources/{n}" for n in range(SOURCES_MAX + 1)]},
        ),
        (
            {"steps": [step(mask={"path": "name", "kept_characters": KEPT_CHARACTERS_MAX})]},
            {"steps": [step(mask={"path": "name", "kept_characters": KEPT_CHARACTERS_MAX + 1})]},
        ),
        (
            {"steps": [step(refuse={"detail": "x" * REFUSAL_CHARACTERS_MAX})]},
            {"steps": [step(refuse={"detail": "x" * (REFUSAL_CHARACTERS_MAX + 1)})]},
        ),
        (
            {"steps": [step(drop={"path": long_path(PATH_PARTS_MAX)})]},
            {"steps": [step(drop={"path": long_path(PATH_PARTS_MAX + 1)})]},
        ),
        (
            {"steps": [step(drop={"path": "traits.".ljust(PATH_CHARACTERS_MAX, "a")})]},
            {"steps": [step(drop={"path": "traits.".ljust(PATH_CHARACTERS_MAX + 1, "a")})]},
        ),
    ],
)
def test_a_limit_is_kept_at_its_edge(within, beyond):
    usual = {"steps": [step(drop={"path": "name"})]}

    assert [] == invalidities(TransformationSettings(**usual | within))
    assert 1 == len(invalidities(TransformationSettings(**usual | beyond)))


def test_the_size_of_settings_is_kept_at_its_edge():
    large = of(*[set_("traits.a", f"'{'x' * 900}'")] * 17)
    large.steps[0].set.expression += " " * (SETTINGS_BYTES_MAX - large.ByteSize())
    while large.ByteSize() > SETTINGS_BYTES_MAX:
        large.steps[0].set.expression = large.steps[0].set.expression[:-1]

    assert SETTINGS_BYTES_MAX == large.ByteSize()
    assert ["settings"] != [each.field for each in invalidities(large)]
    large.steps[0].set.expression += " "
    assert ["settings"] == [each.field for each in invalidities(large)]
