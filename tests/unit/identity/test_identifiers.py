"""Two spellings of one value are one identifier, and a value that everybody has is none."""

import pytest

from services.identity.identifiers import identifier, is_blocked, node_of
from services.identity.rules import DEFAULT


@pytest.mark.parametrize(
    ("type_name", "raw", "value"),
    [
        ("email", " Ada@Example.COM ", "ada@example.com"),
        ("phone", "+49 (0)30 / 12-34", "+490301234"),
        ("phone", "030 1234567", "0301234567"),
        ("user_id", " Ada ", "Ada"),
        ("anonymous_id", "a\0b", "ab"),
        ("contact_id", "0", "0"),
        ("contact_id", "guest", "guest"),
    ],
)
def test_a_value_is_normalised(type_name, raw, value):
    assert identifier(DEFAULT, "acme", type_name, raw).value == value


@pytest.mark.parametrize(
    ("type_name", "raw"),
    [
        ("user_id", ""),
        ("user_id", "  "),
        ("user_id", "NULL"),
        ("user_id", "-1"),
        ("user_id", "[object Object]"),
        ("user_id", "0"),
        ("anonymous_id", "00000000-0000-0000-0000-000000000000"),
        ("anonymous_id", "undefined"),
        ("email", "TEST@test.com"),
        ("email", "no address"),
        ("phone", "+00 000 00"),
        ("phone", "1234"),
        ("phone", "call me"),
    ],
)
def test_junk_points_to_nobody(type_name, raw):
    assert identifier(DEFAULT, "acme", type_name, raw) is None


def test_a_value_that_only_contains_a_blocked_one_is_fine():
    assert not is_blocked("guest-17")
    assert not is_blocked("100")
    assert identifier(DEFAULT, "acme", "user_id", "nullo") is not None


def test_a_node_depends_on_workspace_type_and_value():
    nodes = {
        node_of("acme", "user_id", "1"),
        node_of("acme", "anonymous_id", "1"),
        node_of("acme", "user_id", "2"),
        node_of("other", "user_id", "1"),
    }

    assert len(nodes) == 4


def test_a_node_never_changes():
    assert node_of("acme", "email", "ada@example.com") == "9f359c61048b44a7b5bcef3b661970a7"
