"""Values of a filter from text to what a column holds; a ValueError says what was expected.

A number or time that the column could not hold is refused here, so the database never refuses it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

INTEGER_MAX = 2**63 - 1
DURATION_S_MAX = 315_576_000_000  # google.protobuf.Duration
NUMBER_LENGTH_MAX = 64
NUMBER_EXPONENT_MAX = 308

_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_SECONDS = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or abs(int(text)) > INTEGER_MAX:
        raise ValueError("a whole number of 64 bits")
    return int(text)


def number(text: str) -> float:
    exact = number_of(text)
    value = math.inf if exact is None else float(exact)
    if math.isinf(value):
        raise ValueError("a number")
    return value


def number_of(text: str) -> Decimal | None:
    """The exact number that a text is, or None when it is none that every number type can hold."""
    if len(text) > NUMBER_LENGTH_MAX or not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text)
    return value if abs(value.adjusted()) <= NUMBER_EXPONENT_MAX else None


def boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("true or false")
    return text == "true"


def timestamp(text: str) -> datetime:
    """Reads an RFC 3339 time; cuts off what is finer than a column's microsecond."""
    expected = "a time such as 2024-05-31T10:00:00Z"
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(expected)
    day, clock, fraction, zone = found.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}.{micros}{zone.upper()}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(expected) from None


def duration(text: str) -> timedelta:
    found = _SECONDS.fullmatch(text)
    if found is None or int(found.group(2)) > DURATION_S_MAX:
        raise ValueError("a duration in seconds such as 1.5s")
    sign, seconds, fraction = found.groups()
    micros = int((fraction or "")[:6].ljust(6, "0"))
    length = timedelta(seconds=int(seconds), microseconds=micros)
    return -length if sign else length


READERS: Mapping[str, Callable[[str], object]] = {
    "bigint": integer,
    "double precision": number,
    "boolean": boolean,
    "timestamptz": timestamp,
    "interval": duration,
}
