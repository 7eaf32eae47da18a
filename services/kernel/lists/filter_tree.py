"""A filter as a tree, how it is written, and how it can be wrong; knows no field and no database.

`str(tree)` writes a tree so that parsing it gives an equal tree; equal trees have one text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from services.kernel.errors import FieldViolation, InvalidArgument, Reason

KEYWORDS = ("AND", "OR", "NOT")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "*": "*"}

_WRITTEN = {character: f"\\{letter}" for letter, character in ESCAPES.items() if letter != "'"}
_PLAIN_SEGMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PLAIN_VALUE = re.compile(r"-?[A-Za-z0-9_*][A-Za-z0-9_.@+*-]*", re.ASCII)


class Rule(StrEnum):
    """The rule a filter breaks: the `reason` of its field violation."""

    LIMIT = "FILTER_LIMIT"
    SYNTAX = "FILTER_SYNTAX"
    FUNCTION = "FILTER_FUNCTION"
    FIELD_UNKNOWN = "FILTER_FIELD_UNKNOWN"
    OPERATOR = "FILTER_OPERATOR"
    VALUE = "FILTER_VALUE"
    WILDCARD = "FILTER_WILDCARD"
    SEARCH = "FILTER_SEARCH"


class InvalidFilter(InvalidArgument):
    """When a filter cannot be understood: says the rule, the place in the text, and the field."""

    def __init__(self, rule: Rule, description: str, *, position: int, field: str = "") -> None:
        self.rule = rule
        self.position = position
        self.field = field
        place = {"filter_position": str(position), "filter_rule": str(rule)}
        super().__init__(
            [FieldViolation("filter", f"{description} (at character {position})", str(rule))],
            reason=Reason.FILTER_INVALID,
            metadata={**place, "filter_field": field} if field else place,
        )


class Operator(StrEnum):
    """What stands between a field and a value."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written: the pieces of text between its wildcards, at least one."""

    pieces: tuple[str, ...]
    position: int = field(default=0, compare=False)

    @property
    def text(self) -> str:
        """The value with each wildcard as a star."""
        return "*".join(self.pieces)

    @property
    def has_wildcard(self) -> bool:
        """Whether any star is a wildcard."""
        return len(self.pieces) > 1

    @property
    def is_anything(self) -> bool:
        """Whether it is a lone star: `field:*` asks if the field is set."""
        return self.pieces == ("", "")

    def __str__(self) -> str:
        is_plain = _PLAIN_VALUE.fullmatch(self.text) is not None and self.text not in KEYWORDS
        if is_plain and not any("*" in piece for piece in self.pieces):
            return self.text
        return self.quoted()

    def quoted(self) -> str:
        """The value in quotes, its own stars escaped."""
        return '"' + "*".join(_escaped(piece) for piece in self.pieces) + '"'


@dataclass(frozen=True, slots=True)
class Restriction:
    """One field held against one value."""

    path: tuple[str, ...]
    operator: Operator
    value: Literal
    position: int = field(default=0, compare=False)

    def __str__(self) -> str:
        path = ".".join(_written_segment(segment) for segment in self.path)
        space = "" if self.operator is Operator.HAS else " "
        return f"{path}{space}{self.operator}{space}{self.value}"


@dataclass(frozen=True, slots=True)
class Search:
    """A value without a field: looked for wherever the service says."""

    value: Literal

    def __str__(self) -> str:
        # Always quoted: bare text here could begin a path or be taken for a keyword.
        return self.value.quoted()


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " AND ".join(_grouped(operand, And) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Or:
    """Any of two or more."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " OR ".join(_grouped(operand, And, Or) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Not:
    """Whatever the operand does not match, rows where its field is unset among them."""

    operand: Expression

    def __str__(self) -> str:
        return "NOT " + _grouped(self.operand, And, Or, Not)


Expression = And | Or | Not | Restriction | Search


def _written_segment(segment: str) -> str:
    if _PLAIN_SEGMENT.fullmatch(segment) and segment.upper() not in KEYWORDS:
        return segment
    return f'"{_escaped(segment)}"'


def _grouped(operand: Expression, *kinds: type) -> str:
    return f"({operand})" if isinstance(operand, kinds) else str(operand)


def _escaped(piece: str) -> str:
    return "".join(_WRITTEN.get(character, character) for character in piece)
