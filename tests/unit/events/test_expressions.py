"""An expression has a value or says why not, and never takes long, whatever it is held against."""

import time
from contextlib import suppress

import pytest

from services.events.expression_syntax import (
    EXPRESSION_CHARACTERS_MAX,
    MATCHES_MAX,
    ExpressionError,
)
from services.events.expressions import (
    VALUE_DEPTH_MAX,
    WORK_MAX,
    Seen,
    Work,
    as_json,
    compiled_expression,
)
from services.events.transforming import VARIABLES

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


def compiled(text):
    return compiled_expression(text, VARIABLES)


def value_of(text, seen=None):
    return compiled(text).value(SEEN if seen is None else seen, Work())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("properties.price + 1", 4),
        ("double(properties.price) * 1.5", 4.5),
        ("lowerAscii(properties.email).trim()", "a@x.org"),
        ("properties.price.upperAscii()", 3),
        ("'x' in properties.tags || 'b' in properties.tags", True),
        ("properties.tags.exists(tag, tag == 'b')", True),
        ("properties.tags.map(tag, {'tag': tag})", [{"tag": "a"}, {"tag": "b"}]),
        ("properties.tags.filter(t, t != 'a') + properties.tags.map(t, t)", ["b", "a", "b"]),
        ("has(properties.missing) ? 1 : 2", 2),
        ("r'a\\n' + 'map // (x, ' + \"exists\"", "a\\nmap // (x, exists"),
        ("properties.none", None),
        ("context.page.url.startsWith('https://')", True),
        ("name.matches(r'^Ord\\w+$')", True),
        ("timestamp('2026-01-01T00:00:00Z')", "2026-01-01T00:00:00+00:00"),
        ("{'a': [1, properties.f]}", {"a": [1, 1.5]}),
        ("type == 'track' && user_id != ''", True),
    ],
)
def test_an_expression_has_a_value(text, value):
    assert value == value_of(text)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("properties.price + properties . tags.size()", {"price", "tags"}),
        ("has(properties.price) && properties.properties.price == 1", {"price", "properties"}),
        ("'properties.inside' + properties.email", {"email"}),
        ("properties['price']", None),
        ("'price' in properties", None),
        ("properties.size()", None),
        ("properties == {} || properties.price == 1", None),
        ("properties.tags.exists(tag, tag == 'a')", {"tags"}),
        ("context.properties == 1 && properties.price == 1", None),
    ],
)
def test_only_what_an_expression_may_read_is_handed_over(text, members):
    assert members == compiled(text).reads["properties"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("properties.missing == 1", "there is no 'missing'"),
        ("properties.price + 'x'", "TypeError"),
        ("int(properties.email)", "RuntimeError"),
        ("properties.price / 0", "ZeroDivisionError"),
        ("9223372036854775807 + properties.price", "OverflowError"),
        ("int(name)", "RuntimeError"),
        ("1.0 / 0.0", "is no JSON"),
        ("{1: 2}", "is no JSON"),
        ("duration('1s')", "is no JSON"),
    ],
)
def test_an_expression_without_a_value_says_why(text, why):
    with pytest.raises(ExpressionError) as failed:
        value_of(text)

    assert why in str(failed.value)
    assert "A@X.org" not in str(failed.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no CEL"),
        ("1 +", "is no CEL"),
        ("(" * 400 + "1" + ")" * 400, "is no CEL"),
        ("secret", "there is no secret"),
        ("system('x')", "there is no function system"),
        ("properties.", "is no CEL"),
        ("`a`", "is no CEL"),
        ("name.replace('a', 'b')", "there is no function replace"),
        ("properties.tags.map // so\n (t, t)", "no comment"),
        ("'a' // a comment", "no comment"),
        ("b'bytes'", "plain or raw texts"),
        ("br'bytes'", "plain or raw texts"),
        ("R'raw'", "plain or raw texts"),
        ("'''long'''", "plain or raw texts"),
        ("'", "is no CEL"),
        ("properties.tags.map(name, name)", "name of its own"),
        *[
            (text, "inside another")
            for text in (
                "properties.tags.all(a, properties.tags.all(b, true))",
                "properties.tags.filter\n(t, true).map(t, t)",
                "[properties.tags.filter(a, true)].map(b, b)",
                "(true ? properties.tags.map(a, a) : []).filter(b, true)",
                "properties.tags.map(a, a)[0].map(b, b)",
                "properties . tags . map (a, a) . all (b, true)",
            )
        ],
        ("name.matches(properties.email)", "written out"),
        ("name.matches('a' + name)", "written out"),
        ("name.matches('a\\\\d')", "written out"),
        ("name.matches // so\n (name)", "no comment"),
        ("name.matches('''a''')", "plain or raw texts"),
        ("name.matches('(x{1,50}){1,50}y')", "too large"),
        ("name.matches('(')", "wrong"),
        ("properties.tags.all(t, t.matches('a'))", "together"),
    ],
)
def test_what_could_take_long_or_is_unknown_is_refused_when_it_is_compiled(text, why):
    with pytest.raises(ExpressionError) as refused:
        compiled(text)

    assert why in str(refused.value)


def test_the_length_of_an_expression_is_kept_at_its_edge():
    at_the_edge = "1".ljust(EXPRESSION_CHARACTERS_MAX)

    assert value_of(at_the_edge) == 1
    with pytest.raises(ExpressionError):
        compiled(f"{at_the_edge} ")


def test_the_regular_expressions_of_an_expression_are_counted():
    at_the_edge = " && ".join(["name.matches('O')"] * MATCHES_MAX)

    assert value_of(at_the_edge)
    with pytest.raises(ExpressionError):
        compiled(f"{at_the_edge} && name.matches('O')")


def test_what_it_costs_is_charged_for_and_too_much_is_refused():
    expression = compiled("properties.tags == properties.tags")
    cost = WORK_MAX - left_after(expression, Work())

    assert left_after(expression, Work(cost)) == 0
    with pytest.raises(ExpressionError, match="looks too often"):
        expression.value(SEEN, Work(cost - 1))


def left_after(expression, work):
    expression.value(SEEN, work)
    return work.left


def test_several_expressions_share_what_they_may_do():
    looks = compiled("size(properties) > 0")
    cost = WORK_MAX - left_after(looks, Work())
    work = Work(2 * cost)
    seen = Seen(SEEN, work)

    assert looks.value_in(seen)
    assert looks.value(SEEN, work)
    with pytest.raises(ExpressionError, match="looks too often"):
        looks.value_in(seen)
    with pytest.raises(ExpressionError, match="looks too often"):
        compiled("1").value({}, work)


@pytest.mark.parametrize(
    ("depth", "is_taken"), [(VALUE_DEPTH_MAX, True), (VALUE_DEPTH_MAX + 1, False)]
)
def test_a_value_is_nested_so_deep_and_no_deeper(depth, is_taken):
    value = 1
    for _ in range(depth):
        value = [value]

    if is_taken:
        assert value == as_json(value)
    else:
        with pytest.raises(ExpressionError, match="nested"):
            as_json(value)


# Each is about as long as may be, on as much as a customer event may hold.
LARGE = {
    "properties": {
        "text": "x" * 16_000,
        "many": {str(n): [0] * 100 for n in range(40)},
        "list": [[1] * 100 for _ in range(40)],
    }
}


@pytest.mark.parametrize(
    "text",
    [
        "properties.list.all(i, properties == properties && properties == properties)",
        "properties.list.all(i, [properties, properties, properties, properties] != [i])",
        "properties.list.exists(i, size(properties.text + properties.text) == 0)",
        "properties.list.map(i, properties)",
        "[properties.text].map(x, " + "+".join("x" * 400) + ")",
        " && ".join(["size(properties) > 0"] * 40),
        "size(" + " + ".join(["properties.text"] * 50) + ") > 0",
        " && ".join([r"!properties.text.matches('(x{1,15}){1,15}y')"] * MATCHES_MAX),
        "[" + ", ".join(["properties"] * 80) + "] == []",
        "[" + ",".join("1" * 450) + "].map(x, x)",
    ],
)
def test_a_bomb_goes_off_without_harm(text):
    bomb = compiled(text)
    begun = time.perf_counter()
    with suppress(ExpressionError):
        bomb.value(LARGE, Work())

    assert time.perf_counter() - begun < 3.0
