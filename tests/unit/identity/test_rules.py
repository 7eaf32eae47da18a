"""Rules are a value: equal ones are the same, and what is wrong with them is said all at once."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.identity.identifiers import identifier
from services.identity.rules import (
    BLOCKED_CHARACTERS_MAX,
    BLOCKED_PATTERNS_MAX,
    BLOCKED_VALUES_MAX,
    CLUSTER_NODES_MAX,
    DEFAULT,
    LIMIT_MAX,
    TYPES_MAX,
    WINDOW_DAYS_MAX,
    IdentifierType,
    Rules,
    check,
)
from services.kernel.errors import InvalidArgument

CONTACT, *OTHERS = DEFAULT.types
LAST = len(DEFAULT.types)


def with_type(**said):
    """The default rules with one more type."""
    return replace(DEFAULT, types=(*DEFAULT.types, IdentifierType("loyalty_id", 2, **said)))


def refused(rules):
    """The fields that are wrong."""
    with pytest.raises(InvalidArgument) as found:
        check(rules)
    return [violation.field for violation in found.value.violations]


def test_equal_rules_are_the_same():
    same = Rules(types=tuple(replace(known) for known in DEFAULT.types))

    assert same == DEFAULT
    assert hash(same) == hash(DEFAULT)
    assert with_type() != DEFAULT


def test_a_type_that_the_rules_do_not_know_is_no_identifier():
    without = replace(DEFAULT, types=tuple(t for t in DEFAULT.types if t.name != "external_id"))

    assert identifier(without, "acme", "loyalty_id", "7") is None
    assert identifier(DEFAULT, "acme", "loyalty_id", "7").value == "7"


@pytest.mark.parametrize(
    "rules",
    [
        DEFAULT,
        replace(DEFAULT, default_region="DE"),
        replace(DEFAULT, nodes_max=1),
        with_type(limit=LIMIT_MAX, window=timedelta(days=WINDOW_DAYS_MAX), hub_over=LIMIT_MAX),
        with_type(blocked_values=frozenset(map(str, range(BLOCKED_VALUES_MAX)))),
        with_type(blocked_patterns=("x" * BLOCKED_CHARACTERS_MAX,) * BLOCKED_PATTERNS_MAX),
        Rules((CONTACT, *(IdentifierType(f"t{n}", n) for n in range(1, TYPES_MAX)))),
    ],
)
def test_rules_may_go_to_the_edge(rules):
    check(rules)


@pytest.mark.parametrize(
    ("rules", "fields"),
    [
        (replace(DEFAULT, default_region="Germany"), ["default_region"]),
        (replace(DEFAULT, nodes_max=0), ["nodes_max"]),
        (replace(DEFAULT, nodes_max=CLUSTER_NODES_MAX + 1), ["nodes_max"]),
        (replace(DEFAULT, types=(CONTACT, *OTHERS, OTHERS[0])), ["types"]),
        (replace(DEFAULT, types=tuple(OTHERS)), ["types"]),
        (replace(DEFAULT, types=(replace(CONTACT, limit=2),)), ["types"]),
        (replace(DEFAULT, types=(CONTACT, IdentifierType("loyalty_id", 0))), ["types"]),
        (
            Rules((CONTACT, *(IdentifierType(f"t{n}", 1) for n in range(TYPES_MAX)))),
            ["types"],
        ),
        (replace(DEFAULT, types=(CONTACT, IdentifierType("Shoe Size", 1))), ["types[1].name"]),
        (
            replace(DEFAULT, types=(CONTACT, IdentifierType("a", TYPES_MAX + 1))),
            ["types[1].rank"],
        ),
        (with_type(limit=0), [f"types[{LAST}].limit"]),
        (with_type(limit=LIMIT_MAX + 1), [f"types[{LAST}].limit"]),
        (with_type(limit=1, window=timedelta(0)), [f"types[{LAST}].window"]),
        (with_type(limit=1, window=timedelta(days=WINDOW_DAYS_MAX + 1)), [f"types[{LAST}].window"]),
        (with_type(window=timedelta(days=1)), [f"types[{LAST}].window"]),
        (with_type(hub_over=0), [f"types[{LAST}].hub_over"]),
        (with_type(hub_over=LIMIT_MAX + 1), [f"types[{LAST}].hub_over"]),
        (
            with_type(blocked_values=frozenset(map(str, range(BLOCKED_VALUES_MAX + 1)))),
            [f"types[{LAST}].blocked_values"],
        ),
        (with_type(blocked_values=frozenset({""})), [f"types[{LAST}].blocked_values"]),
        (
            with_type(blocked_patterns=("*",) * (BLOCKED_PATTERNS_MAX + 1)),
            [f"types[{LAST}].blocked_patterns"],
        ),
        (
            with_type(blocked_patterns=("x" * (BLOCKED_CHARACTERS_MAX + 1),)),
            [f"types[{LAST}].blocked_patterns"],
        ),
        (
            replace(with_type(limit=0, hub_over=0), default_region="D"),
            ["default_region", f"types[{LAST}].limit", f"types[{LAST}].hub_over"],
        ),
    ],
)
def test_all_that_is_wrong_is_said(rules, fields):
    assert refused(rules) == fields
