"""The rules by which identifiers are read and joined: a value that is handed through. Pure.

Profiles are a function of the facts and these. Each workspace has its own; `DEFAULT` are those of
one that never said anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from services.kernel.errors import FieldViolation, InvalidArgument

CLUSTER_NODES_MAX = 1_000
TYPES_MAX = 50
LIMIT_MAX = 1_000
WINDOW_DAYS_MAX = 3_660
BLOCKED_VALUES_MAX = 1_000
BLOCKED_PATTERNS_MAX = 50
BLOCKED_CHARACTERS_MAX = 200

# Of what the rules in force do not know: weaker than any type that they may know.
UNKNOWN_RANK = 1_000_000

CONTACT_ID = "contact_id"
USER_ID = "user_id"
EXTERNAL_ID = "external_id"
EMAIL = "email"
PHONE = "phone"
ANONYMOUS_ID = "anonymous_id"
DEVICE_ID = "device_id"

_TYPE_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")

# What sources send when they have nothing to send, and what people type into a form to get past it.
# Nothing but zeros, in any number and with signs, is blocked beside these.
BLOCKED_VALUES = frozenset(
    {
        "null",
        "none",
        "undefined",
        "nan",
        "anonymous",
        "-1",
        "n/a",
        "test@test.com",
        "[object object]",
        "guest",
    }
)


@dataclass(frozen=True, slots=True)
class IdentifierType:
    """What a type of identifier is worth: rank 0 is the strongest.

    `limit` is how many values of it one person may have; None is any number. With a `window`, only
    values first seen within any span of that length count against it. A value that was seen with
    more than `hub_over` values of one stronger type is shared, and joins nobody. Blocked values,
    and patterns in which `*` is any text and `?` any character, are no identifiers at all; neither
    looks at case. Where values are `numeric`, what a source wrote as `17850.0` is `17850`.
    """

    name: str
    rank: int
    limit: int | None = None
    window: timedelta | None = None
    hub_over: int | None = None
    blocked_values: frozenset[str] = frozenset()
    blocked_patterns: tuple[str, ...] = ()
    is_numeric: bool = False


@dataclass(frozen=True)
class Rules:
    """All rules of a workspace; equal ones are the same.

    What is said of `external_id` holds for each type of external ids that is not among the types. A
    phone number without a country is one of the `default_region`, a code of two letters, if it
    is said. No profile has more than `nodes_max` identifiers.
    """

    types: tuple[IdentifierType, ...]
    default_region: str = ""
    nodes_max: int = CLUSTER_NODES_MAX

    # They are part of the key of what is remembered of each identifier.
    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.types, self.default_region, self.nodes_max))

    @cached_property
    def by_name(self) -> Mapping[str, IdentifierType]:
        """Each type by its name."""
        return {known.name: known for known in self.types}

    @cached_property
    def has_windows(self) -> bool:
        """Whether any type is limited per time."""
        return any(known.window is not None for known in self.types)

    def named(self, type_name: str) -> IdentifierType | None:
        """Returns what these rules say of a type, if they know it."""
        known = self.by_name.get(type_name)
        if known is None and _TYPE_NAME.fullmatch(type_name):
            return self.by_name.get(EXTERNAL_ID)
        return known

    @cached_property
    def unlimited(self) -> frozenset[str]:
        """The types of which one person may have any number of values."""
        return frozenset(known.name for known in self.types if known.limit is None)

    def names(self) -> str:
        """Returns what types there are, in words."""
        of_others = ", any other of external ids" if EXTERNAL_ID in self.by_name else ""
        return ", ".join(self.by_name) + of_others

    def rank(self, type_name: str) -> int:
        """Returns how weak a type is."""
        return self.type_of(type_name).rank

    def rank_if_known(self, type_name: str) -> int:
        """Returns how weak a type is; weaker than all others is one that other rules knew."""
        known = self.named(type_name)
        return UNKNOWN_RANK if known is None else known.rank

    def limit(self, type_name: str) -> int | None:
        """Returns how many values of a type one person may have."""
        return self.type_of(type_name).limit

    def type_of(self, type_name: str) -> IdentifierType:
        """Returns what these rules say of a type that they know."""
        known = self.named(type_name)
        assert known is not None
        return known


DEFAULT = Rules(
    types=(
        IdentifierType(CONTACT_ID, rank=0, limit=1),
        IdentifierType(USER_ID, rank=1, limit=1),
        IdentifierType(EXTERNAL_ID, rank=2, limit=3),
        IdentifierType(EMAIL, rank=3, limit=5, hub_over=2),
        IdentifierType(PHONE, rank=4, limit=3, hub_over=2),
        IdentifierType(ANONYMOUS_ID, rank=5, hub_over=2),
        IdentifierType(DEVICE_ID, rank=6, hub_over=3),
    )
)


def check(rules: Rules) -> None:
    """Raises InvalidArgument with all that is wrong with rules that somebody wrote."""
    found = list(_wrong(rules))
    for number, known in enumerate(rules.types):
        found += [(f"types[{number}].{name}", said) for name, said in _wrong_with(known)]
    if found:
        raise InvalidArgument([FieldViolation(*each) for each in found])


_REGION = re.compile(r"([A-Z]{2})?")
_WINDOW_MAX = timedelta(days=WINDOW_DAYS_MAX)


def _wrong(rules: Rules) -> Iterator[tuple[str, str]]:
    contact = rules.by_name.get(CONTACT_ID)
    if len(rules.types) > TYPES_MAX:
        yield "types", f"are at most {TYPES_MAX}"
    if len(rules.by_name) < len(rules.types):
        yield "types", "have each name once"
    # A record of the CRM is one person, and what it says is said of that one.
    if contact is None or (contact.limit, contact.window, contact.hub_over) != (1, None, None):
        yield "types", f"have {CONTACT_ID}, with limit 1 and neither window nor hub_over"
    elif any(known.rank <= contact.rank for known in rules.types if known is not contact):
        yield "types", f"are all weaker than {CONTACT_ID}"
    if not _REGION.fullmatch(rules.default_region):
        yield "default_region", "is two capital letters, or empty"
    if not 1 <= rules.nodes_max <= CLUSTER_NODES_MAX:
        yield "nodes_max", f"is 1 to {CLUSTER_NODES_MAX}"


def _wrong_with(known: IdentifierType) -> Iterator[tuple[str, str]]:
    if not _TYPE_NAME.fullmatch(known.name):
        yield "name", "is lower-case letters, digits, _ and ., at most 64, a letter first"
    if not 0 <= known.rank <= TYPES_MAX:
        yield "rank", f"is 0 to {TYPES_MAX}"
    if known.limit is not None and not 1 <= known.limit <= LIMIT_MAX:
        yield "limit", f"is 1 to {LIMIT_MAX}, or not said"
    if known.window is not None and not timedelta(0) < known.window <= _WINDOW_MAX:
        yield "window", f"is longer than nothing, and at most {WINDOW_DAYS_MAX} days"
    if known.window is not None and known.limit is None:
        yield "window", "needs a limit"
    if known.hub_over is not None and not 1 <= known.hub_over <= LIMIT_MAX:
        yield "hub_over", f"is 1 to {LIMIT_MAX}, or not said"
    for name, values, most in (
        ("blocked_values", known.blocked_values, BLOCKED_VALUES_MAX),
        ("blocked_patterns", known.blocked_patterns, BLOCKED_PATTERNS_MAX),
    ):
        if len(values) > most:
            yield name, f"are at most {most}"
        if any(not 1 <= len(value) <= BLOCKED_CHARACTERS_MAX for value in values):
            yield name, f"have 1 to {BLOCKED_CHARACTERS_MAX} characters each"
