"""Every tree can be written and read back, and no text whatever makes the parser fail otherwise."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from services.kernel.lists.filter import Field, Fields, InvalidFilter, Kind
from services.kernel.lists.filter_syntax import parse_filter
from services.kernel.lists.filter_tree import And, Literal, Not, Operator, Or, Restriction, Search

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.text('aZ0_ -*."\\()=:,%', max_size=8),
    st.sampled_from(["AND", "or", "NOT", "true", "-1.5", "2024-05-31T10:00:00Z"]),
)
literals = st.lists(texts, min_size=1, max_size=3).map(lambda pieces: Literal(tuple(pieces)))
paths = st.lists(texts, min_size=1, max_size=3).map(tuple)
leaves = st.one_of(
    st.builds(Restriction, paths, st.sampled_from(Operator), literals),
    st.builds(Search, literals),
)


def _larger(expressions):
    several = st.lists(expressions, min_size=2, max_size=4).map(tuple)
    return st.one_of(several.map(And), several.map(Or), expressions.map(Not))


expressions = st.recursive(leaves, _larger, max_leaves=12)
FIELDS = Fields(
    {"a": Field("a", Kind.TEXT), "b": Field("b", Kind.STRUCT), "c": Field("c", Kind.TIMESTAMP)},
    searched=("a",),
)
fragments = st.sampled_from(
    [*"abc().:=<>!-*\"'\\ \t,0", "AND ", "OR ", "NOT ", "a = 1 ", "c > 2024-01-01T00:00:00Z "]
)


@given(expressions)
def test_a_tree_that_is_written_and_read_is_the_same_tree(expression):
    assert parse_filter(str(expression)) == expression


@given(st.one_of(st.text(), st.lists(fragments).map("".join)))
def test_any_text_is_a_filter_or_an_invalid_filter(text):
    with contextlib.suppress(InvalidFilter):
        wanted = FIELDS.filter(text)
        assert FIELDS.filter(wanted.text) == wanted


@given(st.lists(fragments).map("".join))
def test_an_invalid_filter_points_into_its_text(text):
    assert 0 <= _position(text) <= len(text)


def _position(text):
    try:
        FIELDS.filter(text)
    except InvalidFilter as invalid:
        return invalid.position
    return 0
