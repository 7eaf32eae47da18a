"""The order of a list (`order_by`, AIP-132) and the rows that come after a given one in it.

The primary key always stands last, so the order is total. Null sorts as the largest value, as
PostgreSQL's indexes have it: last, or first when descending.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.kernel.errors import FieldViolation, InvalidArgument, Reason
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.filter_conditions import Arguments

ORDER_LENGTH_MAX = 512
ORDER_FIELDS_MAX = 4

_TERM = re.compile(r"\s*([a-z0-9_]+(?:\.[a-z0-9_]+)*)(?:\s+(asc|desc))?\s*", re.ASCII)


class InvalidOrder(InvalidArgument):
    """When `order_by` is no list of fields that can be sorted by; `field` is the one at fault."""

    def __init__(self, description: str, *, field: str = "") -> None:
        self.field = field
        super().__init__(
            [FieldViolation("order_by", description, str(Reason.ORDER_BY_INVALID))],
            reason=Reason.ORDER_BY_INVALID,
            metadata={"order_by_field": field} if field else {},
        )


@dataclass(frozen=True, slots=True)
class SortKey:
    """One field of an order and its direction."""

    field: Field
    is_descending: bool = False

    @property
    def sql(self) -> str:
        """The column as it is sorted: text by code point, as the filter compares it."""
        is_text = self.field.sql_type == "text"
        return f'{self.field.column} collate "C"' if is_text else self.field.column

    def order(self, name: str) -> str:
        """The term of an `order by` for a column of this name that sorts as this key."""
        return f"{name} desc nulls first" if self.is_descending else f"{name} asc nulls last"


def read_order(order_by: str, fields: Fields, key_column: str) -> tuple[SortKey, ...]:
    """Understands `order_by`, and adds the primary key; raises InvalidOrder."""
    if len(order_by) > ORDER_LENGTH_MAX:
        raise InvalidOrder(f"order_by has at most {ORDER_LENGTH_MAX} characters")
    sortable = fields.sortable()
    keys: list[SortKey] = []
    for term in order_by.split(",") if order_by.strip() else ():
        found = _TERM.fullmatch(term)
        if found is None:
            raise InvalidOrder(f'"{term.strip()}" is not a field, perhaps followed by desc')
        name, direction = found.groups()
        if name not in sortable:
            raise InvalidOrder(
                f"{name} is none of the fields to sort by: {', '.join(sorted(sortable))}",
                field=name,
            )
        if any(key.field == sortable[name] for key in keys):
            raise InvalidOrder(f"{name} stands twice", field=name)
        keys.append(SortKey(sortable[name], direction == "desc"))
    if len(keys) > ORDER_FIELDS_MAX:
        raise InvalidOrder(f"a list is sorted by at most {ORDER_FIELDS_MAX} fields")
    columns = [key.field.column for key in keys]
    if key_column in columns:
        # No two rows are equal by the primary key, so what follows it sorts nothing.
        del keys[columns.index(key_column) + 1 :]
    else:
        last = Field(key_column, Kind.TEXT, immutable=True, nullable=False)
        # In the direction of what stands before, so that one index read backwards serves both.
        keys.append(SortKey(last, keys[-1].is_descending if keys else False))
    return tuple(keys)


def order_of(keys: Sequence[SortKey]) -> str:
    """The `order by` of these keys."""
    return ", ".join(key.order(key.sql) for key in keys)


def after(keys: Sequence[SortKey], values: Sequence[object], arguments: Arguments) -> str:
    """The condition that a row comes after the one with these values, in the order of the keys."""
    bound = [
        None if value is None else arguments.add(value, key.field.sql_type)
        for key, value in zip(keys, values, strict=True)
    ]
    is_uniform = len({key.is_descending for key in keys}) == 1
    if is_uniform and not any(key.field.nullable for key in keys):
        # PostgreSQL reads an index from exactly here for a comparison of whole rows only.
        columns = ", ".join(key.sql for key in keys)
        sign = "<" if keys[0].is_descending else ">"
        return f"({columns}) {sign} ({', '.join(str(value) for value in bound)})"
    ways: list[str] = []
    ties: list[str] = []
    for key, value in zip(keys, bound, strict=True):
        beyond = _beyond(key, value)
        if beyond is not None:
            ways.append(" and ".join([*ties, beyond]))
        ties.append(f"{key.sql} is null" if value is None else f"{key.sql} = {value}")
    return "(" + " or ".join(f"({way})" for way in ways) + ")"


def _beyond(key: SortKey, value: str | None) -> str | None:
    if value is None:
        return f"{key.sql} is not null" if key.is_descending else None
    if key.is_descending:
        return f"{key.sql} < {value}"
    if not key.field.nullable:
        return f"{key.sql} > {value}"
    return f"({key.sql} > {value} or {key.sql} is null)"
