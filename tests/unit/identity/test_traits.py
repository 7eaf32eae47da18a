"""A value is kept as it was said, and the latest word wins."""

import json
from datetime import UTC, datetime

import pytest

from services.identity.traits import Said, later, merged, read_object, text_of, traits_of


@pytest.mark.parametrize(
    "written", ['"a"', "1", "1.50", "-0", "true", "12345678901234567890123", '"ä"']
)
def test_a_plain_value_is_kept_to_the_letter(written):
    assert traits_of(read_object(f'{{"x": {written}}}')) == (("x", written),)


def test_a_value_is_kept_in_meaning_where_it_cannot_be_kept_to_the_letter():
    written = r'{"x": {"b": [1, null], "a": "\u0000\ud83d\ude00"}, "y": 1e400}'

    assert traits_of(read_object(written)) == (
        ("x", '{"b":[1,null],"a":"😀"}'),
        ("y", '"1e400"'),
    )


def test_a_number_of_many_digits_is_kept_as_text():
    [(_, value)] = traits_of({"x": b"9" * 5_000})

    assert json.loads(value) == "9" * 5_000


def test_null_takes_a_trait_back():
    assert traits_of(read_object('{"x": null}')) == (("x", None),)


@pytest.mark.parametrize("name", ["", "n" * 201, "a\0b"])
def test_some_names_are_no_names(name):
    assert traits_of({name: b"1"}) == ()


@pytest.mark.parametrize("text", ["", "[]", "null", '{"a":', "{" * 5_000, '{"a":' * 5_000])
def test_what_is_no_object_has_no_values(text):
    assert read_object(text) == {}


def test_plain_text_is_text_or_a_whole_number():
    assert [text_of(raw) for raw in (b'"a"', b"17", b"1.5", b"true", b"{}", None)] == [
        "a",
        "17",
        "",
        "",
        "",
        "",
    ]


def test_the_word_said_later_wins_whichever_comes_first():
    def said(value, hour, key):
        return Said(value, datetime(2026, 1, 1, hour, tzinfo=UTC), key)

    old, new, tie = said("1", 1, b"z"), said(None, 2, b"a"), said("3", 2, b"b")

    assert later(old, new) == later(new, old) == new
    assert later(new, tie) == later(tie, new) == tie
    assert merged([{"x": old}, {"x": tie}, {"x": new, "y": old}]) == {"x": tie, "y": old}
