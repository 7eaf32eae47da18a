"""The page token: where a walk is, as text that a client keeps and does not understand.

It is a version byte, a checksum and JSON in base64url. The checksum finds accidents, not attacks:
every value is checked again, and a token is no permission, since it only ever narrows a query.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.kernel.errors import FieldViolation, InvalidArgument, Reason
from services.kernel.lists.filter import Field

TOKEN_LENGTH_MAX = 32_768
PARTITIONS_MAX = 1024

_VERSION = b"\x01"
_FINGERPRINT_BYTES = 12
_POSITION_MAX = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class InvalidPageToken(InvalidArgument):
    """When a page token is not one, or is one of another list; the walk has to begin anew."""

    def __init__(self, description: str, reason: Reason = Reason.PAGE_TOKEN_INVALID) -> None:
        violation = FieldViolation("page_token", description, str(reason))
        super().__init__([violation], reason=reason)


@dataclass(frozen=True, slots=True)
class PageToken:
    """The sort keys of the last row given, and the positions of the log where the walk began.

    `is_moved` says that the walk is at its end, among the rows that changed while it went on.
    """

    fingerprint: bytes
    positions: tuple[int, ...]
    is_moved: bool
    values: tuple[object, ...]

    def encoded(self, fields: Sequence[Field]) -> str:
        """The token as text; `fields` are those of the values."""
        values = [
            None if value is None else _packed(field, value)
            for field, value in zip(fields, self.values, strict=True)
        ]
        content = [self.fingerprint.hex(), list(self.positions), self.is_moved, values]
        body = json.dumps(content, separators=(",", ":")).encode()
        token = _VERSION + zlib.crc32(body).to_bytes(4, "big") + body
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    @classmethod
    def decoded(cls, text: str, fingerprint: bytes, fields: Sequence[Field]) -> PageToken:
        """Reads a token of the list with this fingerprint, or raises InvalidPageToken."""
        try:
            found, positions, is_moved, values = _content(text)
            if found != fingerprint.hex():
                raise InvalidPageToken(
                    "the filter, order or place of a list cannot change during its walk",
                    Reason.PAGE_TOKEN_MISMATCH,
                )
            of_values = fields[-1:] if is_moved else fields
            unpacked = tuple(
                _unpacked(field, value) for field, value in zip(of_values, values, strict=True)
            )
            return cls(fingerprint, _positions(positions), is_moved, unpacked)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise InvalidPageToken("this is no page token of ours") from None


def fingerprint_of(*parts: str) -> bytes:
    """What a token is bound to, short: equal for equal parts."""
    digest = hashlib.sha256(json.dumps(parts).encode())
    return digest.digest()[:_FINGERPRINT_BYTES]


def _content(text: str) -> tuple[str, object, bool, list[object]]:
    if len(text) > TOKEN_LENGTH_MAX or not text.isascii():
        raise ValueError(text)
    try:
        token = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as wrong:
        raise ValueError(text) from wrong
    body = token[5:]
    if token[:1] != _VERSION or token[1:5] != zlib.crc32(body).to_bytes(4, "big"):
        raise ValueError(text)
    match json.loads(body):
        case [str(fingerprint), positions, bool(is_moved), [*values]]:
            return fingerprint, positions, is_moved, values
    raise ValueError(text)


def _positions(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > PARTITIONS_MAX:
        raise TypeError(value)
    if not all(type(each) is int and 0 <= each <= _POSITION_MAX for each in value):
        raise ValueError(value)
    return tuple(value)


def _packed(field: Field, value: object) -> object:
    match field.sql_type, value:
        case "timestamptz", datetime():
            return (value - _EPOCH) // _MICROSECOND
        case "interval", timedelta():
            return value // _MICROSECOND
        case _:
            return value


def _unpacked(field: Field, value: object) -> object:
    if value is None and field.nullable:
        return None
    expected, read = _READERS[field.sql_type]
    if type(value) is not expected:
        raise TypeError(value)
    return read(value)


def _text(value: str) -> str:
    value.encode()  # raises ValueError for what UTF-8 cannot say
    if "\0" in value:
        raise ValueError(value)
    return value


def _integer(value: int) -> int:
    if not -_POSITION_MAX - 1 <= value <= _POSITION_MAX:
        raise ValueError(value)
    return value


_READERS: dict[str, tuple[type, Callable[..., object]]] = {
    "text": (str, _text),
    "bigint": (int, _integer),
    "double precision": (float, float),
    "boolean": (bool, bool),
    "timestamptz": (int, lambda micros: _EPOCH + micros * _MICROSECOND),
    "interval": (int, lambda micros: micros * _MICROSECOND),
}
