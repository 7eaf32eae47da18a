"""Two spellings of one value are one identifier, and a value that everybody has is none."""

from dataclasses import replace

import pytest

from services.identity.asking import spellings
from services.identity.identifiers import (
    VALUE_CHARACTERS_MAX,
    identifier,
    is_blocked,
    national_number,
    node_of,
)
from services.identity.rules import DEFAULT, IdentifierType
from services.kernel.erasing.subjects import Subject


@pytest.mark.parametrize(
    ("type_name", "raw", "value"),
    [
        ("email", " Ada@Example.COM ", "ada@example.com"),
        ("email", "ada@Bücher.example", "ada@xn--bcher-kva.example"),
        ("email", "ada@xn--BCHER-kva.example", "ada@xn--bcher-kva.example"),
        ("email", "Ada@bad_.ü", "ada@bad_.ü"),
        ("phone", "+49 (0)30 1234-567", "+49301234567"),
        ("phone", "+1 (415) 555-2671 ext. 5", "+14155552671"),
        ("phone", "030 1234567", "0301234567"),
        ("phone", "+999 1234 5678", "+99912345678"),
        ("phone", "+49 301", "+49301"),
        ("device_id", "AEBE52E7-03EE", "AEBE52E7-03EE"),
        ("loyalty.card", "17850.0", "17850.0"),
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
        ("phone", "+49 000 0000"),
        ("user_id", "x" * (VALUE_CHARACTERS_MAX + 1)),
        ("device_id", "00000000-0000-0000-0000-000000000000"),
        ("loyalty_id", "N/A"),
        ("Shoe Size", "43"),
        ("phone", "1234"),
        ("phone", "call me"),
    ],
)
def test_junk_points_to_nobody(type_name, raw):
    assert identifier(DEFAULT, "acme", type_name, raw) is None


def with_type(name, **said):
    """The default rules, which say something else of one type."""
    types = [known for known in DEFAULT.types if known.name != name]
    return replace(DEFAULT, types=(*types, IdentifierType(name, 2, **said)))


def test_a_phone_number_without_a_country_is_one_of_the_default_region():
    german = replace(DEFAULT, default_region="DE")
    found = [
        identifier(german, "acme", "phone", raw)
        for raw in ("030 1234567", "+49 30 1234567", "0049 (30) 123-4567")
    ]

    assert {"+49301234567"} == {known.value for known in found}
    assert identifier(german, "acme", "phone", "030 123456789012345").value == "030123456789012345"


def test_the_longest_value_that_points_to_somebody():
    assert identifier(DEFAULT, "acme", "user_id", "x" * VALUE_CHARACTERS_MAX) is not None


@pytest.mark.parametrize(
    ("raw", "is_live"),
    [
        ("Kiosk", False),
        ("test-", False),
        ("TEST-17", False),
        ("a test-17", True),
        ("x1y", False),
        ("x12y", True),
        ("[q]", False),
        ("q", True),
        ("kiosk 2", True),
    ],
)
def test_a_workspace_blocks_values_and_patterns_of_a_type(raw, is_live):
    rules = with_type(
        "user_id", blocked_values=frozenset({"KIOSK"}), blocked_patterns=("test-*", "X?y", "[q]")
    )

    assert is_live == (identifier(rules, "acme", "user_id", raw) is not None)
    assert identifier(rules, "acme", "anonymous_id", raw) is not None


def test_a_pattern_that_would_take_for_ever_elsewhere_does_not_here():
    rules = with_type("user_id", blocked_patterns=("*a" * 50 + "b",))

    assert identifier(rules, "acme", "user_id", "a" * VALUE_CHARACTERS_MAX) is not None


@pytest.mark.parametrize(
    ("raw", "value"), [("17850.0", "17850"), ("-3.00", "-3"), ("1.5", "1.5"), ("v1.0", "v1.0")]
)
def test_a_whole_number_has_no_fraction_where_the_rules_say_so(raw, value):
    rules = with_type("user_id", is_numeric=True)

    assert identifier(rules, "acme", "user_id", raw).value == value


def test_what_the_rules_say_of_external_ids_holds_for_types_they_do_not_name():
    rank = DEFAULT.named("external_id").rank
    found = identifier(DEFAULT, "acme", "braze_id", "b1")

    assert (rank, "braze_id", "b1") == (found.rank, found.type, found.value)
    assert DEFAULT.limit("braze_id") == DEFAULT.limit("external_id")


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


@pytest.mark.parametrize(
    ("region", "value", "national"),
    [
        ("DE", "+493012345678", "3012345678"),
        ("DE", "+442079460000", None),
        ("", "+493012345678", None),
        ("DE", "3012345678", None),
        ("DE", "+", None),
    ],
)
def test_a_number_of_the_own_region_is_also_written_without_its_country(region, value, national):
    rules = replace(DEFAULT, default_region=region)

    assert national == national_number(rules, value)


def test_a_system_that_knows_no_region_is_told_both_spellings_of_a_number():
    rules = replace(DEFAULT, default_region="DE")
    asked = [("phone", "+493012345678"), ("email", "ada@example.org")]
    raw = subject_of(spellings(rules, asked))

    assert raw.is_named([("phone", "030/1234 5678")])
    assert not subject_of(asked).is_named([("phone", "030/1234 5678")])


def subject_of(identifiers):
    return Subject.of("acme", b"a key", identifiers)
