"""The rules of one customer event: why it is refused. Pure.

Of several rules that a customer event breaks, the first in `_RULES` is told, those of JSON last.
JSON is what orjson takes for it: no NaN, no lone surrogate, no number beyond a double.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.timestamp_pb2 import Timestamp

EVENT_BYTES_MAX = 32 * 1024
MESSAGE_ID_CHARACTERS_MAX = 100
NAME_CHARACTERS_MAX = 500
IDENTIFIER_CHARACTERS_MAX = 255
JSON_DEPTH_MAX = 64

_MADE_UP = uuid.UUID("6f4b1f0e-9a53-5d1c-8c0a-3a7d9b1e2c44")
_SECONDS_MIN = -62_135_596_800  # 0001-01-01, the first second a Timestamp may hold
_SECONDS_MAX = 253_402_300_799  # 9999-12-31, the last
_NANOS_MAX = 999_999_999

_TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
_ALIAS = CustomerEventType.CUSTOMER_EVENT_TYPE_ALIAS
_GROUP = CustomerEventType.CUSTOMER_EVENT_TYPE_GROUP
_ACCOUNT = CustomerEventType.CUSTOMER_EVENT_TYPE_ACCOUNT
_TYPES = frozenset(CustomerEventType.values()) - {CustomerEventType.CUSTOMER_EVENT_TYPE_UNSPECIFIED}
_JSON_FIELDS = ("properties", "traits", "context")
_IDENTIFIER_FIELDS = ("user_id", "anonymous_id", "previous_id", "group_id")
_TIME_FIELDS: tuple[Literal["original_time", "send_time", "corrected_time"], ...] = (
    "original_time",
    "send_time",
    "corrected_time",
)
_NUL = "\0"
_NUL_IN_JSON = "\\u0000"


class Reason(StrEnum):
    """Why a customer event is refused: stable words that a program can match on."""

    TYPE_UNKNOWN = "TYPE_UNKNOWN"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    MESSAGE_ID_TOO_LONG = "MESSAGE_ID_TOO_LONG"
    NAME_TOO_LONG = "NAME_TOO_LONG"
    IDENTIFIER_TOO_LONG = "IDENTIFIER_TOO_LONG"
    CHARACTER_FORBIDDEN = "CHARACTER_FORBIDDEN"
    NO_IDENTIFIER = "NO_IDENTIFIER"
    NO_NAME = "NO_NAME"
    NO_PREVIOUS_ID = "NO_PREVIOUS_ID"
    NO_GROUP_ID = "NO_GROUP_ID"
    MEMBERSHIP_MISPLACED = "MEMBERSHIP_MISPLACED"
    JSON_INVALID = "JSON_INVALID"
    JSON_TOO_DEEP = "JSON_TOO_DEEP"
    TIME_INVALID = "TIME_INVALID"
    TYPE_NOT_ALLOWED = "TYPE_NOT_ALLOWED"
    SUPPRESSED = "SUPPRESSED"
    ERASED = "ERASED"
    PLAN_VIOLATED = "PLAN_VIOLATED"
    DROPPED = "DROPPED"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a customer event is not recorded: for programs, and in a sentence for people."""

    reason: Reason
    detail: str


@dataclass(slots=True)
class Opened:
    """A customer event with its JSON objects read, so that nobody reads them twice.

    Who changes `properties`, `traits` or `context` adds the name to `changed`, and `closed` writes
    them back.
    """

    event: CustomerEvent
    properties: dict[str, Any]
    traits: dict[str, Any]
    context: dict[str, Any]
    changed: set[str] = dataclasses.field(default_factory=set)

    def closed(self) -> CustomerEvent:
        """The customer event with what was changed written back as JSON."""
        for name in self.changed:
            value = getattr(self, name)
            setattr(self.event, name, orjson.dumps(value).decode() if value else "")
        self.changed.clear()
        return self.event


def open_event(sent: CustomerEvent) -> Opened | Refusal:
    """A customer event that may be recorded, opened, or the first rule that it breaks."""
    for rule in _RULES:
        refusal = rule(sent)
        if refusal is not None:
            return refusal
    objects = []
    for name in _JSON_FIELDS:
        text = getattr(sent, name)
        found = read_json(name, text) if text else {}
        if isinstance(found, Refusal):
            return found
        objects.append(found)
    properties, traits, context = objects
    return Opened(sent, properties, traits, context)


def refusal_of(sent: CustomerEvent) -> Refusal | None:
    """The first rule that a customer event breaks, or None when it may be recorded."""
    found = open_event(sent)
    return found if isinstance(found, Refusal) else None


def made_up_message_id(sent: CustomerEvent, *, call: str, place: int) -> str:
    """An id for a customer event that came without: the same when the same call is sent again."""
    content = sent.SerializeToString(deterministic=True).hex()
    return str(uuid.uuid5(_MADE_UP, f"{call}/{place}/{content}"))


def _check_type(sent: CustomerEvent) -> Refusal | None:
    if sent.type in _TYPES:
        return None
    names = ", ".join(CustomerEventType.Name(known) for known in sorted(_TYPES))
    return Refusal(Reason.TYPE_UNKNOWN, f"the type is {sent.type}; it must be one of {names}")


def _check_size(sent: CustomerEvent) -> Refusal | None:
    size = sent.ByteSize()
    if size <= EVENT_BYTES_MAX:
        return None
    detail = f"the customer event has {size} bytes; at most {EVENT_BYTES_MAX} are taken"
    return Refusal(Reason.EVENT_TOO_LARGE, detail)


def _check_texts(sent: CustomerEvent) -> Refusal | None:
    """Lengths and characters of what is not JSON."""
    if len(sent.message_id) > MESSAGE_ID_CHARACTERS_MAX:
        return _too_long(Reason.MESSAGE_ID_TOO_LONG, "message_id", MESSAGE_ID_CHARACTERS_MAX)
    if len(sent.name) > NAME_CHARACTERS_MAX:
        return _too_long(Reason.NAME_TOO_LONG, "name", NAME_CHARACTERS_MAX)
    if _NUL in sent.message_id or _NUL in sent.name:
        return _forbidden("message_id" if _NUL in sent.message_id else "name")
    for field in _IDENTIFIER_FIELDS:
        text = getattr(sent, field)
        if not text:
            continue
        if len(text) > IDENTIFIER_CHARACTERS_MAX:
            return _too_long(Reason.IDENTIFIER_TOO_LONG, field, IDENTIFIER_CHARACTERS_MAX)
        if _NUL in text:
            return _forbidden(field)
    return None


def _check_presence(sent: CustomerEvent) -> Refusal | None:
    """What each type of call needs; blanks alone are nothing."""
    if sent.type != _ACCOUNT and not (sent.user_id.strip() or sent.anonymous_id.strip()):
        return Refusal(Reason.NO_IDENTIFIER, "either user_id or anonymous_id is needed")
    if sent.type == _TRACK and not sent.name.strip():
        return Refusal(Reason.NO_NAME, "a track call needs the name of what was done")
    if sent.type == _ALIAS and not sent.previous_id.strip():
        return Refusal(Reason.NO_PREVIOUS_ID, "an alias call needs the previous_id it replaces")
    if sent.type in {_GROUP, _ACCOUNT} and not sent.group_id.strip():
        return Refusal(Reason.NO_GROUP_ID, "a group or account call needs the id of its group")
    if sent.ends_membership and sent.type != _GROUP:
        detail = "ends_membership says that somebody left a group: only a group call says that"
        return Refusal(Reason.MEMBERSHIP_MISPLACED, detail)
    return None


def read_json(name: str, text: str) -> dict[str, Any] | Refusal:
    """The JSON object that a text is, empty when it is; or why it is none that is taken."""
    if not text:
        return {}
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Refusal(Reason.JSON_INVALID, f"{name} is not JSON: {error}")
    if type(parsed) is not dict:
        return Refusal(Reason.JSON_INVALID, f"{name} must be a JSON object")
    if (
        len(text) > JSON_DEPTH_MAX
        and text.count("{") + text.count("[") > JSON_DEPTH_MAX
        and depth_of(parsed) > JSON_DEPTH_MAX
    ):
        detail = f"{name} is nested more than {JSON_DEPTH_MAX} levels deep"
        return Refusal(Reason.JSON_TOO_DEEP, detail)
    # An escaped backslash may stand before a plain "u0000".
    if _NUL_IN_JSON in text and _NUL_IN_JSON in text.replace("\\\\", ""):
        return _forbidden(name)
    return parsed


def _check_times(sent: CustomerEvent) -> Refusal | None:
    for field in _TIME_FIELDS:
        if not sent.HasField(field):
            continue
        time: Timestamp = getattr(sent, field)
        if not (_SECONDS_MIN <= time.seconds <= _SECONDS_MAX and 0 <= time.nanos <= _NANOS_MAX):
            detail = f"{field} is no time between the years 1 and 9999"
            return Refusal(Reason.TIME_INVALID, detail)
    return None


_RULES: tuple[Callable[[CustomerEvent], Refusal | None], ...] = (
    _check_type,
    _check_size,
    _check_texts,
    _check_presence,
    _check_times,
)


def _too_long(reason: Reason, field: str, characters_max: int) -> Refusal:
    return Refusal(reason, f"{field} is longer than {characters_max} characters")


def _forbidden(field: str) -> Refusal:
    return Refusal(Reason.CHARACTER_FORBIDDEN, f"{field} contains the character U+0000")


def count_values(parsed: object) -> int:
    """How many values a JSON value is, itself and all that are in it."""
    count, pending = 0, [parsed]
    while pending:
        value = pending.pop()
        count += 1
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value
    return count


def depth_of(parsed: object) -> int:
    """How deep a JSON value is nested: 1 for an object of plain values."""
    depth, level = 0, [parsed]
    while level:
        nested = [value for value in level if isinstance(value, dict | list)]
        depth += bool(nested)
        level = [
            inner
            for value in nested
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return depth
