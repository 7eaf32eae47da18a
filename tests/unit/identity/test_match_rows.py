"""A profile is compared by what it tells, however spelt, with those it shares a block with."""

import json

import pytest

from services.identity.match_rows import (
    COMPARED_CHARACTERS_MAX,
    TRAITS,
    Compared,
    birth_date,
    blocks_of,
    compared_of,
    plain,
)


def told(*identifiers, **traits):
    return compared_of(identifiers, {name: json.dumps(value) for name, value in traits.items()})


def test_names_are_known_by_whatever_a_source_calls_them():
    expected = Compared(given_name="ada", family_name="lovelace")

    assert expected == told(given_name="Ada", family_name="Lovelace")
    assert expected == told(firstName="ADA", lastName="Lovelace ")
    assert expected == told(first_name="Ada", surname="lovelace")
    assert expected == told(name="Ada Lovelace")


def test_the_first_word_of_a_name_is_the_given_one_and_a_single_word_is_nobodys():
    found = told(name="Ada King Lovelace")

    assert ("ada", "king lovelace") == (found.given_name, found.family_name)
    assert told(name="Ada") is None


def test_accents_case_and_punctuation_tell_nobody_apart():
    assert "jose o neill" == plain("José O'Neill")
    assert "strasse 1 a" == plain("STRASSE 1/a".lower())
    assert "李" == plain(" 李 ")


@pytest.mark.parametrize("text", ["", "  ", "-", "n/a", "null", "Undefined", "0000"])
def test_what_says_nothing_is_not_compared(text):
    assert plain(text) is None


def test_a_text_is_compared_up_to_a_length():
    assert "x" * COMPARED_CHARACTERS_MAX == plain("x" * COMPARED_CHARACTERS_MAX)
    assert "x" * COMPARED_CHARACTERS_MAX == plain("x" * COMPARED_CHARACTERS_MAX + "y")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1815-12-10", "1815-12-10"),
        ("18151210", "1815-12-10"),
        ("1815-12-10T08:00:00Z", "1815-12-10"),
        ("1815-13-10", None),
        ("181512101", None),
        ("10.12.1815", None),
        ("1900-01-01", None),
        ("1970-01-01", None),
    ],
)
def test_a_date_of_birth_is_one_that_can_be_read_and_is_not_everybodys(text, expected):
    assert expected == birth_date(text)


def test_a_number_of_eight_digits_is_a_date_too():
    assert "1815-12-10" == told(birthday=18151210).birth_date


def test_a_phone_number_is_the_same_with_and_without_its_country():
    at_home, abroad = told(phone="020 7946 0001"), told(phone="+44 20 7946 0001")

    assert at_home == abroad == Compared(phone="079460001")
    assert told(phone="12 34 56") is None
    assert told(phone="000 000 000") is None


def test_what_was_last_said_of_an_address_comes_before_the_identifiers():
    known = ("email", "old@x.com"), ("email", "a@x.com")

    assert "new@x.com" == told(*known, email="New@X.com").email
    assert "a@x.com" == told(*known).email
    assert told(("email", "test@test.com")) is None
    assert told(("anonymous_id", "a1")) is None


def test_an_address_is_told_as_a_whole_or_in_parts():
    expected = Compared(street="12 st james s square", city="london", postal_code="sw1y 4le")

    whole = {"street": "12 St James's Square", "city": "London", "postalCode": "SW1Y-4LE"}
    assert expected == told(address=whole)
    assert expected == told(**whole)
    assert told(address="12 St James's Square") is None


@pytest.mark.parametrize("trait", TRAITS)
def test_every_trait_that_is_read_says_something(trait):
    value = "1815-12-10 x@y"

    assert told(**{trait: {"city": "London"} if trait == "address" else value})


def test_no_other_trait_says_anything():
    assert told(plan="gold") is None


def test_who_tells_nothing_is_in_no_block():
    assert set(blocks_of(Compared())) == {None}


def test_a_block_needs_all_that_it_is_made_of():
    family = Compared(family_name="lovelace")
    both = Compared(family_name="lovelace", city="london")

    assert set(blocks_of(family)) == {None}
    assert {None, "lovelace|london"} == set(blocks_of(both))
