"""One item of the tracking protocol, read into the fields of a customer event. Pure.

Null is absent, numbers may be ids, what a request says around its items holds for each of them.
Mapped by hand: protobuf's own JSON is twenty times slower, and knows none of this. Rules of a
customer event itself are the service's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEventType

Document = Mapping[str, Any]
Time = dict[str, int]
"""A protobuf Timestamp as its constructor takes it: quicker than making one."""

CALLS: Final[Mapping[str, int]] = {
    name.removeprefix("CUSTOMER_EVENT_TYPE_").lower(): number
    for name, number in CustomerEventType.items()
    if number
}
"""The calls track, identify, page, screen, group, alias and account, with their types."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400
# A bare number is seconds, or milliseconds as JavaScript counts when it is too large for that.
_SECONDS_MAX: Final = 100_000_000_000


class ItemRefusedError(Exception):
    """When one item cannot be read as a customer event."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Around:
    """What a request says of all its items, and `ip`, from where it came."""

    def __init__(self, document: Document, *, ip: str = "") -> None:
        self.context = document.get("context") or None
        self.integrations = document.get("integrations") or None
        self.ip = ip
        self._send_time: Time | None = None
        self._refusal: tuple[str, str] | None = None
        try:
            self._send_time = _time("sentAt", document.get("sentAt"))
        except ItemRefusedError as refused:
            self._refusal = refused.reason, refused.detail

    @property
    def send_time(self) -> Time | None:
        """When it was sent; raises ItemRefusedError where that is no time."""
        if self._refusal is not None:
            raise ItemRefusedError(*self._refusal)
        return self._send_time


def fields_of(item: Any, around: Around, call: str | None = None) -> dict[str, Any]:
    """Returns the fields of a customer event; raises ItemRefusedError when it is none.

    `call` is what the path says, and then an item's own type says nothing.
    """
    if not isinstance(item, dict):
        raise ItemRefusedError("NO_OBJECT", "an event must be a JSON object")
    get = item.get
    call = call or get("type")
    if not isinstance(call, str) or (number := CALLS.get(call)) is None:
        raise ItemRefusedError("TYPE_UNKNOWN", f"the type must be one of {', '.join(CALLS)}")
    context = _context(item, around)
    fields: dict[str, Any] = {"type": number}
    for field, name in _IDS:
        value = get(name)
        if value is not None:
            fields[field] = value if type(value) is str else _id(name, value)
    name = "event" if call == "track" else "name"
    if (value := get(name)) is not None:
        fields["name"] = _text(name, value)
    for field, value in (
        ("properties", _properties(item)),
        ("traits", _traits(call, item, context)),
        ("context", context),
    ):
        if value is not None:
            fields[field] = _json(field, value)
    _add_times(fields, item, around)
    if call == "group":
        fields["ends_membership"] = _ends_membership(item, context)
    elif call == "account" and "group_id" not in fields:
        fields["group_id"] = _id("accountId", get("accountId"))
    return fields


_IDS: Final = (
    ("message_id", "messageId"),
    ("user_id", "userId"),
    ("anonymous_id", "anonymousId"),
    ("previous_id", "previousId"),
    ("group_id", "groupId"),
)


def _context(item: Document, around: Around) -> Any:
    """The item's context over the request's; where an event came by and may go is kept with it."""
    context = item.get("context")
    integrations = item.get("integrations") or None
    channel = item.get("channel")
    try:
        if around.context is not None:
            context = _merged(around.context, context)
        if around.integrations is not None:
            integrations = _merged(around.integrations, integrations)
        if integrations is not None:
            context = _merged({"integrations": integrations}, context)
        if channel is not None:
            context = _merged({"channel": channel}, context)
    except RecursionError as error:
        raise _too_deep("context") from error
    if around.ip and isinstance(context, dict) and context.get("direct") is True:
        # The item came from the person's own device, which does not know its address.
        return {"ip": around.ip} | {key: it for key, it in context.items() if it is not None}
    return context


def _merged(outer: Any, inner: Any) -> Any:
    """Two JSON values in one: objects key by key, else the inner one unless it is absent."""
    if inner is None:
        return outer
    if isinstance(outer, dict) and isinstance(inner, dict):
        return outer | {key: _merged(outer.get(key), value) for key, value in inner.items()}
    return inner


def _properties(item: Document) -> Any:
    """The properties; the category of a page or screen is one of them."""
    properties, category = item.get("properties"), item.get("category")
    return properties if category is None else _merged({"category": category}, properties)


def _traits(call: str, item: Document, context: Any) -> Any:
    """The traits; those of an identify may be in its context."""
    traits = item.get("traits")
    if traits is None and call == "identify" and isinstance(context, dict):
        return context.get("traits")
    return traits


def _ends_membership(item: Document, context: Any) -> bool:
    """Whether a group call says that somebody is in the group no longer."""
    told = item.get("endsMembership")
    if told is None and isinstance(context, dict):
        told = context.get("endsMembership")
    if told is None or isinstance(told, bool):
        return bool(told)
    # Taken for absent, it would make the opposite of what may have been meant.
    raise ItemRefusedError("ENDS_MEMBERSHIP_INVALID", "endsMembership must be true or false")


def _id(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ItemRefusedError("IDENTIFIER_INVALID", f"{name} must be a string")


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ItemRefusedError("NAME_INVALID", f"{name} must be a string")


def _json(name: str, value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_refuse_number)
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, ArithmeticError):
            detail = f"{name} holds {error.__cause__}"
            raise ItemRefusedError("NUMBER_INVALID", detail) from error
        raise _too_deep(name) from error


def _refuse_number(value: object) -> object:
    raise ArithmeticError(value)


def _too_deep(name: str) -> ItemRefusedError:
    return ItemRefusedError("JSON_TOO_DEEP", f"{name} is nested too deeply")


def _add_times(fields: dict[str, Any], item: Document, around: Around) -> None:
    """Adds the source's own times; `timestamp` beside `originalTimestamp` is a corrected one."""
    occurred, corrected = item.get("originalTimestamp"), item.get("timestamp")
    if occurred is None:
        occurred, corrected = corrected, None
    if occurred is not None:
        fields["original_time"] = _time("timestamp", occurred)
    if corrected is not None:
        fields["corrected_time"] = _time("timestamp", corrected)
    sent = item.get("sentAt")
    send_time = _time("sentAt", sent) if sent is not None else around.send_time
    if send_time is not None:
        fields["send_time"] = send_time


def _time(name: str, value: Any) -> Time | None:
    if value is None:
        return None
    try:
        since = _moment(value) - _EPOCH
    except (ValueError, OverflowError) as error:
        # What is nested may be nested too deeply to be shown.
        told = type(value).__name__ if isinstance(value, dict | list) else str(value)[:50]
        raise ItemRefusedError("TIME_INVALID", f"{name} is no ISO 8601 time: {told!r}") from error
    return {"seconds": since.days * _DAY_S + since.seconds, "nanos": since.microseconds * 1000}


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value if abs(value) < _SECONDS_MAX else value / 1000
        return _EPOCH + timedelta(seconds=seconds)
    raise ValueError("neither text nor a number")
