"""By which identifiers a customer event names a person, wherever in it."""

import json

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from services.events.naming import named_in, named_in_row, names
from services.events.schema import open_event
from services.kernel.erasing.subjects import Subject, hash_key_of

KEY = hash_key_of(str.encode, "acme")


def subject(**identifiers):
    return Subject.of("acme", KEY, identifiers.items())


def by_hashes(known):
    """The same person, when nobody knows the values any more."""
    return Subject.of("acme", KEY, (), known.hashes)


def event(**fields):
    objects = {name: json.dumps(value) for name, value in fields.items() if isinstance(value, dict)}
    return CustomerEvent(type=1, name="Seen", **{"anonymous_id": "nobody"} | fields | objects)


@pytest.mark.parametrize(
    ("identifiers", "sent"),
    [
        ({"user_id": "u-1"}, {"user_id": " u-1 "}),
        ({"anonymous_id": "a-1"}, {"anonymous_id": "a-1"}),
        ({"user_id": "u-1"}, {"previous_id": "u-1"}),
        ({"anonymous_id": "a-1"}, {"previous_id": "a-1"}),
        ({"email": "Ada@Example.org"}, {"traits": {"email": "ada@example.ORG"}}),
        (
            {"email": "ada@example.org"},
            {"properties": {"to": [{"Email_Address": "ADA@example.org"}]}},
        ),
        ({"phone": "+49 151 1234"}, {"context": {"traits": {"phone": "0049-151-1234"}}}),
        ({"phone": "491511234"}, {"traits": {"phoneNumber": 491511234}}),
        ({"email": "ada@example.org"}, {"traits": {"emails": ["eve@b.de", "ada@example.org"]}}),
        ({"phone": "+49 151 1234"}, {"traits": {"phone": [{"x": 1}, "0049 151 1234"]}}),
        ({"user_id": "17850"}, {"properties": {"userId": 17850.0}}),
        ({"device_id": "d-1"}, {"context": {"device": {"id": "d-1"}}}),
        (
            {"loyalty_id": "l-1"},
            {"context": {"externalIds": [{"type": "loyalty_id", "id": "l-1"}]}},
        ),
        ({"loyalty_id": "l-1"}, {"traits": {"Loyalty_Id": "l-1"}}),
        ({"email": "a@b.de"}, {"context": {"externalIds": [{"type": "email", "id": "a@b.de"}]}}),
    ],
)
def test_a_person_is_found_wherever_an_event_names_them(identifiers, sent):
    known, found = subject(**identifiers), event(**sent)
    opened = open_event(found)

    assert names(known, found)
    assert names(by_hashes(known), found)
    assert known.is_named(named_in(opened))


@pytest.mark.parametrize(
    "sent",
    [
        {"user_id": "u-10"},
        {"group_id": "u-1"},
        {"properties": {"note": "u-1", "count": 1}},
        {"traits": {"email": "u-1"}},
        {"context": {"externalIds": "u-1"}},
    ],
)
def test_who_is_called_something_else_is_somebody_else(sent):
    assert not names(subject(user_id="u-1"), event(**sent))
    assert not names(by_hashes(subject(user_id="u-1")), event(**sent))


def test_a_row_names_a_person_by_its_columns_and_by_any_mail_address():
    known = subject(user_id="u-1", email="ada@example.org")

    assert known.is_named(named_in_row({"userId": "u-1", "score": 1}))
    assert known.is_named(named_in_row({"Contact Mail": "Ada@example.org"}))
    assert not known.is_named(named_in_row({"who": "u-1", "score": 1}))
