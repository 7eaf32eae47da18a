"""What a request says in its path, query, headers and body is one message, or a named mistake."""

from __future__ import annotations

import re

import orjson
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from gateway.json_requests import read_object, read_query, request_of, say, to_json
from rapport.contacts.v1 import service_pb2 as contacts
from rapport.deals.v1 import service_pb2 as deals
from services.kernel.errors import InvalidArgument

OPEN_DEAL = deals.OpenDealRequest.DESCRIPTOR


def opened(said) -> deals.OpenDealRequest:
    request = deals.OpenDealRequest()
    request_of(request, said)
    return request


def mistake(of) -> tuple[str, str]:
    with pytest.raises(InvalidArgument) as raised:
        of()
    [violation] = raised.value.violations
    return violation.field, violation.description


def test_json_becomes_a_request():
    request = opened(
        {
            "displayName": "Big one",
            "amount": {"amountMinor": "12345678901234", "currency": "EUR"},
            "expectedCloseTime": "2026-01-02T03:04:05Z",
            "custom_fields": {"color": "red"},
        }
    )

    assert request.display_name == "Big one"
    assert request.amount.amount_minor == 12345678901234
    assert request.expected_close_time.seconds == 1767323045
    assert dict(request.custom_fields) == {"color": "red"}


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"colour": 1}, "colour"),
        ({"amount": {"cents": 1}}, "amount.cents"),
        ({"amount": {"amountMinor": "much"}}, "amount.amountMinor"),
        ({"amount": 3}, "amount"),
        ({"displayName": 5}, "displayName"),
        ({"expectedCloseTime": "tomorrow"}, "expectedCloseTime"),
        ({"expectedCloseTime": "2026-13-01T00:00:00Z"}, "expectedCloseTime"),
        ({"amount": {"amountMinor": "9" * 20}}, "amount.amountMinor"),
        ({"displayName": "a", "display_name": "b"}, "displayName"),
        ({"amount": {"amountMinor": 1, "amount_minor": 2}}, "amount.amountMinor"),
        ({"customFields": 5}, "customFields"),
    ],
)
def test_a_mistake_is_named_and_the_schema_is_not_recited(said, field):
    named, why = mistake(lambda: opened(said))

    assert named == field
    assert why
    assert "Available" not in why
    assert "rapport." not in why
    assert not re.search("%|strptime|int|literal|object is|parse|bytes", why)


def test_query_parameters_reach_every_kind_of_field():
    said = read_query(
        OPEN_DEAL,
        [
            ("display_name", "x"),
            ("amount.amountMinor", "5"),
            ("amount.currency", "EUR"),
            ("expectedCloseTime", "2026-01-02T03:04:05Z"),
            ("customFields.color", "red"),
            ("customFields.a.b", "c"),
        ],
    )
    request = opened(said)

    assert (request.display_name, request.amount.amount_minor) == ("x", 5)
    assert request.expected_close_time.seconds == 1767323045
    assert dict(request.custom_fields) == {"color": "red", "a.b": "c"}


def test_truth_is_a_word():
    descriptor = contacts.ListContactsRequest.DESCRIPTOR

    assert read_query(descriptor, [("showArchived", "TRUE")]) == {"showArchived": True}
    assert mistake(lambda: read_query(descriptor, [("showArchived", "1")]))[0] == "showArchived"


@pytest.mark.parametrize(
    "pairs",
    [
        [("colour", "1")],
        [("displayName.x", "1")],
        [("amount.cents", "1")],
        [("displayName", "a"), ("display_name", "b")],
        [("customFields", "a")],
        [("customFields.a", "b"), ("custom_fields", "a")],
        [("amount.currency", "EUR"), ("amount", "a")],
        [("amount", "a"), ("amount.currency", "EUR")],
    ],
)
def test_a_parameter_that_means_nothing_is_named(pairs):
    assert mistake(lambda: read_query(OPEN_DEAL, pairs))[0] == pairs[-1][0]


def test_repeated_parameters_make_a_list():
    said = read_query(FieldMask.DESCRIPTOR, [("paths", "a"), ("paths", "b")])

    assert said == {"paths": ["a", "b"]}


def test_path_and_body_agree_or_the_body_is_silent():
    field = OPEN_DEAL.fields_by_name["display_name"]

    for before in ({}, {"displayName": "x"}, {"display_name": "x"}, {"displayName": ""}):
        said = dict(before)
        say(said, field, "x")
        assert said == {"display_name": "x"}
    assert mistake(lambda: say({"displayName": "y"}, field, "x"))[0] == "display_name"


def test_an_empty_body_says_nothing():
    assert read_object(b" \n") == {}


@pytest.mark.parametrize("body", [b"{", b"[]", b"5", b"\xff"])
def test_a_body_is_an_object(body):
    mistake(lambda: read_object(body))


def test_an_answer_says_what_is_empty_too():
    told = orjson.loads(to_json(contacts.ListContactsResponse()))

    assert told == {"contacts": [], "nextPageToken": ""}
