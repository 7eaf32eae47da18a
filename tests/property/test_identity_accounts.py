"""When somebody is in an account follows from the set of words, and the words can be divided."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.identity.accounts import Account, Kind, Turn, periods
from tests.identity_world import at

TURNS = st.lists(
    st.builds(
        lambda kind, minute, key: Turn(kind, at(minute), bytes([key])),
        st.sampled_from([Kind.JOINED, Kind.LEFT]),
        st.integers(0, 8),
        st.integers(0, 255),
    ),
    unique_by=lambda turn: turn.key,
    max_size=12,
)


def place(turn):
    return turn.occur_time, turn.key


@given(TURNS, st.randoms(use_true_random=False))
def test_no_order_of_the_words_can_be_seen(turns, rng):
    another = rng.sample(turns, len(turns))

    assert periods(turns) == periods(another)


@given(TURNS)
def test_one_is_in_it_behind_a_word_exactly_where_that_says_that_one_joined(turns):
    found = [
        ((p.start_time, p.start_key), None if p.end_key is None else (p.end_time, p.end_key))
        for p in periods(turns)
    ]

    for turn in turns:
        covers = [
            start <= place(turn) and (end is None or place(turn) < end) for start, end in found
        ]
        assert any(covers) is (turn.kind is Kind.JOINED)


@given(TURNS)
def test_periods_are_in_order_and_do_not_touch(turns):
    found = periods(turns)

    assert all(period.end_key is not None for period in found[:-1])
    for one, other in pairwise(found):
        assert (one.start_time, one.start_key) < (one.end_time, one.end_key)
        assert (one.end_time, one.end_key) < (other.start_time, other.start_key)


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=24, max_size=24).map(lambda key: b"\0" + key[1:]),
            st.integers(0, 5),
            st.dictionaries(st.sampled_from("ab"), st.sampled_from(["1", "2", None]), max_size=2),
        ),
        unique_by=lambda word: word[0],
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_an_account_is_the_same_in_any_order_of_its_words(words, rng):
    made = []
    for order in (words, rng.sample(words, len(words))):
        account = Account()
        for key, minute, traits in order:
            account.add(key, at(minute), tuple(traits.items()))
        made.append(account)

    assert made[0] == made[1]
    assert made[0].words == len(words)
