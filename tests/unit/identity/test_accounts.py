"""What facts say of accounts, and who is in them when."""

from datetime import UTC, datetime, timedelta

import pytest

from services.identity.accounts import (
    PERIODS_TOLD_MAX,
    Kind,
    Period,
    Turn,
    account_traits_changes,
    membership_changes,
    periods,
    word_of,
)
from services.identity.changes import CHANGE_BYTES_MAX
from services.identity.facts import read_fact
from services.identity.rules import DEFAULT
from services.identity.traits import Said
from tests.identity_world import Facts, at

START = datetime(2026, 1, 1, tzinfo=UTC)


def turn(kind, minute, key=b""):
    return Turn(Kind[kind], at(minute), key or bytes([minute]))


def spans(*turns):
    """From which minute to which somebody is in it."""
    minute = timedelta(minutes=1)
    return [
        ((p.start_time - START) // minute, p.end_time and (p.end_time - START) // minute)
        for p in periods(turns)
    ]


@pytest.fixture
def facts():
    return Facts()


def said(event):
    return word_of(event, read_fact(DEFAULT, event, {}))


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((), []),
        ((turn("JOINED", 1),), [(1, None)]),
        ((turn("JOINED", 1), turn("LEFT", 4)), [(1, 4)]),
        ((turn("LEFT", 4), turn("JOINED", 1)), [(1, 4)]),
        ((turn("LEFT", 1),), []),
        ((turn("JOINED", 1), turn("JOINED", 2), turn("LEFT", 4), turn("LEFT", 5)), [(1, 4)]),
        ((turn("JOINED", 1), turn("JOINED", 5), turn("LEFT", 3)), [(1, 3), (5, None)]),
        ((turn("LEFT", 1), turn("JOINED", 3), turn("LEFT", 3, b"\xff")), [(3, 3)]),
        ((turn("LEFT", 3, b"\0"), turn("JOINED", 3)), [(3, None)]),
    ],
)
def test_somebody_is_in_an_account_from_where_they_joined_to_where_they_next_left(turns, expected):
    assert expected == spans(*turns)


def test_a_group_call_says_that_its_sender_joined_and_what_the_group_is_like(facts):
    event = facts.sent(
        "group", user_id="u1", group_id=" acme ", traits={"plan": "gold"}, occurred=9
    )

    word = said(event)

    assert (word.kind, word.group_id, word.traits) == (Kind.JOINED, "acme", (("plan", '"gold"'),))
    assert word.atom == read_fact(DEFAULT, event, {}).atom
    assert word.occur_time == at(9)


def test_a_group_call_that_ends_a_membership_says_so_and_an_account_call_says_nothing_of_anybody(
    facts,
):
    left = said(facts.sent("group", user_id="u1", group_id="acme", ends_membership=True))
    described = said(facts.sent("account", user_id="u1", group_id="acme"))
    alone = said(facts.sent("account", group_id="acme", traits={"plan": "free"}))

    assert (left.kind, described.kind, alone.kind) == (Kind.LEFT, Kind.DESCRIBED, Kind.DESCRIBED)
    assert left.account == described.account == alone.account
    assert described.atom is alone.atom is None


@pytest.mark.parametrize("group_id", ["null", "  ", "000"])
def test_a_group_id_that_everybody_has_is_no_account(facts, group_id):
    assert said(facts.sent("group", user_id="u1", group_id=group_id)) is None


def test_a_group_call_of_nobody_says_nothing(facts):
    assert said(facts.sent("group", user_id="null", group_id="acme")) is None


@pytest.mark.parametrize(
    "within",
    [
        {"context": {"groupId": "acme"}},
        {"context": {"groupId": "acme", "traits": {"email": "a@x.com"}}},
        {"group_id": "acme"},
    ],
)
def test_what_is_done_in_an_account_carries_it_and_is_no_word_of_it(facts, within):
    event = facts.track(user_id="u1", **within)
    account = said(facts.sent("group", user_id="u1", group_id="acme")).account

    assert read_fact(DEFAULT, event, {}).activity.account == f"accounts/{account}"
    assert said(event) is None
    assert read_fact(DEFAULT, facts.track(user_id="u1"), {}).activity.account == ""


def test_the_last_periods_are_told_and_how_many_are_left_out():
    many = [Period(bytes([n]), at(2 * n), b"", at(2 * n + 1)) for n in range(PERIODS_TOLD_MAX + 2)]

    [whole] = membership_changes("p", {}, {"a": many[2:]}, None)
    [cut] = membership_changes("p", {}, {"a": many}, None)

    assert whole.event.changes[0].left_out_count == 0
    assert cut.event.changes[0].left_out_count == 2
    assert cut.event.changes[0].periods == whole.event.changes[0].periods
    assert whole.stream == "profile-p"


def test_memberships_are_told_where_their_times_are_others():
    before = {"a": [Period(b"1", at(1))], "b": [Period(b"2", at(1))]}
    after = {"a": [Period(b"3", at(1))], "c": [Period(b"4", at(1), b"5", at(2))]}

    [told] = membership_changes("p", before, after, None)

    assert [(change.account, len(change.periods)) for change in told.event.changes] == [
        ("accounts/b", 0),
        ("accounts/c", 1),
    ]
    assert list(membership_changes("p", before, before, None)) == []


def test_many_memberships_are_told_in_parts_that_fit():
    periods_each = [Period(bytes([n]), at(n), b"", at(n)) for n in range(50)]
    after = {f"{number:032x}": periods_each for number in range(200)}

    told = list(membership_changes("p", {}, after, None))

    assert len(told) > 1
    assert all(change.event.ByteSize() <= CHANGE_BYTES_MAX + 100 for change in told)
    assert sum(len(change.event.changes) for change in told) == 200


def test_an_accounts_traits_are_told_on_its_own_stream():
    now = {"plan": Said('"gold"', at(1), b"")}

    [told] = account_traits_changes("a", {}, now, None)

    assert told.stream == "account-a"
    assert told.event.account == "accounts/a"
    assert [change.trait for change in told.event.changes] == ["plan"]
