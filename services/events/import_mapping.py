"""How a row of a file becomes a customer event. Pure.

A mapping is checked when it is made, so that what is left to go wrong is a row's own fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.import_job_pb2 import (
    ImportEmptyValue,
    ImportField,
    ImportMapping,
    ImportValueType,
)
from services.events.import_files import Row, RowError, excerpt_of, value_in
from services.events.import_values import (
    UNIX_MS,
    UNIX_S,
    Converter,
    boolean_of,
    converter,
    is_empty,
    text_of,
    time_reader,
)
from services.kernel.errors import FieldViolation

TEXTS = ("name", "user_id", "anonymous_id", "previous_id", "group_id", "message_id")
OBJECTS = ("properties", "traits", "context")
TARGETS = ("type", *TEXTS, "original_time", "ends_membership", *OBJECTS)
PATH_DEPTH_MAX = 16

_TYPES = {
    name.removeprefix("CUSTOMER_EVENT_TYPE_").lower(): value
    for name, value in CustomerEventType.items()
    if value
}
_LEAVE_OUT = (
    ImportEmptyValue.IMPORT_EMPTY_VALUE_UNSPECIFIED,
    ImportEmptyValue.IMPORT_EMPTY_VALUE_LEAVE_OUT,
)
_AS_IT_IS = ImportValueType.IMPORT_VALUE_TYPE_UNSPECIFIED
_JSON = ImportValueType.IMPORT_VALUE_TYPE_JSON


class _RowErrorRaised(Exception):
    """When a row cannot become a customer event."""

    def __init__(self, error: RowError) -> None:
        super().__init__(error.detail)
        self.error = error


@dataclass(frozen=True, slots=True)
class Mapper:
    """Makes customer events of the rows of one import, `imports/{id}`."""

    import_name: str
    fields: Sequence[_Field]

    @classmethod
    def of(cls, mapping: ImportMapping, import_name: str) -> Mapper:
        """A mapper for a mapping without violations."""
        fields = [_Field.of(field) for field in mapping.fields]
        # A whole object comes first, so that places within it are set in it.
        return cls(import_name, sorted(fields, key=lambda field: len(field.path)))

    def customer_event(self, number: int, row: Row) -> CustomerEvent | RowError:
        """The customer event that the row with this number is, or why it is none.

        Without a message id of its own it gets one that it gets again whenever it is read again.
        """
        event = CustomerEvent()
        objects: dict[str, dict[str, Any]] = {}
        try:
            for field in self.fields:
                field.put(row, event, objects)
        except _RowErrorRaised as raised:
            return raised.error
        for name, content in objects.items():
            setattr(event, name, orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS).decode())
        if not event.message_id:
            event.message_id = f"{self.import_name}/{number}"
        return event

    def missing(self, columns: Iterable[str]) -> list[str]:
        """The columns that the mapping names and a file with these columns has not."""
        there = dict.fromkeys(columns, 0)
        named = {field.column for field in self.fields if field.column}
        return sorted(c for c in named if c not in there and c.partition(".")[0] not in there)


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a mapping, ready to be filled."""

    path: tuple[str, ...]
    column: str
    constant: str
    when_empty: ImportEmptyValue.ValueType
    convert: Converter
    read_time: Callable[[Any], datetime]

    @classmethod
    def of(cls, field: ImportField) -> _Field:
        read_time = time_reader(field.time_format, field.time_zone)
        path = tuple(field.target.split("."))
        whole = path[0] in OBJECTS and len(path) == 1
        return cls(
            path=path,
            column=field.column,
            constant=field.constant,
            when_empty=field.when_empty,
            convert=converter(_JSON if whole else field.type, read_time),
            read_time=read_time,
        )

    def put(self, row: Row, event: CustomerEvent, objects: dict[str, dict[str, Any]]) -> None:
        """Sets the field in a customer event or in one of its objects."""
        value = value_in(row, self.column) if self.column else None
        if is_empty(value):
            value = self.constant
        if is_empty(value):
            if self.when_empty == ImportEmptyValue.IMPORT_EMPTY_VALUE_REFUSE:
                raise self._error("VALUE_EMPTY", f"{self._target} is needed and empty", "")
            if self.when_empty in _LEAVE_OUT:
                return
            value = None
        try:
            self._set(value, event, objects)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._error("VALUE_INVALID", f"{self._target}: {error}", value) from None

    def _set(self, value: Any, event: CustomerEvent, objects: dict[str, dict[str, Any]]) -> None:
        target = self.path[0]
        if target in OBJECTS:
            made = None if value is None else self.convert(value)
            _put_in(objects, self.path, made)
        elif target == "type":
            event.type = _type_of(value)
        elif target == "original_time":
            event.original_time.FromDatetime(self.read_time(value))
        elif target == "ends_membership":
            event.ends_membership = boolean_of(value)
        else:
            setattr(event, target, text_of(self.convert(value)).strip())

    @property
    def _target(self) -> str:
        return ".".join(self.path)

    def _error(self, reason: str, detail: str, value: object) -> _RowErrorRaised:
        return _RowErrorRaised(RowError(reason, detail, self.column, excerpt_of(value)))


def violations(mapping: ImportMapping) -> Iterator[FieldViolation]:
    """What no row could be mapped by, each with its place in the request."""
    targets = [field.target for field in mapping.fields]
    if "type" not in targets:
        yield FieldViolation("mapping.fields", "type is needed: from a column, or a constant")
    paths = {tuple(target.split(".")) for target in targets}
    for place, field in enumerate(mapping.fields):
        where = f"mapping.fields[{place}]"
        yield from _target_violations(field, f"{where}.target", paths)
        if targets.index(field.target) != place:
            yield FieldViolation(f"{where}.target", f"{field.target} is mapped twice")
        if not field.column and is_empty(field.constant):
            yield FieldViolation(where, "comes from nowhere: name a column or a constant")
        if "\0" in field.column or "\0" in field.constant:
            yield FieldViolation(where, "contains the character U+0000")
        yield from _time_violations(field, where)
        yield from _constant_violations(field, where)


def _target_violations(
    field: ImportField, where: str, paths: set[tuple[str, ...]]
) -> Iterator[FieldViolation]:
    path = tuple(field.target.split("."))
    is_object = path[0] in OBJECTS
    if path[0] not in TARGETS or (len(path) > 1 and not is_object):
        yield FieldViolation(where, f"must be one of {', '.join(TARGETS)}, or a place within them")
    if not all(path) or len(path) > PATH_DEPTH_MAX or "\0" in field.target:
        yield FieldViolation(where, f"must be at most {PATH_DEPTH_MAX} names with dots between")
    if any(path[:length] in paths for length in range(2, len(path))):
        yield FieldViolation(where, "lies within another field of the mapping")
    null = ImportEmptyValue.IMPORT_EMPTY_VALUE_NULL
    if field.when_empty == null and (not is_object or len(path) == 1):
        yield FieldViolation(where, "is null only within properties, traits and context")
    if is_object and len(path) == 1 and field.type not in (_AS_IT_IS, _JSON):
        yield FieldViolation(where, "is a JSON object as a whole; name a place within it")


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


def _constant_violations(field: ImportField, where: str) -> Iterator[FieldViolation]:
    """A constant that cannot be set would spoil every row."""
    if is_empty(field.constant) or field.target.partition(".")[0] not in TARGETS:
        return
    try:
        made = _Field.of(ImportField(target=field.target, constant=field.constant, type=field.type))
        made.put({}, CustomerEvent(), {})
    except (_RowErrorRaised, ValueError, KeyError, OSError) as error:
        if not (field.time_format or field.time_zone):
            yield FieldViolation(f"{where}.constant", f"{error}")


def _type_of(value: Any) -> CustomerEventType.ValueType:
    word = str(value).strip().lower()
    found = _TYPES.get(word.removeprefix("customer_event_type_"))
    if found is None:
        raise ValueError(f"is none of {', '.join(_TYPES)}")
    return found


def _put_in(objects: dict[str, dict[str, Any]], path: Sequence[str], value: Any) -> None:
    """Sets a value at a path; the whole of an object is an object."""
    if len(path) == 1:
        if not isinstance(value, dict):
            raise ValueError("is no JSON object")
        objects[path[0]] = value
        return
    inner = objects.setdefault(path[0], {})
    for part in path[1:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{part} is no JSON object")  # noqa: TRY004, as of any value
    inner[path[-1]] = value
