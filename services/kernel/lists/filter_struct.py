"""What a filter asks of a value inside a struct (jsonb), whose type only the row knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.kernel.lists.filter_conditions import (
    MEANING,
    Arguments,
    Row,
    is_like,
    json_of,
    like_pattern,
    sql_operator,
)
from services.kernel.lists.filter_tree import Operator

Json = str | bool | Decimal


@dataclass(frozen=True, slots=True)
class InStruct:
    """A value inside a struct, compared with what was written.

    The text written is taken as each type it could be (`candidates`: always the text itself, also
    a number or a boolean when it reads as one), so `42` equals both 42 and "42". A null in the
    struct is unset. Has (`:`) also looks into an array and at the keys of an inner struct.
    """

    column: str
    path: tuple[str, ...]
    operator: Operator
    pieces: tuple[str, ...]
    candidates: tuple[Json, ...]

    def sql(self, arguments: Arguments) -> str:
        if self.operator is Operator.EQUAL and len(self.pieces) == 1:
            return f"({self._equal_sql(arguments)})"
        keys = "".join(f" -> {arguments.add(key, 'text')}" for key in self.path)
        inner = f"({self.column}{keys})"
        is_set = f"{inner} <> 'null'::jsonb"
        if self.pieces == ("", "") and self.operator is Operator.HAS:
            return is_set
        if self.operator is Operator.HAS:
            return f"({self._has_sql(inner, arguments)})"
        if self.operator not in {Operator.EQUAL, Operator.NOT_EQUAL}:
            return self._order_sql(inner, arguments)
        has_wildcard = len(self.pieces) > 1
        is_equal = self._like_sql(inner, arguments) if has_wildcard else self._equal_sql(arguments)
        is_different = f"{is_set} and ({is_equal}) is not true"
        return f"({is_equal if self.operator is Operator.EQUAL else is_different})"

    def matches(self, row: Row) -> bool:
        value = json_of(row.get(self.column), None)
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            return False
        if self.pieces == ("", "") and self.operator is Operator.HAS:
            return True
        if self.operator is Operator.NOT_EQUAL:
            return not self._equals(value)
        if self.operator is Operator.EQUAL:
            return self._equals(value)
        if self.operator is Operator.HAS:
            return self._has(value)
        return any(
            MEANING[self.operator](_scalar(value), candidate)
            for candidate in self.candidates
            if not isinstance(candidate, bool) and type(candidate) is type(_scalar(value))
        )

    def _equal_sql(self, arguments: Arguments) -> str:
        # Containment of the whole document, because one index on the column serves every key.
        documents = (_document(self.path, candidate) for candidate in self.candidates)
        return " or ".join(
            f"{self.column} @> {arguments.add(document, 'text')}::jsonb" for document in documents
        )

    def _has_sql(self, inner: str, arguments: Arguments) -> str:
        if len(self.pieces) > 1:
            return self._like_sql(inner, arguments)
        alternatives = [f"{inner} ? {arguments.add(self.pieces[0], 'text')}"]
        for candidate in self.candidates:
            bound = arguments.add(_document((), candidate), "text")
            alternatives.append(f"{inner} @> {bound}::jsonb")
        return " or ".join(alternatives)

    def _like_sql(self, inner: str, arguments: Arguments) -> str:
        pattern = arguments.add(like_pattern(self.pieces), "text")
        return f"jsonb_typeof({inner}) = 'string' and {inner} #>> '{{}}' like {pattern}"

    def _order_sql(self, inner: str, arguments: Arguments) -> str:
        verb = sql_operator(self.operator)
        branches = []
        for candidate in self.candidates:
            if isinstance(candidate, Decimal):
                bound = arguments.add(candidate, "numeric")
                branches.append(f"when 'number' then ({inner} #>> '{{}}')::numeric {verb} {bound}")
            elif isinstance(candidate, str):
                bound = arguments.add(candidate, "text")
                left = f"({inner} #>> '{{}}') collate \"C\""
                branches.append(f"when 'string' then {left} {verb} {bound}")
        return f"case jsonb_typeof({inner}) {' '.join(branches)} else false end"

    def _equals(self, value: object) -> bool:
        if len(self.pieces) > 1:
            return isinstance(value, str) and is_like(value, self.pieces)
        return any(_is_same(value, candidate) for candidate in self.candidates)

    def _has(self, value: object) -> bool:
        if isinstance(value, list) and len(self.pieces) == 1:
            return any(_is_same(item, candidate) for item in value for candidate in self.candidates)
        if isinstance(value, dict) and len(self.pieces) == 1:
            return self.pieces[0] in value
        return self._equals(value)


def _document(path: Sequence[str], candidate: Json) -> str:
    document = str(candidate) if isinstance(candidate, Decimal) else json.dumps(candidate)
    for key in reversed(path):
        document = f"{{{json.dumps(key)}: {document}}}"
    return document


def _scalar(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return Decimal(repr(value))


def _is_same(value: object, candidate: Json) -> bool:
    scalar = _scalar(value)
    return type(scalar) is type(candidate) and scalar == candidate
