"""JSON that a strict reader refuses as a whole, for the sake of all that is sound in it.

A tracker that cuts a text in the middle of an emoji sends half of a character, and one that divides
by zero sends a number that no double holds. The half becomes U+FFFD; in place of the number stands
`NO_NUMBER`, which nothing takes, so the one event around it can be refused. Pure.
"""

from __future__ import annotations

import json
from typing import Any, Final

_INT_MAX: Final = 2**64 - 1
_INT_MIN: Final = -(2**63)
_DIGITS_MAX: Final = 20


class _NoNumber:
    """In place of a number that is infinite or none."""

    def __str__(self) -> str:
        return "a number that is infinite or none"


NO_NUMBER: Final = _NoNumber()


def read_broken(body: bytes) -> Any:
    """Reads a body that is JSON but for such things; raises ValueError when it is none at all."""
    try:
        found = json.loads(
            body.decode("utf-8-sig"),
            parse_float=_number,
            parse_int=_integer,
            parse_constant=lambda _: NO_NUMBER,
        )
        return _whole(found)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _number(text: str) -> float | _NoNumber:
    number = float(text)
    return NO_NUMBER if number in (float("inf"), float("-inf")) else number


def _integer(text: str) -> int | float | _NoNumber:
    """Beyond 64 bits it is a float, as for the strict reader."""
    if len(text) <= _DIGITS_MAX and _INT_MIN <= int(text) <= _INT_MAX:
        return int(text)
    return _number(text)


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_whole(key): _whole(inner) for key, inner in value.items()}
        case list():
            return [_whole(inner) for inner in value]
    return value
