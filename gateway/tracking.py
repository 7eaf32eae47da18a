"""The Segment tracking protocol, read into customer events. Pure.

Null is absent, a batch's context and integrations hold for each of its items, numbers may be ids.
One bad item is refused with a reason and the others go on. Mapped by hand: protobuf's own JSON is
twenty times slower, and knows none of this. Rules of a customer event itself are the service's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.broken_json import read_broken
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.service_pb2 import Receipt, ReceiptOutcome, RecordCustomerEventsResponse
from services.kernel.errors import FieldViolation, InvalidArgument

BODY_BYTES_MAX: Final = 500 * 1024
EVENTS_MAX: Final = 2500

Document = Mapping[str, Any]

_TYPES: Final = {
    name.removeprefix("CUSTOMER_EVENT_TYPE_").lower(): number
    for name, number in CustomerEventType.items()
    if number
}
CALLS: Final = tuple(_TYPES)
"""The six calls: track, identify, page, screen, group, alias."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
# A bare number is seconds, or milliseconds as JavaScript counts when it is too large for that.
_SECONDS_MAX: Final = 100_000_000_000
_OUTCOMES: Final = {
    ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED: "accepted",
    ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE: "duplicate",
    ReceiptOutcome.RECEIPT_OUTCOME_REFUSED: "refused",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an item is no customer event."""

    message_id: str
    reason: str
    detail: str

    @property
    def receipt(self) -> dict[str, Any]:
        """The refusal as its sender reads it."""
        return {
            "messageId": self.message_id,
            "outcome": "refused",
            "reason": self.reason,
            "detail": self.detail,
        }


@dataclass(slots=True)
class Batch:
    """What was sent: customer events to be recorded, and what was refused, by its place."""

    customer_events: list[CustomerEvent] = field(default_factory=list)
    refused: dict[int, Refusal] = field(default_factory=dict)

    def receipts(self, recorded: Sequence[Receipt]) -> list[dict[str, Any]]:
        """Returns one receipt per item, in the order in which the items were sent."""
        told = iter(recorded)
        size = len(self.customer_events) + len(self.refused)
        return [
            self.refused[place].receipt if place in self.refused else _receipt(next(told))
            for place in range(size)
        ]

    def answer(self, response: RecordCustomerEventsResponse) -> dict[str, Any]:
        """Returns what the sender gets for the whole batch."""
        answer = {"success": True, "receipts": self.receipts(response.receipts)}
        return answer | ({"writeToken": response.write_token} if response.write_token else {})


class _ItemRefusedError(Exception):
    """When one item of a batch cannot be mapped."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_document(body: bytes) -> Document:
    """Reads the body of a request; raises InvalidArgument when it is no JSON object."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _read_broken(body, str(error))
    if not isinstance(document, dict):
        raise refusal_of_body("invalid_json", "the body must be a JSON object")
    return document


def _read_broken(body: bytes, problem: str) -> Any:
    """Reads it again, ten times slower, for the sake of the events that are sound."""
    try:
        return read_broken(body)
    except ValueError as error:
        raise refusal_of_body("invalid_json", f"the body is not JSON: {problem}") from error


def refusal_of_body(code: str, description: str) -> InvalidArgument:
    """Returns the error that refuses a request as a whole, under the code its sender reads."""
    return InvalidArgument([FieldViolation("body", description, code)], message=description)


def read_batch(document: Document, *, new_message_id: Callable[[], str]) -> Batch:
    """Reads the body of a batch call; raises InvalidArgument when it is none."""
    items = document.get("batch")
    if not isinstance(items, list):
        raise refusal_of_body("invalid_batch", "the body needs an array named batch")
    batch = Batch()
    for place, item in enumerate(items):
        if place >= EVENTS_MAX:
            detail = f"a batch takes {EVENTS_MAX} events; send the others in another one"
            _refuse(batch, place, item, _ItemRefusedError("BATCH_TOO_LONG", detail))
        else:
            _add(batch, place, item, document, new_message_id)
    return batch


def read_single(call: str, document: Document, *, new_message_id: Callable[[], str]) -> Batch:
    """Reads the body of one of the six calls."""
    batch = Batch()
    _add(batch, 0, {**document, "type": call}, {}, new_message_id)
    return batch


def write_key_of(document: Document) -> str | None:
    """Returns the key that the body itself carries."""
    key = document.get("writeKey")
    return key if isinstance(key, str) else None


def _add(
    batch: Batch, place: int, item: Any, around: Document, new_message_id: Callable[[], str]
) -> None:
    try:
        batch.customer_events.append(_customer_event(item, around, new_message_id))
    except _ItemRefusedError as refused:
        _refuse(batch, place, item, refused)


def _refuse(batch: Batch, place: int, item: Any, refused: _ItemRefusedError) -> None:
    message_id = item.get("messageId") if isinstance(item, dict) else None
    told = message_id if isinstance(message_id, str) else ""
    batch.refused[place] = Refusal(told, refused.reason, refused.detail)


def _customer_event(
    item: Any, around: Document, new_message_id: Callable[[], str]
) -> CustomerEvent:
    if not isinstance(item, dict):
        raise _ItemRefusedError("NO_OBJECT", "an event must be a JSON object")
    call = item.get("type")
    number = _TYPES.get(call) if isinstance(call, str) else None
    if number is None:
        raise _ItemRefusedError("TYPE_UNKNOWN", f"the type must be one of {', '.join(CALLS)}")
    context = _context(item, around)
    traits = item.get("traits")
    if traits is None and call == "identify" and isinstance(context, dict):
        traits = context.get("traits")
    occurred = item.get("originalTimestamp")
    return CustomerEvent(
        message_id=_id(item, "messageId") or new_message_id(),
        type=number,
        name=_name(item, "event" if call == "track" else "name"),
        user_id=_id(item, "userId"),
        anonymous_id=_id(item, "anonymousId"),
        previous_id=_id(item, "previousId"),
        group_id=_id(item, "groupId"),
        properties=_json("properties", _properties(item)),
        traits=_json("traits", traits),
        context=_json("context", context),
        original_time=_time("timestamp", item.get("timestamp") if occurred is None else occurred),
        send_time=_time("sentAt", item.get("sentAt") or around.get("sentAt")),
    )


def _context(item: Document, around: Document) -> Any:
    """The item's context over the batch's; where an event may go is kept with it."""
    try:
        context = _merged(around.get("context"), item.get("context"))
        integrations = _merged(around.get("integrations"), item.get("integrations"))
        if integrations is None or integrations == {}:
            return context
        return _merged({"integrations": integrations}, context)
    except RecursionError as error:
        raise _too_deep("context") from error


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


def _id(item: Document, name: str) -> str:
    value = item.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise _ItemRefusedError("IDENTIFIER_INVALID", f"{name} must be a string")


def _name(item: Document, field_name: str) -> str:
    value = item.get(field_name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _ItemRefusedError("NAME_INVALID", f"{field_name} must be a string")
    return value


def _json(name: str, value: Any) -> str:
    if value is None:
        return ""
    try:
        return orjson.dumps(value, default=_refuse_number).decode()
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, ArithmeticError):
            detail = f"{name} holds {error.__cause__}"
            raise _ItemRefusedError("NUMBER_INVALID", detail) from error
        raise _too_deep(name) from error


def _refuse_number(value: object) -> object:
    raise ArithmeticError(value)


def _too_deep(name: str) -> _ItemRefusedError:
    return _ItemRefusedError("JSON_TOO_DEEP", f"{name} is nested too deeply")


def _time(name: str, value: Any) -> Timestamp | None:
    if value is None:
        return None
    try:
        moment = _moment(value)
        seconds = (moment - _EPOCH) // _SECOND
    except (ValueError, OverflowError) as error:
        detail = f"{name} is no ISO 8601 time: {str(value)[:50]!r}"
        raise _ItemRefusedError("TIME_INVALID", detail) from error
    return Timestamp(seconds=seconds, nanos=moment.microsecond * 1000)


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value if abs(value) < _SECONDS_MAX else value / 1000
        return _EPOCH + timedelta(seconds=seconds)
    raise ValueError("neither text nor a number")


def _receipt(receipt: Receipt) -> dict[str, Any]:
    told: dict[str, Any] = {
        "messageId": receipt.message_id,
        "outcome": _OUTCOMES.get(receipt.outcome, "unknown"),
    }
    if receipt.position:
        told |= {"position": receipt.position, "partition": receipt.partition}
    if receipt.reason:
        told |= {"reason": receipt.reason, "detail": receipt.detail}
    return told
