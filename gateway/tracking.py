"""The Segment tracking protocol: what a request holds, read into customer events. Pure.

One bad item is refused with a reason and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.broken_json import read_broken
from gateway.tracking_items import Around, Document, ItemRefusedError, fields_of
from rapport.events.v1.service_pb2 import (
    Receipt,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
    RecordCustomerEventsResponse,
)
from services.kernel.errors import FieldViolation, InvalidArgument

BODY_BYTES_MAX: Final = 500 * 1024
EVENTS_MAX: Final = 2500

NewId = Callable[[], str]

_OUTCOMES: Final = {
    number: name.removeprefix("RECEIPT_OUTCOME_").lower()
    for name, number in ReceiptOutcome.items()
    if number
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

    request: RecordCustomerEventsRequest = field(default_factory=RecordCustomerEventsRequest)
    refused: dict[int, Refusal] = field(default_factory=dict)

    def receipts(self, recorded: Sequence[Receipt]) -> list[dict[str, Any]]:
        """Returns one receipt per item, in the order in which the items were sent."""
        told = iter(recorded)
        size = len(self.request.customer_events) + len(self.refused)
        return [
            self.refused[place].receipt if place in self.refused else _receipt(next(told))
            for place in range(size)
        ]

    def answer(self, response: RecordCustomerEventsResponse) -> dict[str, Any]:
        """Returns what the sender gets for the whole batch."""
        answer = {"success": True, "receipts": self.receipts(response.receipts)}
        return answer | ({"writeToken": response.write_token} if response.write_token else {})


def read_document(body: bytes) -> Document:
    """Reads the body of a request; raises InvalidArgument when it is no JSON object.

    Of a key that an object has twice, the last one counts.
    """
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


def read_batch(
    document: Document, *, new_message_id: NewId, ip: str = "", item_key: str | None = None
) -> Batch:
    """Reads the body of a batch call; raises InvalidArgument when it is none.

    `item_key` is the write key when only the items said it: then those of others are refused.
    """
    items = document.get("batch")
    if not isinstance(items, list):
        raise refusal_of_body("invalid_batch", "the body needs an array named batch")
    batch, around = Batch(), Around(document, ip=ip)
    add = batch.request.customer_events.add
    for place, item in enumerate(items):
        try:
            if place >= EVENTS_MAX:
                raise _too_long()
            fields = fields_of(item, around)
            if item_key is not None and (item.get("writeKey") or item_key) != item_key:
                raise _other_key()
        except ItemRefusedError as refused:
            batch.refused[place] = _refusal(item, refused)
            continue
        if not fields.get("message_id"):
            fields["message_id"] = new_message_id()
        add(**fields)
    return batch


def read_single(call: str, document: Document, *, new_message_id: NewId, ip: str = "") -> Batch:
    """Reads the body of one of the calls."""
    batch = Batch()
    try:
        fields = fields_of(document, Around({}, ip=ip), call)
    except ItemRefusedError as refused:
        batch.refused[0] = _refusal(document, refused)
        return batch
    fields["message_id"] = fields.get("message_id") or new_message_id()
    batch.request.customer_events.add(**fields)
    return batch


def write_key_of(document: Document) -> str | None:
    """Returns the key that the body itself carries."""
    key = document.get("writeKey")
    return key if isinstance(key, str) and key else None


def item_key_of(document: Document) -> str | None:
    """Returns the key of the first item that carries one."""
    items = document.get("batch")
    for item in items if isinstance(items, list) else ():
        key = write_key_of(item) if isinstance(item, dict) else None
        if key is not None:
            return key
    return None


def _too_long() -> ItemRefusedError:
    detail = f"a batch takes {EVENTS_MAX} events; send the others in another one"
    return ItemRefusedError("BATCH_TOO_LONG", detail)


def _other_key() -> ItemRefusedError:
    detail = "the writeKey is not the one that let the request in"
    return ItemRefusedError("WRITE_KEY_DIFFERS", detail)


def _refusal(item: Any, refused: ItemRefusedError) -> Refusal:
    message_id = item.get("messageId") if isinstance(item, dict) else None
    told = message_id if isinstance(message_id, str) else ""
    return Refusal(told, refused.reason, refused.detail)


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
