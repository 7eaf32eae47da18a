"""CEL expressions over a customer event: which ones are taken, and their values. Pure.

They see `type`, `name`, `user_id`, `anonymous_id`, `previous_id`, `group_id`, `properties`,
`traits` and `context`. An expression is evaluated while somebody waits, so what it may cost on a
customer event of the largest size is bounded when it is compiled: by its length; by one walk of a
list at the most (`all`, `exists`, `exists_one`), of no more than LIST_ITEMS_MAX items; without
`map` and `filter`, which copy what they build at each step; and by regular expressions that are
written out and small.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import cel

from services.events.plan_schemas import SchemaError, compiled_schema

EXPRESSION_CHARACTERS_MAX = 1_000
LIST_ITEMS_MAX = 100
"""Of the longest list or object that an expression may walk."""
MATCHES_MAX = 5
"""Regular expressions in one expression; none where a list is walked."""
PATTERN_BYTES_MAX = 20_000
"""What one of them may take: they are compiled each time."""

VARIABLES = (
    "type",
    "name",
    "user_id",
    "anonymous_id",
    "previous_id",
    "group_id",
    "properties",
    "traits",
    "context",
)

_OWN: Mapping[str, Callable[[Any], Any]] = {
    "lowerAscii": lambda value: value.lower() if isinstance(value, str) else value,
    "upperAscii": lambda value: value.upper() if isinstance(value, str) else value,
    "trim": lambda value: value.strip() if isinstance(value, str) else value,
}
"""Functions beside CEL's; what is no text they leave as it is."""
_FUNCTIONS = frozenset(_OWN) | {
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
}
_WALK = re.compile(r"\b(?:all|exists|exists_one|existsOne)\b")
_BUILDER = re.compile(r"\b(?:map|filter)\b\s*(?:\(|/)")
_BOUND = re.compile(r"\b(?:all|exists|exists_one|existsOne)\s*\(\s*([A-Za-z_]\w*)\s*,")
_MATCHES = re.compile(r"\bmatches\b")
_LITERAL_PATTERN = re.compile(
    r"\bmatches\(\s*(?:r'([^']*)'|r\"([^\"]*)\"|'([^'\\]*)'|\"([^\"\\]*)\")\s*\)"
)
_OBJECTS = ("properties", "traits", "context")
_MEMBER = re.compile(r"\s*\.\s*([A-Za-z_]\w*)\b(?!\s*\()")
_OPERATOR = re.compile(r"[^A-Za-z].*")


class ExpressionError(ValueError):
    """When an expression may not be used, or has no value for a customer event; says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `variables` are what it reads: of an object the members that it names, or None for all of it.
    Only that is handed to the library, which takes its time with each value.
    """

    program: cel.Program | None
    variables: Mapping[str, frozenset[str] | None]
    functions: Mapping[str, Callable[[Any], Any]]
    walks: bool
    fault: str = ""

    def value(self, seen: Mapping[str, Any]) -> Any:
        """Its value as JSON, `seen` being the variables; ExpressionError when it has none."""
        if self.program is None:
            raise ExpressionError(self.fault)
        variables = {
            name: seen[name] if members is None else _part(seen[name], members)
            for name, members in self.variables.items()
        }
        if self.walks and any(_longest(value) > LIST_ITEMS_MAX for value in variables.values()):
            raise ExpressionError(f"there is a list of more than {LIST_ITEMS_MAX} items")
        try:
            found = self.program.execute(
                cel.Context(variables=variables, functions=dict(self.functions))
                if self.functions
                else variables
            )
        except KeyError as error:
            raise ExpressionError(f"there is no {error.args[0]}") from None
        except Exception as error:  # noqa: BLE001, the library raises a dozen kinds
            raise ExpressionError(type(error).__name__) from None
        return as_json(found)

    def holds(self, seen: Mapping[str, Any]) -> bool:
        """Whether its value is true; ExpressionError when it is neither true nor false."""
        found = self.value(seen)
        if not isinstance(found, bool):
            raise ExpressionError("it is neither true nor false")
        return found


def accepted_expression(text: str) -> Expression:
    """An expression that was accepted once; should it no longer be, it never has a value."""
    try:
        return compiled_expression(text)
    except ExpressionError as error:
        return Expression(None, {}, {}, walks=False, fault=str(error))


def compiled_expression(text: str) -> Expression:
    """An expression that may be used, else ExpressionError."""
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        raise ExpressionError(f"is longer than {EXPRESSION_CHARACTERS_MAX} characters")
    try:
        program = cel.compile(text)
    except Exception as error:  # noqa: BLE001, the library raises a dozen kinds
        raise ExpressionError(f"is no CEL: {error}"[:300]) from None
    _check_walks(text)
    _check_patterns(text)
    functions = {name for name in program.functions() if not _OPERATOR.fullmatch(name)}
    if unknown := sorted(functions - _FUNCTIONS):
        raise ExpressionError(f"there is no function {unknown[0]}")
    variables = frozenset(program.variables())
    if unknown := sorted(variables.difference(VARIABLES, _BOUND.findall(text))):
        raise ExpressionError(f"there is no {unknown[0]}; there are {', '.join(VARIABLES)}")
    return Expression(
        program=program,
        variables={name: _members(name, text) for name in variables.intersection(VARIABLES)},
        functions={name: _OWN[name] for name in functions & _OWN.keys()},
        walks=_WALK.search(text) is not None,
    )


def as_json(value: Any) -> Any:
    """A value of CEL as JSON; times are texts. ExpressionError when it is none."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: as_json(item) for key, item in value.items()}
    raise ExpressionError(f"a {type(value).__name__} is no JSON")


def _members(name: str, text: str) -> frozenset[str] | None:
    """The members of an object that an expression names, None unless it reads nothing else of it.

    By the text alone: what is within a literal at worst names a member too many.
    """
    if name not in _OBJECTS:
        return None
    read = [_MEMBER.match(text, word.end()) for word in re.finditer(rf"\b{name}\b", text)]
    return frozenset(found[1] for found in read if found) if all(read) else None


def _part(whole: Mapping[str, Any], members: frozenset[str]) -> dict[str, Any]:
    return {name: whole[name] for name in members if name in whole}


def _check_walks(text: str) -> None:
    """By the words alone, wherever they stand, so that no way of writing gets around it."""
    if _BUILDER.search(text):
        raise ExpressionError("map and filter are not understood")
    if len(_WALK.findall(text)) > 1:
        raise ExpressionError("at most one of all, exists and exists_one may be used")


def _check_patterns(text: str) -> None:
    literals = [a or b or c or d for a, b, c, d in _LITERAL_PATTERN.findall(text)]
    if len(literals) != len(_MATCHES.findall(text)):
        raise ExpressionError("matches needs a regular expression that is written out: r'...'")
    if len(literals) > MATCHES_MAX:
        raise ExpressionError(
            f"matches is used more than MATCHES_MAX times, which is {MATCHES_MAX}"
        )
    if literals and _WALK.search(text):
        raise ExpressionError("matches may not be used together with all, exists or exists_one")
    for literal in literals:
        try:
            compiled_schema({"pattern": literal}, pattern_bytes_max=PATTERN_BYTES_MAX)
        except SchemaError:
            raise ExpressionError(
                f"the regular expression {literal} is wrong, or too large"[:300]
            ) from None


def _longest(value: Any) -> int:
    """The length of the longest list or object in a JSON value."""
    longest, level = 0, [value]
    while level:
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict | list):
                longest = max(longest, len(each))
                inner += each.values() if isinstance(each, dict) else each
        level = inner
    return longest
