"""Whoever is suppressed is recognised wherever and however a source names them."""

import json

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from services.events.schema import open_event
from services.events.suppressed import TYPES, hash_of, hashes_of, identifiers_of, normalised

KEY = b"the key of a workspace"
GROUP = CustomerEventType.CUSTOMER_EVENT_TYPE_GROUP
ALIAS = CustomerEventType.CUSTOMER_EVENT_TYPE_ALIAS


def opened(**fields):
    said = {"type": CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY, "anonymous_id": "somebody"}
    for name in ("properties", "traits", "context"):
        if name in fields:
            fields[name] = json.dumps(fields[name])
    return open_event(CustomerEvent(**said | fields))


def is_recognised(type_name, value, **fields):
    return hash_of(KEY, type_name, value) in hashes_of(KEY, identifiers_of(opened(**fields)))


@pytest.mark.parametrize(
    ("type_name", "value", "fields"),
    [
        ("user_id", "u-1", {"user_id": "u-1"}),
        ("user_id", "u-1", {"user_id": " u-1 "}),
        ("anonymous_id", "a-1", {"anonymous_id": "a-1"}),
        ("user_id", "u-1", {"type": ALIAS, "previous_id": "u-1"}),
        ("anonymous_id", "a-1", {"type": ALIAS, "previous_id": "a-1"}),
        ("group_id", "g-1", {"type": GROUP, "group_id": "g-1"}),
        ("group_id", "g-1", {"context": {"groupId": "g-1"}}),
        ("email", "ada@x.org", {"traits": {"email": " Ada@X.org "}}),
        ("email", "Ada@X.ORG", {"context": {"traits": {"email": "ada@x.org"}}}),
        ("email", "ada@x.org", {"properties": {"email": "ada@x.org"}}),
        ("email", "ada@x.org", {"properties": {"Email": "ada@x.org"}}),
        ("email", "ada@x.org", {"properties": {"customer": {"emailAddress": "ada@x.org"}}}),
        ("email", "ada@x.org", {"traits": {"contacts": [[{"email": "ada@x.org"}]]}}),
        ("phone", "+49 170 123-45", {"traits": {"phone": "0049(170)12345"}}),
        ("phone", "+4917012345", {"traits": {"phone": 4917012345}}),
        ("phone", "+4917012345", {"traits": {"phone": 4917012345.0}}),
        ("phone", "4917012345", {"traits": {"address": {"phoneNumber": "+49 170 12345"}}}),
        ("user_id", "7", {"properties": {"userId": 7}}),
        ("user_id", "u-1", {"traits": {"user_id": "u-1"}}),
        ("anonymous_id", "a-1", {"context": {"traits": {"anonymousId": "a-1"}}}),
        (
            "phone",
            "+4917012345",
            {"context": {"externalIds": [{"type": "phone", "id": 4917012345}]}},
        ),
        ("email", "a@x.org", {"context": {"externalIds": [7, {"type": "email", "id": "a@x.org"}]}}),
    ],
)
def test_an_identifier_is_recognised(type_name, value, fields):
    assert is_recognised(type_name, value, **fields)


@pytest.mark.parametrize(
    ("type_name", "value", "fields"),
    [
        ("user_id", "U-1", {"user_id": "u-1"}),
        ("anonymous_id", "u-1", {"user_id": "u-1", "anonymous_id": ""}),
        ("email", "ada@x.org", {"traits": {"email": "ada@y.org"}}),
        ("email", "ada@x.org", {"properties": {"text": "ada@x.org"}}),
        ("phone", "1", {"traits": {"phone": True}}),
        ("phone", "12", {"traits": {"phone": 1.2}}),
        ("user_id", "7", {"properties": {"userId": None}}),
        ("email", "a@x.org", {"context": {"externalIds": {"type": "email", "id": "a@x.org"}}}),
        ("email", "a@x.org", {"context": {"externalIds": [{"id": "a@x.org"}]}}),
    ],
)
def test_somebody_else_is_not(type_name, value, fields):
    assert not is_recognised(type_name, value, **fields)


def test_what_is_no_identifier_has_no_hash():
    blank = opened(user_id=" ", traits={"email": "", "phone": "none"})

    assert {hash_of(KEY, "anonymous_id", "somebody")} == hashes_of(KEY, identifiers_of(blank))


def test_a_hash_tells_nothing_and_belongs_to_one_key_and_type():
    hashes = {hash_of(key, name, "ada@x.org") for key in (KEY, b"another") for name in TYPES[:3]}

    assert 6 == len(hashes)
    assert all(set(each) <= set("0123456789abcdef") and len(each) == 32 for each in hashes)


def test_nothing_is_left_of_a_phone_number_without_digits():
    assert "" == normalised("phone", "+ (none)") == normalised("phone", "000")
