"""List filters (AIP-160): a service declares its fields once and gets SQL and an in-memory test.

    CONTACT_FIELDS = Fields(
        {
            "email": Field("email", Kind.TEXT),
            "state": Field("state", Kind.ENUM, values=enum_values(ContactState)),
            "custom_fields": Field("custom_fields", Kind.STRUCT),
        },
        searched=("display_name", "email"),
    )
    wanted = CONTACT_FIELDS.filter(request.filter)      # raises InvalidFilter
    wanted.sql(arguments)                               # "email = $2::text", the value in arguments
    wanted.matches(row)                                 # the same answer, for a watch

What the operators mean: `=` and `!=` know wildcards on text; `<` and the like order text by code
point; `:` is `=` on a single value, "contains" on a list, "has the key" on a map; `field:*` asks if
a field is set. Bare words search the `searched` columns in any case, and are refused without any.
An unset field matches no comparison, not even `!=`; `NOT email = "x"` does include the unset. A
view therefore stores what is unset as null. Field names are the resource's, columns the view's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from services.kernel.lists.filter_conditions import (
    AllOf,
    AnyOf,
    Arguments,
    Column,
    Compared,
    Condition,
    Entry,
    Found,
    IsSet,
    Like,
    ListHas,
    MapHas,
    Negated,
    Row,
)
from services.kernel.lists.filter_struct import InStruct, Json
from services.kernel.lists.filter_syntax import parse_filter
from services.kernel.lists.filter_tree import (
    And,
    Expression,
    InvalidFilter,
    Literal,
    Not,
    Operator,
    Or,
    Restriction,
    Rule,
    Search,
)
from services.kernel.lists.filter_values import READERS, number_of

__all__ = [
    "Arguments",
    "Field",
    "Fields",
    "Filter",
    "InvalidFilter",
    "Kind",
    "Rule",
    "enum_values",
]

_COLUMN = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)
_EQUALITY = (Operator.EQUAL, Operator.NOT_EQUAL, Operator.HAS)


class Kind(Enum):
    """What a field holds; the value is the column's type in SQL."""

    TEXT = "text"
    INTEGER = "bigint"
    NUMBER = "double precision"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamptz"
    DURATION = "interval"
    ENUM = "enum"
    TEXT_LIST = "text[]"
    TEXT_MAP = "jsonb of texts"
    STRUCT = "jsonb"

    @property
    def is_scalar(self) -> bool:
        """Whether rows can be sorted by it."""
        return self not in {Kind.TEXT_LIST, Kind.TEXT_MAP, Kind.STRUCT}


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field of the resource is in the view, and what may be asked of it.

    `values` are the names of an enum, or each name with what the column stores for it. `sortable`
    fields may stand in `order_by`. An `immutable` column is never changed once its row is there.
    `nullable=False` says that the column is `not null`, which makes a keyset walk cheaper.
    """

    column: str
    kind: Kind
    values: Collection[str] | Mapping[str, str | int] = ()
    sortable: bool = False
    immutable: bool = False
    nullable: bool = True
    stored: Mapping[str, str | int] = field(init=False)

    def __post_init__(self) -> None:
        if not _COLUMN.fullmatch(self.column):
            raise ValueError(f"{self.column!r} is no name of a column")
        if self.sortable and not self.kind.is_scalar:
            raise ValueError(f"{self.column} holds many values and cannot be sorted by")
        if (self.kind is Kind.ENUM) != bool(self.values):
            raise ValueError(f"{self.column}: an enum, and nothing else, has values")
        named = self.values if isinstance(self.values, Mapping) else {v: v for v in self.values}
        object.__setattr__(self, "stored", dict(named))

    @property
    def sql_type(self) -> str:
        """The type of the column in SQL, as parameters compared with it are cast."""
        if self.kind is Kind.ENUM:
            is_number = all(isinstance(value, int) for value in self.stored.values())
            return "bigint" if is_number else "text"
        return "jsonb" if self.kind is Kind.TEXT_MAP else self.kind.value


def enum_values(enum: Any) -> dict[str, int]:
    """What a filter may say for an enum of the protos: each name, whole and without its prefix.

    Nothing is stored as unspecified, so that is no value.
    """
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    return {
        said: number
        for name, number in enum.items()
        if number
        for said in (name, name.removeprefix(prefix))
    }


class Fields:
    """The fields of a resource that a filter may name, and the ones that bare words search."""

    def __init__(self, fields: Mapping[str, Field], *, searched: Collection[str] = ()) -> None:
        self._fields = dict(fields)
        self._searched = tuple(self._fields[name] for name in searched)
        if any(found.kind is not Kind.TEXT for found in self._searched):
            raise ValueError("only text is searched")

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def names(self) -> tuple[str, ...]:
        """The names of all fields, in the order of their declaration."""
        return tuple(self._fields)

    def sortable(self) -> dict[str, Field]:
        """The fields that may stand in `order_by`, by name."""
        return {name: found for name, found in self._fields.items() if found.sortable}

    def filter(self, text: str) -> Filter:
        """Understands a filter, or raises InvalidFilter."""
        expression = parse_filter(text)
        if expression is None:
            return Filter("", None)
        return Filter(str(expression), self.condition(expression))

    def condition(self, expression: Expression) -> Condition:
        """What a tree asks of a row of these fields."""
        match expression:
            case And(operands):
                return AllOf(tuple(self.condition(operand) for operand in operands))
            case Or(operands):
                return AnyOf(tuple(self.condition(operand) for operand in operands))
            case Not(operand):
                return Negated(self.condition(operand))
            case Search(value):
                return self._search(value)
            case Restriction():
                return self._restriction(expression)

    def _search(self, value: Literal) -> Condition:
        if not self._searched:
            message = f'write a field and an operator before "{value.text}"'
            raise InvalidFilter(Rule.SEARCH, message, position=value.position)
        return AnyOf(tuple(Found(found.column, value.pieces) for found in self._searched))

    def _restriction(self, restriction: Restriction) -> Condition:
        for length in range(len(restriction.path), 0, -1):
            name = ".".join(restriction.path[:length])
            found = self._fields.get(name)
            if found is not None:
                return _Asked(name, found, restriction, restriction.path[length:]).condition()
        name = ".".join(restriction.path)
        message = f"there is no field {name}; there are {', '.join(sorted(self._fields))}"
        raise InvalidFilter(Rule.FIELD_UNKNOWN, message, position=restriction.position, field=name)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter understood: its canonical text, and its condition unless everything matches."""

    text: str
    condition: Condition | None

    def sql(self, arguments: Arguments) -> str:
        """The condition for a `where`, its values added to the arguments."""
        return "true" if self.condition is None else self.condition.sql(arguments)

    def matches(self, row: Row) -> bool:
        """Whether a row, keyed by column, is one that the SQL would return."""
        return self.condition is None or self.condition.matches(row)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One restriction beside the field it names; `keys` is what the path says inside of it."""

    name: str
    field: Field
    restriction: Restriction
    keys: tuple[str, ...]

    def condition(self) -> Condition:
        kind = self.field.kind
        if kind is Kind.STRUCT:
            return self._struct()
        if kind is Kind.TEXT_MAP:
            return self._map()
        if self.keys:
            name = ".".join(self.restriction.path)
            raise self._wrong(Rule.FIELD_UNKNOWN, f"there is no field {name}")
        return self._list() if kind is Kind.TEXT_LIST else self._scalar()

    def _scalar(self) -> Condition:
        asked, value, column = self.restriction.operator, self.restriction.value, self.field.column
        if asked is Operator.HAS and value.is_anything:
            return IsSet(column)
        if self.field.kind is Kind.TEXT:
            return self._text(Column(column))
        if self.field.kind in {Kind.BOOLEAN, Kind.ENUM}:
            self._allow(*_EQUALITY)
        if value.has_wildcard:
            raise self._wrong(Rule.WILDCARD, "only text is compared with wildcards")
        return Compared(Column(column), _plain(asked), self._value(), self.field.sql_type)

    def _value(self) -> object:
        written = self.restriction.value.text
        if self.field.kind is Kind.ENUM:
            if written not in self.field.stored:
                names = ", ".join(self.field.stored)
                raise self._wrong(Rule.VALUE, f'"{written}" is none of {names}')
            return self.field.stored[written]
        try:
            return READERS[self.field.kind.value](written)
        except ValueError as wrong:
            raise self._wrong(Rule.VALUE, f'"{written}" is not {wrong}') from None

    def _text(self, operand: Column | Entry) -> Condition:
        asked, value = self.restriction.operator, self.restriction.value
        if not value.has_wildcard:
            return Compared(operand, _plain(asked), value.text, "text")
        self._allow(*_EQUALITY, rule=Rule.WILDCARD)
        return Like(operand, value.pieces, negated=asked is Operator.NOT_EQUAL)

    def _list(self) -> Condition:
        self._allow(Operator.HAS)
        return ListHas(self.field.column, self.restriction.value.pieces)

    def _map(self) -> Condition:
        column, value = self.field.column, self.restriction.value
        if not self.keys:
            self._allow(Operator.HAS)
            return MapHas(column, None if value.is_anything else self._key(value))
        if len(self.keys) > 1:
            name = f"{self.name}.{self.keys[0]}"
            raise self._wrong(Rule.FIELD_UNKNOWN, f"{name} is a text and holds no fields")
        if self.restriction.operator is Operator.HAS and value.is_anything:
            return MapHas(column, self.keys[0])
        return self._text(Entry(column, self.keys[0]))

    def _struct(self) -> Condition:
        asked, value, column = self.restriction.operator, self.restriction.value, self.field.column
        if not self.keys:
            self._allow(Operator.HAS)
            if value.is_anything:
                return MapHas(column, None)
            return InStruct(column, (self._key(value),), asked, ("", ""), ())
        if value.has_wildcard:
            self._allow(*_EQUALITY, rule=Rule.WILDCARD)
        if value.is_anything and asked is Operator.HAS:
            return InStruct(column, self.keys, asked, value.pieces, ())
        candidates: list[Json] = [value.text]
        if value.text in {"true", "false"}:
            candidates.append(value.text == "true")
        number = number_of(value.text)
        if number is not None:
            candidates.append(number)
        return InStruct(column, self.keys, asked, value.pieces, tuple(candidates))

    def _key(self, value: Literal) -> str:
        if value.has_wildcard:
            raise self._wrong(Rule.WILDCARD, "a key is named without wildcards")
        return value.text

    def _allow(self, *allowed: Operator, rule: Rule = Rule.OPERATOR) -> None:
        asked = self.restriction.operator
        if asked not in allowed:
            what = "a wildcard" if rule is Rule.WILDCARD else self.name
            raise self._wrong(rule, f"{what} is asked with {' '.join(allowed)}, not with {asked}")

    def _wrong(self, rule: Rule, description: str) -> InvalidFilter:
        position = self.restriction.position
        if rule in {Rule.VALUE, Rule.WILDCARD}:
            position = self.restriction.value.position
        return InvalidFilter(rule, description, position=position, field=self.name)


def _plain(asked: Operator) -> Operator:
    return Operator.EQUAL if asked is Operator.HAS else asked
