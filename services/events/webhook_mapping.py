"""What a delivery means: customer events, or why it is none. Pure.

A delivery is mapped as a whole or not at all: its sender sends it again until the mapping fits it,
and what had been recorded before would only be a duplicate then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import WebhookMapping
from services.events.expression_syntax import ExpressionError
from services.events.expressions import Expression, Seen, Work, compiled_expression
from services.events.schema import depth_of
from services.kernel.errors import FieldViolation, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

BODY_BYTES_MAX: Final = 512 * 1024
ITEMS_MAX: Final = 500
"""Customer events of one delivery."""
MAPPED_BYTES_MAX: Final = 4 * 1024 * 1024
"""All of them together; what comes by other ways is no larger either."""
BODY_DEPTH_MAX: Final = 64
DELIVERY_ID_CHARACTERS_MAX: Final = 500

_TEXTS: Final = ("name", "user_id", "anonymous_id", "previous_id", "group_id", "message_id")
_OBJECTS: Final = ("properties", "traits", "context")
_EACH: Final = ("when", "type", *_TEXTS, "original_time", *_OBJECTS, "ends_membership")
_ROOTS: Final = frozenset({"body", "headers", "query"})
_OF_ITEMS: Final = _ROOTS | {"item", "index"}
_TYPES: Final = {
    name.removeprefix("CUSTOMER_EVENT_TYPE_").lower(): value
    for name, value in CustomerEventType.items()
    if value
}
# Seconds since 1970 reach this in the year 5138, milliseconds did in 1973.
_SECONDS_MAX: Final = 1e11


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came to a webhook, believed. `delivery_id` is the sender's own, or empty."""

    webhook: str
    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str]
    delivery_id: str


class Unmapped(Exception):
    """When a mapping does not fit a delivery; says what in it and why."""


class CompiledMapping:
    """A mapping that was found harmless."""

    def __init__(self, mapping: WebhookMapping) -> None:
        """Raises InvalidArgument that names each expression which is none."""
        self._violations: list[FieldViolation] = []
        if not mapping.type:
            self._violations.append(FieldViolation("mapping.type", "is needed"))
        variables = _OF_ITEMS if mapping.for_each else _ROOTS
        self._for_each = self._compiled(mapping, "for_each", _ROOTS)
        each = {name: self._compiled(mapping, name, variables) for name in _EACH}
        self._each = {name: found for name, found in each.items() if found is not None}
        if self._violations:
            raise InvalidArgument(self._violations)

    def customer_events(self, delivery: Delivery) -> list[CustomerEvent]:
        """The customer events that a delivery is; none when it is not wanted. Raises Unmapped."""
        sent = _seen_of(delivery)
        if self._for_each is None:
            found = self._one(sent, delivery, "")
            return [] if found is None else [found]
        items = _value(self._for_each, "for_each", sent)
        if not isinstance(items, list):
            raise Unmapped("for_each: gives no list")
        if len(items) > ITEMS_MAX:
            raise Unmapped(f"for_each: gives more than {ITEMS_MAX} items")
        customer_events, left = [], MAPPED_BYTES_MAX
        for index, item in enumerate(items):
            _say(sent, "item", item)
            sent.say("index", index)
            found = self._one(sent, delivery, f"{index}")
            if found is not None:
                customer_events.append(found)
                left -= found.ByteSize()
            if left < 0:
                raise Unmapped(f"for_each: gives more than {MAPPED_BYTES_MAX} bytes")
        return customer_events

    def _compiled(
        self, mapping: WebhookMapping, name: str, variables: frozenset[str]
    ) -> Expression | None:
        source = getattr(mapping, name)
        if not source:
            return None
        try:
            return compiled_expression(source, variables)
        except ExpressionError as error:
            self._violations.append(FieldViolation(f"mapping.{name}", str(error)))
            return None

    def _one(self, sent: Seen, delivery: Delivery, index: str) -> CustomerEvent | None:
        """One customer event, or None when it is not wanted."""
        wanted = self._said("when", sent, True)
        if not isinstance(wanted, bool):
            raise Unmapped("when: is neither true nor false")
        if not wanted:
            return None
        found = CustomerEvent(type=self._type(sent))
        for name in _TEXTS:
            setattr(found, name, _text(name, self._said(name, sent)))
        for name in _OBJECTS:
            setattr(found, name, _object(name, self._said(name, sent)))
        time = _time(self._said("original_time", sent))
        if time is not None:
            found.original_time.FromDatetime(time)
        ends = self._said("ends_membership", sent, False)
        if not isinstance(ends, bool):
            raise Unmapped("ends_membership: is neither true nor false")
        found.ends_membership = ends
        found.message_id = found.message_id or made_up_message_id(delivery, index)
        return found

    def _said(self, name: str, sent: Seen, default: Any = None) -> Any:
        expression = self._each.get(name)
        if expression is None:
            return default
        value = _value(expression, name, sent)
        return default if value is None else value

    def _type(self, sent: Seen) -> CustomerEventType.ValueType:
        said = self._said("type", sent)
        kind = _TYPES.get(said) if isinstance(said, str) else None
        if kind is None:
            raise Unmapped(f"type: must be one of {', '.join(_TYPES)}")
        return kind


def made_up_message_id(delivery: Delivery, index: str) -> str:
    """A message id that a delivery has again when it is sent again, and no other webhook's has."""
    sent = delivery.delivery_id[:DELIVERY_ID_CHARACTERS_MAX]
    parts = [delivery.webhook, sent, "" if sent else hashlib.sha256(delivery.body).hexdigest()]
    digest = hashlib.sha256(orjson.dumps([*parts, index])).hexdigest()
    return f"webhook-{digest[:32]}"


def _read(body: bytes) -> Any:
    """A body as JSON, unless it is nested too deep."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unmapped(f"the body is not JSON: {error}") from error
    if depth_of(found) > BODY_DEPTH_MAX:
        raise Unmapped(f"the body is nested more than {BODY_DEPTH_MAX} levels deep")
    return found


def _seen_of(delivery: Delivery) -> Seen:
    variables = {
        "body": _read(delivery.body),
        "headers": dict(delivery.headers),
        "query": dict(delivery.query),
    }
    try:
        return Seen(variables, Work())
    except ExpressionError as error:
        raise Unmapped(str(error)) from error


def _say(sent: Seen, name: str, value: Any) -> None:
    try:
        sent.say(name, value)
    except ExpressionError as error:
        raise Unmapped(f"for_each: {error}") from error


def _value(expression: Expression, name: str, sent: Seen) -> Any:
    try:
        return expression.value_in(sent)
    except ExpressionError as error:
        raise Unmapped(f"{name}: {error}") from error


def _text(name: str, value: Any) -> str:
    """A text, or a number as one: many systems count their users."""
    match value:
        case None:
            return ""
        case str():
            return value
        case int() if not isinstance(value, bool):
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
    raise Unmapped(f"{name}: is neither a text nor a whole number")


def _object(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, dict):
        raise Unmapped(f"{name}: is no map")
    # A map of CEL's has no order; the same delivery shall say the same each time.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode() if value else ""


def _time(value: Any) -> datetime | None:
    """A time, however it is written; one without a zone is UTC."""
    if value in (None, ""):
        return None
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) > _SECONDS_MAX else value
            value = datetime.fromtimestamp(seconds, tz=UTC)
        if isinstance(value, datetime):
            zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
            return zoned.astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Unmapped("original_time: is no time between the years 1 and 9999") from error
    raise Unmapped("original_time: is no time")
