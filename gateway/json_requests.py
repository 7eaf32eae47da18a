"""JSON, query parameters and path fields become a request message; an answer becomes JSON.

The rules are those of protobuf's JSON: names in either case, 64-bit numbers as strings, times as
RFC 3339. A field that does not exist is refused by name, never ignored. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.kernel.errors import InvalidArgument

_UNKNOWN: Final = re.compile(r'has no field named "(?P<name>[^"]*)"(?: at "(?P<at>[^"]*)")?')
_FAILED: Final = re.compile(r"Failed to parse (?P<name>\S+) field: (?P<why>.*)", re.DOTALL)
_PLACE: Final = re.compile(r" at [A-Z]\w*(\.\w+)*\.*$")
_INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
_BOOLEANS: Final = {"true": True, "false": False}


def request_of(message: Message, said: Mapping[str, Any]) -> None:
    """Fills a request with what was said; raises InvalidArgument that names the field."""
    _refuse_twice(message.DESCRIPTOR, said, "")
    try:
        json_format.ParseDict(dict(said), message)
    except json_format.ParseError as error:
        raise _violation(message.DESCRIPTOR, str(error)) from error
    except (ValueError, TypeError) as error:
        raise InvalidArgument.of("", f"the request is not understood: {error}") from error


def read_object(body: bytes) -> dict[str, Any]:
    """Reads a body; an empty one says nothing."""
    if not body.strip():
        return {}
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument.of("", f"the body is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise InvalidArgument.of("", "the body must be a JSON object")
    return said


def say(said: dict[str, Any], field: FieldDescriptor, value: str) -> None:
    """Adds what the path or a header says; raises InvalidArgument if the body says otherwise."""
    for name in (field.name, field.json_name):
        before = said.pop(name, None)
        if before not in (None, "", value):
            raise InvalidArgument.of(field.name, f"is {value!r} here and {before!r} in the body")
    said[field.name] = value


def read_query(descriptor: Descriptor, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Reads query parameters: `pageSize=5`, `a.b=1` for a nested field or a map's key."""
    said: dict[str, Any] = {}
    for name, value in pairs:
        _put(said, descriptor, name, value, name)
    return said


def to_json(message: Message) -> bytes:
    """Writes an answer; fields that hold nothing are there, too, so that readers may rely on it."""
    return orjson.dumps(
        json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    )


def _refuse_twice(descriptor: Any, said: Mapping[str, Any], path: str) -> None:
    """Either spelling of a name is right; both at once would silently lose one of them."""
    for field in descriptor.fields:
        name = f"{path}{field.json_name}"
        if field.name != field.json_name and field.name in said and field.json_name in said:
            raise InvalidArgument.of(name, f"is given twice, as {field.name} too")
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry:
            continue
        value = said.get(field.json_name, said.get(field.name))
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                _refuse_twice(inner, each, f"{name}.")


def _put(said: dict[str, Any], descriptor: Descriptor, path: str, value: str, whole: str) -> None:
    name, _, rest = path.partition(".")
    field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
    if field is None:
        raise InvalidArgument.of(whole, "there is no such field")
    inner = field.message_type
    is_map = inner is not None and inner.GetOptions().map_entry
    if inner is not None and (is_map or (rest and not field.is_repeated)):
        if not rest:
            raise InvalidArgument.of(whole, f"say which of its keys: {whole}.key={value[:50]}")
        of_field = said.setdefault(field.json_name, {})
        if not isinstance(of_field, dict):
            raise InvalidArgument.of(whole, "is given twice")
        if is_map:
            of_field[rest] = _value(inner.fields_by_name["value"], value, whole)
        else:
            _put(of_field, inner, rest, value, whole)
    elif rest:
        raise InvalidArgument.of(whole, "there is no such field")
    elif field.is_repeated:
        said.setdefault(field.json_name, []).append(_value(field, value, whole))
    elif field.json_name in said:
        raise InvalidArgument.of(whole, "is given twice")
    else:
        said[field.json_name] = _value(field, value, whole)


def _value(field: FieldDescriptor, value: str, whole: str) -> Any:
    """Only truth values need help: JSON's own are no strings."""
    if field.type != FieldDescriptor.TYPE_BOOL:
        return value
    if value.lower() not in _BOOLEANS:
        raise InvalidArgument.of(whole, "must be true or false")
    return _BOOLEANS[value.lower()]


def _violation(descriptor: Any, problem: str) -> InvalidArgument:
    """Reads protobuf's words; only the field and the reason are told, not the whole schema."""
    unknown = _UNKNOWN.search(problem)
    if unknown is not None:
        _, _, parents = (unknown["at"] or "").partition(".")
        name = f"{parents}.{unknown['name']}" if parents else unknown["name"]
        return InvalidArgument.of(name, "there is no such field")
    names = []
    while (failed := _FAILED.match(problem)) is not None:
        names.append(failed["name"])
        problem = failed["why"]
    expected = _expected(descriptor, names)
    problem = expected or _PLACE.sub("", problem).strip().rstrip(".")
    return InvalidArgument.of(".".join(names), problem)


def _expected(descriptor: Any, names: Sequence[str]) -> str:
    """Says what a field takes, where protobuf only has Python's words for what it does not."""
    field, inner = None, descriptor
    for name in names:
        by_name = {} if inner is None else inner.fields_by_name
        field = by_name.get(name) or (inner and inner.fields_by_camelcase_name.get(name))
        inner = field and field.message_type
    if field is None:
        return ""
    if field.message_type is not None:
        if field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
            return "must be a time, such as 2026-01-02T03:04:05Z"
        if field.message_type.GetOptions().map_entry:
            return "must be an object, with values of its kind"
        return "must be an object"
    if field.cpp_type in _INTEGERS:
        return "must be a whole number, and not too large"
    return "must be a string" if field.type == FieldDescriptor.TYPE_STRING else ""
