"""The fields of a mapping, whatever rows become by it: where a value comes from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rapport.events.v1.import_job_pb2 import ImportEmptyValue, ImportField, ImportMapping
from services.events.import_files import Row, RowError, excerpt_of, value_in
from services.events.import_values import (
    UNIX_MS,
    UNIX_S,
    Converter,
    converter,
    is_empty,
    text_of,
    time_reader,
)
from services.kernel.errors import FieldViolation

_LEAVE_OUT = (
    ImportEmptyValue.IMPORT_EMPTY_VALUE_UNSPECIFIED,
    ImportEmptyValue.IMPORT_EMPTY_VALUE_LEAVE_OUT,
)


class RowErrorRaised(Exception):
    """When a row cannot become what the mapping says."""

    def __init__(self, error: RowError) -> None:
        super().__init__(error.detail)
        self.error = error


class Found(NamedTuple):
    """A value that a row has for a field; None says that it shall be null."""

    value: Any


@dataclass(frozen=True, slots=True)
class MappedField:
    """One field of a mapping, ready to be filled."""

    target: str
    column: str
    constant: str
    when_empty: ImportEmptyValue.ValueType
    convert: Converter
    read_time: Callable[[Any], datetime]

    @classmethod
    def of(cls, field: ImportField) -> MappedField:
        """A field without violations."""
        read_time = time_reader(field.time_format, field.time_zone)
        return cls(
            target=field.target,
            column=field.column,
            constant=field.constant,
            when_empty=field.when_empty,
            convert=converter(field.type, read_time),
            read_time=read_time,
        )

    def found(self, row: Row) -> Found | None:
        """What a row has for the field, or None to leave it out."""
        value = value_in(row, self.column) if self.column else None
        if is_empty(value):
            value = self.constant
        if not is_empty(value):
            return Found(value)
        if self.when_empty == ImportEmptyValue.IMPORT_EMPTY_VALUE_REFUSE:
            raise self.error("VALUE_EMPTY", f"{self.target} is needed and empty", "")
        return None if self.when_empty in _LEAVE_OUT else Found(None)

    def text(self, value: Any) -> str:
        """A value as text, without blanks around it."""
        return text_of(self.convert(value)).strip()

    def error(self, reason: str, detail: str, value: object) -> RowErrorRaised:
        """What is raised when the value of a row is wrong."""
        return RowErrorRaised(RowError(reason, detail, self.column, excerpt_of(value)))


def missing_columns(fields: Iterable[MappedField], columns: Iterable[str]) -> list[str]:
    """The columns that fields name and a file with these columns has not."""
    there = dict.fromkeys(columns, 0)
    named = {field.column for field in fields if field.column}
    return sorted(c for c in named if c not in there and c.partition(".")[0] not in there)


def common_violations(mapping: ImportMapping) -> Iterator[FieldViolation]:
    """What is wrong with fields whatever they are mapped to, each with its place in the request."""
    targets = [field.target for field in mapping.fields]
    for place, field in enumerate(mapping.fields):
        where = f"mapping.fields[{place}]"
        if targets.index(field.target) != place:
            yield FieldViolation(f"{where}.target", f"{field.target} is mapped twice")
        if not field.column and is_empty(field.constant):
            yield FieldViolation(where, "comes from nowhere: name a column or a constant")
        if "\0" in field.column or "\0" in field.constant:
            yield FieldViolation(where, "contains the character U+0000")
        yield from _time_violations(field, where)


def constant_violations(
    mapping: ImportMapping, targets: Sequence[str], put: Callable[[ImportField], object]
) -> Iterator[FieldViolation]:
    """A constant that cannot be put in its place would spoil every row."""
    for place, field in enumerate(mapping.fields):
        if is_empty(field.constant) or field.target.partition(".")[0] not in targets:
            continue
        try:
            put(ImportField(target=field.target, constant=field.constant, type=field.type))
        except (RowErrorRaised, ValueError, KeyError, OSError) as error:
            if not (field.time_format or field.time_zone):
                yield FieldViolation(f"mapping.fields[{place}].constant", f"{error}")


def _time_violations(field: ImportField, where: str) -> Iterator[FieldViolation]:
    if field.time_zone:
        try:
            ZoneInfo(field.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield FieldViolation(f"{where}.time_zone", "must be an IANA zone, e.g. Europe/London")
            return
    if field.time_format not in ("", UNIX_S, UNIX_MS):
        try:
            datetime.strptime("", field.time_format)  # noqa: DTZ007, only the pattern is tried
        except ValueError as error:
            if "does not match" not in str(error):
                yield FieldViolation(f"{where}.time_format", f"is no pattern of strptime: {error}")
