"""Whoever is named by an identifier, however it is spelled, is known by value and by hash."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.kernel.erasing.subjects import Erasure, FactKey, Subject, hash_of, normal_form

KEY = b"a key of a workspace"
MOMENT = datetime(2026, 11, 1, tzinfo=UTC)


def subject(*identifiers, hashes=()):
    return Subject.of("acme", KEY, identifiers, hashes)


@pytest.mark.parametrize(
    ("type_name", "one", "other"),
    [
        ("email", "ada@example.org", "  ADA@Example.ORG "),
        ("email", "ada@münchen.example", "ada@xn--mnchen-3ya.example"),
        ("phone", "+49 30 123456", "0049-30-123456"),
        ("phone", "030/123456", "(30) 12 34 56"),
        ("user_id", "u1", " u1\0"),
    ],
)
def test_spellings_of_one_identifier_are_one(type_name, one, other):
    known = subject((type_name, one))
    hashed = subject(hashes=[hash_of(KEY, type_name, normal_form(type_name, one))])

    assert known.has(type_name, other)
    assert hashed.has(type_name, other)


@pytest.mark.parametrize(
    ("type_name", "raw"),
    [("email", "eve@example.org"), ("user_id", "ada@example.org"), ("phone", ""), ("email", "  ")],
)
def test_nobody_else_is_named(type_name, raw):
    known = subject(("email", "ada@example.org"), ("phone", "zero"), ("user_id", " "))

    assert not known.has(type_name, raw)
    assert not subject(hashes=known.hashes).has(type_name, raw)
    assert {("email", "ada@example.org")} == known.forms


def test_other_workspaces_have_other_hashes():
    hashes = {hash_of(key, "email", "ada@example.org") for key in (KEY, b"another")}

    assert 2 == len(hashes)


def test_a_value_that_is_not_known_by_its_form_makes_it_a_search_by_hash():
    known = subject(("email", "ada@example.org"))
    more = subject(("email", "ada@example.org"), hashes=["0" * 32])

    assert (True, False) == (known.is_by_value, more.is_by_value)


def test_an_erasure_covers_what_came_up_to_its_key():
    erasure = Erasure("erasures/1", subject(), FactKey(MOMENT, UUID(int=5)))
    moments = [MOMENT - timedelta(microseconds=1), MOMENT, MOMENT + timedelta(microseconds=1)]
    covered = [erasure.covers(moment, UUID(int=i)) for moment in moments for i in (4, 5, 6)]

    assert [True, True, True, True, True, False, False, False, False] == covered
