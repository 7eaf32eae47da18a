"""What of a profile is compared with others: normalised texts, and the blocks it is in. Pure.

Two profiles are only compared when they share a block: without blocks every profile would meet
every other. A text is normalised so that case, accents and punctuation do not tell two people
apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

from services.identity.identifiers import is_blocked
from services.identity.rules import EMAIL, PHONE
from services.identity.traits import read_object, text_of

COMPARED_CHARACTERS_MAX = 100
# With or without the country: the last digits of a number are its own.
PHONE_DIGITS_COMPARED = 9
PHONE_DIGITS_MIN = 7
# What a form says when nobody filled it in.
BIRTH_DATES_BLOCKED = frozenset({"1900-01-01", "1970-01-01"})

_ADDRESS = "address"
_FULL_NAME = ("name", "full_name", "fullName")

# The traits that tell a field, the first that says something first.
_GIVEN_NAME = ("given_name", "first_name", "firstName", "firstname")
_FAMILY_NAME = ("family_name", "last_name", "lastName", "lastname", "surname")
_BIRTH_DATE = ("birth_date", "birthDate", "birthdate", "birthday", "date_of_birth", "dob")
_STREET = ("street", "street_address", "address_line_1", "address1")
_CITY = ("city", "town")
_POSTAL_CODE = ("postal_code", "postalCode", "postcode", "zip", "zip_code")

TRAITS = (
    *(*_GIVEN_NAME, *_FAMILY_NAME, *_FULL_NAME, EMAIL, PHONE, *_BIRTH_DATE, _ADDRESS),
    *(*_STREET, *_CITY, *_POSTAL_CODE),
)
"""All traits that are read; any other is nobody's to compare."""

_NO_LETTER = re.compile(r"[\W_]+")
_NO_DIGIT = re.compile(r"[^0-9]+", re.ASCII)
_DATE = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})(?![0-9])", re.ASCII)


class Compared(NamedTuple):
    """What a profile tells to be compared; None is what it does not tell."""

    given_name: str | None = None
    family_name: str | None = None
    email: str | None = None
    phone: str | None = None
    birth_date: str | None = None
    street: str | None = None
    city: str | None = None
    postal_code: str | None = None


class Row(NamedTuple):
    """A profile to compare; `named` are pairs it is compared in, whatever blocks it is in."""

    profile: str
    compared: Compared
    named: tuple[str, ...] = ()


def compared_of(
    identifiers: Iterable[tuple[str, str]], traits: Mapping[str, str]
) -> Compared | None:
    """Returns what identifiers and traits, these as JSON, tell of a profile; None is nothing."""
    known = sorted(identifiers)
    texts = {name: text_of(value.encode()) for name, value in traits.items()}
    texts |= _address(traits.get(_ADDRESS, ""))
    given, family = _first(texts, _GIVEN_NAME), _first(texts, _FAMILY_NAME)
    if not given and not family:
        given, family = _parted(_first(texts, _FULL_NAME))
    found = Compared(
        given_name=plain(given),
        family_name=plain(family),
        email=_email([texts.get(EMAIL, ""), *(value for name, value in known if name == EMAIL)]),
        phone=_phone([texts.get(PHONE, ""), *(value for name, value in known if name == PHONE)]),
        birth_date=birth_date(_first(texts, _BIRTH_DATE)),
        street=plain(_first(texts, _STREET)),
        city=plain(_first(texts, _CITY)),
        postal_code=plain(_first(texts, _POSTAL_CODE)),
    )
    return found if any(found) else None


def blocks_of(row: Compared) -> tuple[str | None, ...]:
    """Returns the blocks a row is in, always the same ones in the same order; None is in none."""
    return (
        row.email,
        row.phone,
        row.birth_date,
        row.street,
        # Where too many were born on one day, those of one name still are few.
        _together(row.family_name, row.birth_date),
        _together(row.given_name, row.birth_date),
        _together(row.given_name, row.family_name),
        _together(row.family_name, row.postal_code),
        _together(row.given_name, row.postal_code),
        _together(row.family_name, row.city),
        _together(row.given_name, row.city),
    )


def plain(text: str) -> str | None:
    """Returns a text without what does not tell people apart, or None when nothing is left."""
    spread = unicodedata.normalize("NFKD", text[:COMPARED_CHARACTERS_MAX])
    bare = "".join(character for character in spread if not unicodedata.combining(character))
    told = _NO_LETTER.sub(" ", bare).strip().casefold()
    return told if told and not (is_blocked(told) or is_blocked(text.strip())) else None


def birth_date(text: str) -> str | None:
    """Returns a date of birth as `1815-12-10`, or None when it is none or everybody's."""
    found = _DATE.match(text.strip())
    if found is None:
        return None
    try:
        told = date(*map(int, found.groups())).isoformat()
    except ValueError:
        return None
    return None if told in BIRTH_DATES_BLOCKED else told


def _email(texts: Iterable[str]) -> str | None:
    for text in texts:
        told = text.strip().casefold()
        if "@" in told and len(told) <= COMPARED_CHARACTERS_MAX and not is_blocked(told):
            return told
    return None


def _phone(texts: Iterable[str]) -> str | None:
    for text in texts:
        digits = _NO_DIGIT.sub("", text)
        if len(digits) >= PHONE_DIGITS_MIN and not is_blocked(digits):
            return digits[-PHONE_DIGITS_COMPARED:]
    return None


def _address(value: str) -> dict[str, str]:
    """Returns what an address says part by part; what is no object says nothing."""
    parts = {name: text_of(part) for name, part in read_object(value).items()}
    return {name: text for name, text in parts.items() if text and name in TRAITS}


def _parted(name: str) -> tuple[str, str]:
    """`Ada King Lovelace` → `Ada`, `King Lovelace`; of one word nobody knows what it is."""
    given, _, family = name.strip().partition(" ")
    return (given, family) if family.strip() else ("", "")


def _first(texts: Mapping[str, str], names: Iterable[str]) -> str:
    return next((texts[name] for name in names if texts.get(name)), "")


def _together(one: str | None, other: str | None) -> str | None:
    return f"{one}|{other}" if one and other else None


BLOCKS = len(blocks_of(Compared()))
