"""A profile's consent is the strictest over its identifiers, and nobody consents for another."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from rapport.identity.v1.consents_pb2 import LawfulBasis
from services.identity.consents import (
    FOR_EVER,
    NOTHING_SAID,
    Purpose,
    Status,
    Word,
    expires,
    is_allowed,
    standing,
)
from services.identity.facts import key_of
from services.identity.preferences import CATEGORIES_GRANTED_MAX, granted_categories
from tests.identity_world import START, Facts, at

MAIL = Purpose("mail", frozenset({"marketing"}), START)
EVERYTHING = Purpose("all", frozenset({"marketing", "ads"}), START)
BY_HAND = Purpose("by-hand", frozenset(), START)


def word(minute, atom, *nodes, granted=(), status=None, purpose="mail", until=None):
    """What an atom says under its nodes: of categories, or of a purpose where a status is said."""
    key = key_of(at(minute), Facts(seed=minute).track().event_id)
    about = {} if status is None else {"purpose_id": purpose, "status": status}
    return Word(atom, (atom, *nodes), key, at(minute), granted=granted, expire_time=until, **about)


def yes(minute, atom, *nodes):
    return word(minute, atom, *nodes, granted=("marketing",))


def no(minute, atom, *nodes):
    return word(minute, atom, *nodes)


def status_of(members, *words, purpose=MAIL):
    """The consent of a profile with these nodes; the same in whatever order words come."""
    said = [(node, each) for each in words for node in each.nodes if node in members]
    found = {standing(members, order, purpose) for order in permutations(said)}
    assert len(found) == 1
    return found.pop().status


def test_nobody_said_anything():
    assert NOTHING_SAID == standing({"u"}, [], MAIL)


def test_an_identifier_without_a_word_takes_no_grant_away():
    assert Status.GRANTED == status_of({"u", "new"}, yes(1, "u"))


def test_the_last_word_under_an_identifier_counts():
    assert Status.DENIED == status_of({"u"}, yes(1, "u"), no(2, "u"))
    assert Status.GRANTED == status_of({"u"}, no(1, "u"), yes(2, "u"))


def test_the_strictest_over_all_identifiers_counts():
    assert Status.DENIED == status_of({"u", "a"}, no(1, "a"), yes(2, "u"))


def test_who_refused_on_a_device_and_agrees_on_it_later_has_agreed():
    assert Status.GRANTED == status_of({"u", "a"}, no(1, "a"), yes(2, "u", "a"))


def test_parted_from_the_device_each_has_what_it_had():
    words = no(1, "a"), yes(2, "u", "a")

    assert Status.GRANTED == status_of({"u"}, *words)
    assert Status.DENIED == status_of({"a"}, *words)


def test_nobody_consents_for_somebody_else():
    kiosk = yes(1, "stranger", "kiosk")

    assert Status.UNKNOWN == status_of({"u", "kiosk"}, kiosk)


def test_a_refusal_counts_wherever_one_of_its_identifiers_is():
    assert Status.DENIED == status_of({"u", "mail"}, yes(1, "u", "mail"), no(2, "other", "mail"))


def test_what_somebody_else_took_back_counts_no_longer():
    words = no(1, "other", "mail"), yes(2, "other", "mail")

    assert Status.UNKNOWN == status_of({"u", "mail"}, *words)


def test_a_purpose_of_several_categories_needs_all_of_them():
    both = word(1, "u", granted=("ads", "marketing", "unheard of"))

    assert Status.GRANTED == status_of({"u"}, both, purpose=EVERYTHING)
    assert Status.DENIED == status_of({"u"}, yes(1, "u"), purpose=EVERYTHING)


def test_of_a_purpose_without_categories_customer_events_say_nothing():
    granted = word(1, "u", status=Status.GRANTED, purpose="by-hand")

    assert Status.UNKNOWN == status_of({"u"}, no(2, "u"), purpose=BY_HAND)
    assert Status.GRANTED == status_of({"u"}, granted, no(2, "u"), purpose=BY_HAND)


def test_nobody_consented_to_what_did_not_exist():
    later = Purpose("mail", frozenset({"marketing"}), at(5))

    assert Status.UNKNOWN == status_of({"u"}, yes(4, "u"), purpose=later)
    assert Status.GRANTED == status_of({"u"}, yes(5, "u"), purpose=later)


def test_the_later_of_a_word_by_hand_and_a_customer_event_counts():
    withdrawn = word(2, "u", status=Status.WITHDRAWN)

    assert Status.WITHDRAWN == status_of({"u"}, yes(1, "u"), withdrawn)
    assert Status.GRANTED == status_of({"u"}, withdrawn, yes(3, "u"))


def test_of_several_grants_the_one_that_holds_longest_counts():
    short = word(2, "u", status=Status.GRANTED, until=at(10))
    long = word(1, "m", status=Status.GRANTED, until=at(20))

    stands = standing({"u", "m"}, [("u", short), ("m", long)], MAIL)

    assert at(20) == stands.expire_time
    assert Status.GRANTED == stands.at(at(19))
    assert Status.EXPIRED == stands.at(at(20))


def test_a_refusal_never_expires():
    stands = standing({"u"}, [("u", no(1, "u"))], MAIL)

    assert Status.DENIED == stands.at(FOR_EVER)


def test_a_grant_holds_to_the_end_of_the_day_on_which_it_would_expire():
    month = Purpose("p", frozenset(), START, timedelta(days=30))
    said = datetime(2026, 1, 1, 15, 30, tzinfo=UTC)

    assert datetime(2026, 2, 1, tzinfo=UTC) == expires(said, month)
    assert FOR_EVER == expires(said, BY_HAND)
    assert FOR_EVER == expires(FOR_EVER - timedelta(days=30), month)


@pytest.mark.parametrize(
    ("basis", "allowed"),
    [
        ("CONSENT", {Status.GRANTED}),
        ("LEGITIMATE_INTEREST", {Status.GRANTED, Status.UNKNOWN, Status.EXPIRED}),
        ("PUBLIC_TASK", {Status.GRANTED, Status.UNKNOWN, Status.EXPIRED}),
        ("CONTRACT", set(Status)),
        ("LEGAL_OBLIGATION", set(Status)),
        ("VITAL_INTEREST", set(Status)),
    ],
)
def test_what_is_allowed_follows_from_the_lawful_basis(basis, allowed):
    number = LawfulBasis.Value(f"LAWFUL_BASIS_{basis}")

    assert allowed == {status for status in Status if is_allowed(number, status)}


@pytest.mark.parametrize(
    ("consent", "granted"),
    [
        (None, None),
        (b"{}", None),
        (b"true", None),
        (b'{"categoryPreferences": null}', None),
        (b'{"categoryPreferences": {}}', ()),
        (b'{"categoryPreferences": {"b": true, "a": true, "c": false}}', ("a", "b")),
        (b'{"categoryPreferences": {"a": "true", "b": 1, "": true}}', ()),
    ],
)
def test_only_true_is_a_grant(consent, granted):
    assert granted == granted_categories(consent)


def test_what_is_beyond_the_limit_is_not_granted():
    names = [f"c{number:03}" for number in range(CATEGORIES_GRANTED_MAX + 1)]
    said = ", ".join(f'"{name}": true' for name in names)

    granted = granted_categories(f'{{"categoryPreferences": {{{said}}}}}'.encode())

    assert tuple(names[:CATEGORIES_GRANTED_MAX]) == granted
