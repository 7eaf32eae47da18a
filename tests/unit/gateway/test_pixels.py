"""A picture's query is read as the body of a call."""

from __future__ import annotations

import base64

import orjson
import pytest

from gateway.pixels import DEPTH_MAX, GIF, read_query
from services.kernel.errors import InvalidArgument

OPENED = {"userId": "u1", "event": "E-Mail Opened", "properties": {"campaign": "ä>?~"}}


def packed(document, *, encode=base64.urlsafe_b64encode, padded=True):
    text = encode(orjson.dumps(document)).decode()
    return text if padded else text.rstrip("=")


def test_it_is_a_picture():
    assert GIF.startswith(b"GIF89a")
    assert int.from_bytes(GIF[6:8], "little") == int.from_bytes(GIF[8:10], "little") == 1


@pytest.mark.parametrize("encode", [base64.urlsafe_b64encode, base64.b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_data_may_be_in_either_alphabet_and_without_padding(encode, padded):
    data = packed(OPENED, encode=encode, padded=padded)

    assert read_query("track", [("data", data)]) == OPENED
    assert read_query("track", [("data", data.replace("+", " "))]) == OPENED


def test_plain_parameters_are_read_with_dots_as_objects():
    query = [
        ("userId", "u1"),
        ("event", "Opened"),
        ("properties.sku", "X1"),
        ("context.campaign.name", "spring"),
        ("context.campaign.medium", "mail"),
    ]

    assert read_query("track", query) == {
        "userId": "u1",
        "event": "Opened",
        "properties": {"sku": "X1"},
        "context": {"campaign": {"name": "spring", "medium": "mail"}},
    }


@pytest.mark.parametrize(("call", "where"), [("track", "properties"), ("identify", "traits")])
def test_a_parameter_that_nobody_knows_is_kept(call, where):
    assert read_query(call, [("plan", "gold")]) == {where: {"plan": "gold"}}


def test_what_the_data_says_is_not_said_otherwise():
    query = [("data", packed(OPENED)), ("userId", "u2"), ("groupId", "g1"), ("event.x", "y")]

    assert read_query("track", query) == OPENED | {"groupId": "g1"}


def test_a_path_of_dots_leads_only_so_deep():
    document = read_query("track", [("context." + "a." * 5000 + "b", "x")])

    depth = 0
    while isinstance(document, dict):
        document, depth = next(iter(document.values())), depth + 1
    assert depth == DEPTH_MAX + 1


@pytest.mark.parametrize("data", ["&", "e30x.", "\xe9", "bm8gSlNPTg", "W10"])
def test_data_that_is_no_json_object_is_refused(data):
    with pytest.raises(InvalidArgument) as raised:
        read_query("track", [("data", data)])

    assert raised.value.violations[0].reason in {"invalid_data", "invalid_json"}
