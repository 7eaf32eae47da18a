"""How a row of a file becomes a customer event. Pure.

A mapping is checked when it is made, so that what is left to go wrong is a row's own fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.import_job_pb2 import (
    ImportEmptyValue,
    ImportField,
    ImportMapping,
    ImportValueType,
)
from services.events.import_fields import (
    MappedField,
    RowErrorRaised,
    common_violations,
    constant_violations,
    missing_columns,
)
from services.events.import_files import Row, RowError
from services.events.import_values import boolean_of
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
_AS_IT_IS = ImportValueType.IMPORT_VALUE_TYPE_UNSPECIFIED
_JSON = ImportValueType.IMPORT_VALUE_TYPE_JSON


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

    def mapped(self, number: int, row: Row) -> CustomerEvent | RowError:
        """The customer event that the row with this number is, or why it is none.

        Without a message id of its own it gets one that it gets again whenever it is read again.
        """
        event = CustomerEvent()
        objects: dict[str, dict[str, Any]] = {}
        try:
            for field in self.fields:
                field.put(row, event, objects)
        except RowErrorRaised as raised:
            return raised.error
        for name, content in objects.items():
            setattr(event, name, orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS).decode())
        if not event.message_id:
            event.message_id = f"{self.import_name}/{number}"
        return event

    def missing(self, columns: Iterable[str]) -> list[str]:
        """The columns that the mapping names and a file with these columns has not."""
        return missing_columns((field.field for field in self.fields), columns)


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a customer event, or a place in one of its objects."""

    path: tuple[str, ...]
    field: MappedField

    @classmethod
    def of(cls, field: ImportField) -> _Field:
        path = tuple(field.target.split("."))
        if path[0] in OBJECTS and len(path) == 1:
            whole = ImportField()
            whole.CopyFrom(field)
            whole.type = _JSON
            return cls(path, MappedField.of(whole))
        return cls(path, MappedField.of(field))

    def put(self, row: Row, event: CustomerEvent, objects: dict[str, dict[str, Any]]) -> None:
        """Sets the field in a customer event or in one of its objects."""
        found = self.field.found(row)
        if found is None:
            return
        try:
            self._set(found.value, event, objects)
        except (ValueError, TypeError, RecursionError) as error:
            detail = f"{self.field.target}: {error}"
            raise self.field.error("VALUE_INVALID", detail, found.value) from None

    def _set(self, value: Any, event: CustomerEvent, objects: dict[str, dict[str, Any]]) -> None:
        target = self.path[0]
        if target in OBJECTS:
            made = None if value is None else self.field.convert(value)
            _put_in(objects, self.path, made)
        elif target == "type":
            event.type = _type_of(value)
        elif target == "original_time":
            event.original_time.FromDatetime(self.field.read_time(value))
        elif target == "ends_membership":
            event.ends_membership = boolean_of(value)
        else:
            setattr(event, target, self.field.text(value))


def violations(mapping: ImportMapping) -> Iterator[FieldViolation]:
    """What no row could be mapped by, each with its place in the request."""
    targets = {field.target for field in mapping.fields}
    if "type" not in targets:
        yield FieldViolation("mapping.fields", "type is needed: from a column, or a constant")
    paths = {tuple(target.split(".")) for target in targets}
    for place, field in enumerate(mapping.fields):
        yield from _target_violations(field, f"mapping.fields[{place}].target", paths)
    yield from common_violations(mapping)
    yield from constant_violations(mapping, TARGETS, _put_alone)


def _put_alone(field: ImportField) -> None:
    _Field.of(field).put({}, CustomerEvent(), {})


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
