"""What a filter asks of a row, said twice: to PostgreSQL in SQL, and of a row in memory.

The two must agree for every row; tests/contract/test_filter_sql.py holds them together. A value
comes into SQL only as a parameter. SQL's null is an unset field: no comparison matches it, not
even `!=`, and `NOT` asks `is not true`, so what is unset is inside the negation. Text is ordered by
code point (`collate "C"`), hence an index that serves it has to be on a column of that collation.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.kernel.lists.filter_tree import Operator

MEANING: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_EQUAL: operator.ge,
}
_LIKE_ESCAPES = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_"})


class Arguments:
    """The parameters of one statement, numbered as they are added."""

    def __init__(self, values: Sequence[object] = ()) -> None:
        self.values: list[object] = list(values)

    def add(self, value: object, sql_type: str) -> str:
        """Adds a value and returns the text that stands for it, such as `$3::text`."""
        self.values.append(value)
        return f"${len(self.values)}::{sql_type}"


class Row(Protocol):
    """A row by its columns: a dict or a record of the driver."""

    def get(self, column: str, /) -> Any: ...


class Condition(Protocol):
    """A question about a row that has two answers, yes and no."""

    def sql(self, arguments: Arguments) -> str: ...

    def matches(self, row: Row) -> bool: ...


@dataclass(frozen=True, slots=True)
class Column:
    """A column's value."""

    name: str

    def sql(self, arguments: Arguments) -> str:  # noqa: ARG002 -- the shape of an operand
        return self.name

    def of(self, row: Row) -> Any:
        return row.get(self.name)


@dataclass(frozen=True, slots=True)
class Entry:
    """The text under a key of a jsonb column that holds a map of texts."""

    column: str
    key: str

    def sql(self, arguments: Arguments) -> str:
        return f"({self.column} ->> {arguments.add(self.key, 'text')})"

    def of(self, row: Row) -> Any:
        return json_of(row.get(self.column), {}).get(self.key)


@dataclass(frozen=True, slots=True)
class Compared:
    """The value is set and stands in this order to another."""

    operand: Column | Entry
    operator: Operator
    value: object
    sql_type: str

    def sql(self, arguments: Arguments) -> str:
        is_order = self.operator not in {Operator.EQUAL, Operator.NOT_EQUAL}
        collation = ' collate "C"' if is_order and self.sql_type == "text" else ""
        left = self.operand.sql(arguments) + collation
        return f"{left} {sql_operator(self.operator)} {arguments.add(self.value, self.sql_type)}"

    def matches(self, row: Row) -> bool:
        value = self.operand.of(row)
        return value is not None and MEANING[self.operator](value, self.value)


@dataclass(frozen=True, slots=True)
class Like:
    """The text is set and is, or is not, these pieces in this order with anything between."""

    operand: Column | Entry
    pieces: tuple[str, ...]
    negated: bool = False

    def sql(self, arguments: Arguments) -> str:
        verb = "not like" if self.negated else "like"
        left = self.operand.sql(arguments)
        return f"{left} {verb} {arguments.add(like_pattern(self.pieces), 'text')}"

    def matches(self, row: Row) -> bool:
        value = self.operand.of(row)
        return value is not None and is_like(value, self.pieces) is not self.negated


@dataclass(frozen=True, slots=True)
class Found:
    """The text holds these pieces somewhere, in upper or lower case as the database sees case."""

    column: str
    pieces: tuple[str, ...]

    def sql(self, arguments: Arguments) -> str:
        return f"{self.column} ilike {arguments.add(like_pattern(('', *self.pieces, '')), 'text')}"

    def matches(self, row: Row) -> bool:
        value = row.get(self.column)
        lowered = ("", *(piece.lower() for piece in self.pieces), "")
        return value is not None and is_like(value.lower(), lowered)


@dataclass(frozen=True, slots=True)
class IsSet:
    """The column is not null."""

    column: str

    def sql(self, arguments: Arguments) -> str:  # noqa: ARG002 -- the shape of a condition
        return f"{self.column} is not null"

    def matches(self, row: Row) -> bool:
        return row.get(self.column) is not None


@dataclass(frozen=True, slots=True)
class ListHas:
    """An array of texts holds one like this; any at all for the pieces of a lone star."""

    column: str
    pieces: tuple[str, ...]

    def sql(self, arguments: Arguments) -> str:
        if len(self.pieces) == 1:
            return f"{self.column} @> array[{arguments.add(self.pieces[0], 'text')}]"
        pattern = arguments.add(like_pattern(self.pieces), "text")
        return f"exists (select from unnest({self.column}) as item where item like {pattern})"

    def matches(self, row: Row) -> bool:
        return any(is_like(item, self.pieces) for item in row.get(self.column) or ())


@dataclass(frozen=True, slots=True)
class MapHas:
    """A map of texts holds this key; any at all for None."""

    column: str
    key: str | None

    def sql(self, arguments: Arguments) -> str:
        if self.key is None:
            return f"{self.column} <> '{{}}'::jsonb"
        return f"{self.column} ? {arguments.add(self.key, 'text')}"

    def matches(self, row: Row) -> bool:
        entries = json_of(row.get(self.column), {})
        return bool(entries) if self.key is None else self.key in entries


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple[Condition, ...]

    def sql(self, arguments: Arguments) -> str:
        return "(" + " and ".join(each.sql(arguments) for each in self.conditions) + ")"

    def matches(self, row: Row) -> bool:
        return all(each.matches(row) for each in self.conditions)


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple[Condition, ...]

    def sql(self, arguments: Arguments) -> str:
        return "(" + " or ".join(each.sql(arguments) for each in self.conditions) + ")"

    def matches(self, row: Row) -> bool:
        return any(each.matches(row) for each in self.conditions)


@dataclass(frozen=True, slots=True)
class Negated:
    condition: Condition

    def sql(self, arguments: Arguments) -> str:
        return f"({self.condition.sql(arguments)}) is not true"

    def matches(self, row: Row) -> bool:
        return not self.condition.matches(row)


def sql_operator(comparison: Operator) -> str:
    return "<>" if comparison is Operator.NOT_EQUAL else str(comparison)


def like_pattern(pieces: Sequence[str]) -> str:
    return "%".join(piece.translate(_LIKE_ESCAPES) for piece in pieces)


def is_like(text: str, pieces: Sequence[str]) -> bool:
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end) if at <= end else -1
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end


def json_of(value: Any, missing: Any) -> Any:
    """What a jsonb column holds: asyncpg gives its text unless a codec is set."""
    loaded = json.loads(value) if isinstance(value, str) else value
    return missing if loaded is None else loaded
