"""An expression has a value or says why not, and never takes long, whatever it is held against."""

import time

import pytest

from services.events.expressions import (
    EXPRESSION_CHARACTERS_MAX,
    LIST_ITEMS_MAX,
    MATCHES_MAX,
    ExpressionError,
    compiled_expression,
)

SEEN = {
    "type": "track",
    "name": "Order",
    "user_id": "u-1",
    "anonymous_id": "",
    "previous_id": "",
    "group_id": "",
    "properties": {"price": 3, "email": " A@X.org ", "tags": ["a", "b"], "none": None, "f": 1.5},
    "traits": {},
    "context": {"page": {"url": "https://example.com/map/all"}},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("properties.price + 1", 4),
        ("double(properties.price) * 1.5", 4.5),
        ("lowerAscii(properties.email).trim()", "a@x.org"),
        ("properties.price.upperAscii()", 3),
        ("'x' in properties.tags || 'b' in properties.tags", True),
        ("properties.tags.exists(tag, tag == 'b')", True),
        ("has(properties.missing) ? 1 : 2", 2),
        ("properties.none", None),
        ("context.page.url.startsWith('https://')", True),
        ("name.matches(r'^Ord\\w+$')", True),
        ("timestamp('2026-01-01T00:00:00Z')", "2026-01-01T00:00:00+00:00"),
        ("{'a': [1, properties.f]}", {"a": [1, 1.5]}),
        ("type == 'track' && user_id != ''", True),
    ],
)
def test_an_expression_has_a_value(text, value):
    assert value == compiled_expression(text).value(SEEN)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("properties.price + properties . tags.size()", {"price", "tags"}),
        ("has(properties.price) && properties.properties.price == 1", {"price", "properties"}),
        ("'properties.inside' + properties.email", {"inside", "email"}),
        ("properties['price']", None),
        ("'price' in properties", None),
        ("properties.size()", None),
        ("properties == {} || properties.price == 1", None),
        ("'properties' == properties.email", None),
    ],
)
def test_only_what_an_expression_may_read_is_handed_over(text, members):
    assert members == compiled_expression(text).variables["properties"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("properties.missing == 1", "there is no missing"),
        ("properties.price + 'x'", "TypeError"),
        ("properties.price / 0", "ZeroDivisionError"),
        ("9223372036854775807 + properties.price", "OverflowError"),
        ("int(name)", "RuntimeError"),
        ("1.0 / 0.0", "is no JSON"),
        ("b'x'", "is no JSON"),
        ("{1: 2}", "is no JSON"),
        ("duration('1s')", "is no JSON"),
    ],
)
def test_an_expression_without_a_value_says_why(text, why):
    with pytest.raises(ExpressionError) as failed:
        compiled_expression(text).value(SEEN)

    assert why in str(failed.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no CEL"),
        ("1 +", "is no CEL"),
        ("(" * 400 + "1" + ")" * 400, "is no CEL"),
        ("secret", "there is no secret"),
        ("system('x')", "there is no function system"),
        ("properties.tags.map(t, t)", "map and filter"),
        ("properties.tags.map // so\n (t, t)", "map and filter"),
        ("properties.tags.filter\n(t, true).size()", "map and filter"),
        ("properties.tags.all(a, properties.tags.all(b, true))", "at most one"),
        ("properties.tags.all(a, true) && properties.tags.exists(a, true)", "at most one"),
        ("name.matches(properties.email)", "written out"),
        ("name.matches('a' + name)", "written out"),
        ("name.matches // so\n (name)", "written out"),
        ("name.matches('''a''')", "written out"),
        ("name.matches('(x{1,50}){1,50}y')", "too large"),
        ("name.matches('(')", "wrong"),
        ("properties.tags.all(t, t.matches('a'))", "together"),
    ],
)
def test_what_could_take_long_or_is_unknown_is_refused_when_it_is_compiled(text, why):
    with pytest.raises(ExpressionError) as refused:
        compiled_expression(text)

    assert why in str(refused.value)


def test_the_length_of_an_expression_is_kept_at_its_edge():
    at_the_edge = "1".ljust(EXPRESSION_CHARACTERS_MAX)

    assert compiled_expression(at_the_edge).value(SEEN) == 1
    with pytest.raises(ExpressionError):
        compiled_expression(f"{at_the_edge} ")


def test_the_regular_expressions_of_an_expression_are_counted():
    at_the_edge = " && ".join(["name.matches('O')"] * MATCHES_MAX)

    assert compiled_expression(at_the_edge).value(SEEN)
    with pytest.raises(ExpressionError):
        compiled_expression(f"{at_the_edge} && name.matches('O')")


def test_a_list_is_walked_up_to_a_length():
    walk = compiled_expression("properties.list.all(item, item > 0)")

    assert walk.value({"properties": {"list": [1] * LIST_ITEMS_MAX}})
    with pytest.raises(ExpressionError):
        walk.value({"properties": {"list": [1] * (LIST_ITEMS_MAX + 1)}})
    with pytest.raises(ExpressionError):
        walk.value({"properties": {"list": {str(n): 1 for n in range(LIST_ITEMS_MAX + 1)}}})


# Each is about as long as may be, on as much as a customer event may hold.
LARGE = {
    "properties": {
        "text": "x" * 16_000,
        "many": {str(n): [0] * LIST_ITEMS_MAX for n in range(50)},
        "list": [[1] * LIST_ITEMS_MAX for _ in range(LIST_ITEMS_MAX // 2)],
    }
}


@pytest.mark.parametrize(
    "text",
    [
        "properties.list.all(i, properties == properties && properties == properties)",
        "properties.list.all(i, [properties, properties, properties, properties] != [i])",
        "properties.list.exists(i, size(properties.text + properties.text) == 0)",
        " && ".join(["size(properties) > 0"] * 40),
        "size(" + " + ".join(["properties.text"] * 50) + ") > 0",
        " && ".join([r"!properties.text.matches('(x{1,15}){1,15}y')"] * MATCHES_MAX),
        "[" + ", ".join(["properties"] * 80) + "] == []",
    ],
)
def test_a_bomb_goes_off_without_harm(text):
    bomb = compiled_expression(text)
    begun = time.perf_counter()
    bomb.value(LARGE)

    assert time.perf_counter() - begun < 3.0
