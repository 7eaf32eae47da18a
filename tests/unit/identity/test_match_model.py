"""How two profiles are weighed is learnt from strangers, rounded, and named."""

import pytest

from services.identity.match_model import (
    CHANCE_MIN,
    FIELDS,
    PAIRS_SAMPLED_MAX,
    PAIRS_THOUGHT,
    PROFILES_PER_DUPLICATE,
    THOUGHT,
    hundredths,
    learnt,
    odds_before,
    version_of,
)
from services.identity.match_rows import Compared

MANY = 100_000


def test_the_fields_are_those_that_are_compared():
    assert Compared._fields == tuple(field.name for field in FIELDS)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_all_that_may_be_adds_up_to_certainty(field):
    assert 1 == pytest.approx(sum(field.same_person))
    assert 1 == pytest.approx(sum(field.strangers))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_same_speaks_for_one_person_and_something_else_against(field):
    exact, alike, different = (
        same > strangers for same, strangers in zip(field.same_person, field.strangers, strict=True)
    )

    assert (True, True, False) == (exact, alike, different)


def test_what_was_never_seen_is_as_it_was_thought():
    assert THOUGHT == learnt({}, {}, MANY)
    assert THOUGHT == learnt({"city": (0.9, 0.05, 0.05)}, {"city": 0.0}, MANY)


def test_what_many_pairs_say_counts_for_more_than_what_is_thought():
    seen = {"city": (0.2, 0.1, 0.7)}

    found = learnt(seen, {"city": 1.0}, MANY)

    weight = PAIRS_SAMPLED_MAX / (PAIRS_SAMPLED_MAX + PAIRS_THOUGHT)
    expected = 0.2 * weight + THOUGHT["city"][0] * (1 - weight)
    assert found["city"][0] == pytest.approx(expected, rel=1e-5)
    assert found["phone"] == THOUGHT["phone"]


def test_what_few_pairs_say_counts_for_little():
    seen = {"phone": (None, 0.0, 1.0)}

    few = learnt(seen, {"phone": 0.01}, MANY)
    all_of_them = learnt(seen, {"phone": 1.0}, MANY)

    assert few["phone"][0] == pytest.approx(THOUGHT["phone"][0], rel=0.01)
    assert CHANCE_MIN <= all_of_them["phone"][0] < few["phone"][0]


def test_the_more_profiles_the_less_likely_two_of_them_are_one():
    assert odds_before(1) == 0.5
    assert odds_before(1_001) == pytest.approx(2 / PROFILES_PER_DUPLICATE / 1_000)
    assert odds_before(2) <= 0.5


def test_a_model_is_named_by_what_it_weighs_by():
    other = {**THOUGHT, "city": (0.02, 0.005, 0.975)}

    assert version_of(THOUGHT, 100) == version_of(dict(reversed(THOUGHT.items())), 100)
    assert 3 == len({version_of(THOUGHT, 100), version_of(THOUGHT, 101), version_of(other, 100)})


def test_weights_are_rounded_to_hundredths():
    assert [1235, -6, 0] == [hundredths(weight) for weight in (12.3456, -0.0567, 1.6e-14)]
