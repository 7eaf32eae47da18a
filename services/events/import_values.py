"""Values of a file made into what a mapping says: texts, numbers, times, JSON. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from rapport.events.v1.import_job_pb2 import ImportValueType

UNIX_S = "unix_s"
UNIX_MS = "unix_ms"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUE = {"true", "t", "yes", "y", "1"}
_FALSE = {"false", "f", "no", "n", "0"}
_INTEGER = re.compile(r"[+-]?\d{1,20}(?:\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NUMBER_CHARACTERS_MAX = 400
# What JSON holds as a whole number everywhere in the platform.
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**64 - 1

Converter = Callable[[Any], Any]
"""Makes a value that is not empty into JSON's; raises ValueError with what is wrong with it."""


def is_empty(value: object) -> bool:
    """Whether a value says nothing: it is absent, null, or blanks only."""
    return value is None or (isinstance(value, str) and not value.strip())


def converter(
    value_type: ImportValueType.ValueType, read_time: Callable[[Any], datetime]
) -> Converter:
    """What makes values of a type; `read_time` reads times."""
    return {
        ImportValueType.IMPORT_VALUE_TYPE_UNSPECIFIED: plain,
        ImportValueType.IMPORT_VALUE_TYPE_STRING: text_of,
        ImportValueType.IMPORT_VALUE_TYPE_INTEGER: integer_of,
        ImportValueType.IMPORT_VALUE_TYPE_NUMBER: number_of,
        ImportValueType.IMPORT_VALUE_TYPE_BOOLEAN: boolean_of,
        ImportValueType.IMPORT_VALUE_TYPE_TIME: lambda value: rfc3339(read_time(value)),
        ImportValueType.IMPORT_VALUE_TYPE_JSON: json_of,
    }[value_type]


def plain(value: Any) -> Any:
    """A value as the file has it, in JSON's own types."""
    match value:
        case bool() | str():
            return value
        case int():
            return _whole(value)
        case float() | Decimal():
            return number_of(value)
        case datetime():
            return rfc3339(value if value.tzinfo else value.replace(tzinfo=UTC))
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case dict():
            return {str(key): None if v is None else plain(v) for key, v in value.items()}
        case list() | tuple():
            return [None if inner is None else plain(inner) for inner in value]
        case bytes():
            return value.decode()  # a UnicodeDecodeError is a ValueError
    raise ValueError(f"a {type(value).__name__} has no place in JSON")


def text_of(value: Any) -> str:
    """A value as text; what is no text is written as JSON writes it."""
    value = plain(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def integer_of(value: Any) -> int:
    """A whole number; one that is written or held as `17850.0`, too."""
    if isinstance(value, str):
        found = _INTEGER.fullmatch(value.strip())
        if found is None:
            raise ValueError("is no whole number")
        return _whole(int(found[0].partition(".")[0]))
    if isinstance(value, int):
        return _whole(int(value))
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return _whole(int(value))
    raise ValueError("is no whole number")


def number_of(value: Any) -> int | float:
    """A number that is finite."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _NUMBER_CHARACTERS_MAX or not _NUMBER.fullmatch(text):
            raise ValueError("is no number")
        value = float(text)
    if isinstance(value, int):
        return _whole(int(value))
    if isinstance(value, float | Decimal) and math.isfinite(number := float(value)):
        return number
    raise ValueError("is no number")


def boolean_of(value: Any) -> bool:
    """True or false, in the ways that people write them."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("is neither true nor false")


def json_of(value: Any) -> Any:
    """A JSON value that is written as text, or held as such."""
    if not isinstance(value, str):
        return plain(value)
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None


def rfc3339(moment: datetime) -> str:
    """A time in UTC as JSON has it."""
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise ValueError("is no time between the years 1 and 9999") from None


def time_reader(time_format: str, time_zone: str) -> Callable[[Any], datetime]:
    """What reads times in a format; those that name no zone are of this one."""
    zone: tzinfo = ZoneInfo(time_zone) if time_zone else UTC
    parse = _parser(time_format)

    def read(value: Any) -> datetime:
        try:
            moment = value if isinstance(value, datetime) else parse(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
            return moment.astimezone(UTC)
        except (ValueError, OverflowError, TypeError) as error:
            written = time_format or "ISO 8601"
            raise ValueError(f"is no time in the format {written}: {error}") from None

    return read


def _parser(time_format: str) -> Callable[[Any], datetime]:
    if time_format in (UNIX_S, UNIX_MS):
        unit_s = 1.0 if time_format == UNIX_S else 0.001
        return lambda value: _EPOCH + timedelta(seconds=number_of(value) * unit_s)
    if time_format:
        return lambda value: datetime.strptime(str(value).strip(), time_format)  # noqa: DTZ007
    return _iso


def _iso(value: Any) -> datetime:
    if isinstance(value, date):
        return datetime.combine(value, time())
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} is none")  # noqa: TRY004, as of any value
    return datetime.fromisoformat(value.strip())


def _whole(value: int) -> int:
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise ValueError("is a number beyond 64 bits")
    return value
