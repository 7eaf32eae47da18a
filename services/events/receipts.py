"""What becomes of a batch of customer events: each is refused, repeats another, or is new. Pure.

The first valid customer event of a message id is the one that counts, in the batch as in the log.
One that was refused was never there, so it does not stand in the way of a valid one with its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import CustomerEventRecorded
from rapport.events.v1.service_pb2 import Receipt, ReceiptOutcome
from services.events.schema import made_up_message_id, occur_us_of, refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

    from rapport.events.v1.customer_event_pb2 import CustomerEvent

_STREAM_PREFIX = "message-"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
_DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
_REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED


@dataclass(frozen=True, slots=True)
class Place:
    """Where a customer event is in the log."""

    partition: int
    position: int


class Batch:
    """The customer events of one call, judged as they came.

    `fresh` holds what may be recorded, by stream, each with the time it happened. Whether it is new
    only the log knows.
    """

    def __init__(self, sent: Iterable[CustomerEvent], *, receive_time: datetime, call: str) -> None:
        """Judges them; missing ids are made from `call`, which a repeated call has again."""
        self.fresh: dict[str, tuple[CustomerEventRecorded, datetime]] = {}
        self._receive_us = (receive_time - _EPOCH) // timedelta(microseconds=1)
        self._receipts: list[Receipt] = []
        for place, customer_event in enumerate(sent):
            self._receipts.append(self._judge(customer_event, call=call, place=place))

    def receipts(
        self, *, recorded: Mapping[str, Place], known: Mapping[str, Place]
    ) -> list[Receipt]:
        """The receipts in the batch's order, of streams `recorded` now or `known` before."""
        told: set[str] = set()
        for receipt in self._receipts:
            if receipt.outcome == _REFUSED:
                continue
            stream = stream_of(receipt.message_id)
            place = recorded.get(stream)
            if place is not None and stream not in told:
                receipt.outcome = _ACCEPTED
                told.add(stream)
            else:
                receipt.outcome = _DUPLICATE
                place = place or known[stream]
            receipt.partition, receipt.position = place.partition, place.position
        return self._receipts

    def _judge(self, sent: CustomerEvent, *, call: str, place: int) -> Receipt:
        refusal = refusal_of(sent)
        if refusal is not None:
            return Receipt(
                message_id=sent.message_id,
                outcome=_REFUSED,
                reason=refusal.reason,
                detail=refusal.detail,
            )
        message_id = sent.message_id or made_up_message_id(sent, call=call, place=place)
        stream = stream_of(message_id)
        if stream not in self.fresh:
            self.fresh[stream] = self._stamp(sent, message_id)
        return Receipt(message_id=message_id)

    def _stamp(
        self, sent: CustomerEvent, message_id: str
    ) -> tuple[CustomerEventRecorded, datetime]:
        """The fact: what was sent as it was sent, with our two times."""
        occur_us = occur_us_of(sent, receive_us=self._receive_us)
        fact = CustomerEventRecorded(customer_event=sent)
        stamped = fact.customer_event
        stamped.message_id = message_id
        _set_time(stamped.receive_time, self._receive_us)
        _set_time(stamped.occur_time, occur_us)
        return fact, _EPOCH + timedelta(microseconds=occur_us)


def stream_of(message_id: str) -> str:
    """The stream of one customer event: another message id, whatever it holds, another stream."""
    return f"{_STREAM_PREFIX}{message_id}"


def _set_time(time: Timestamp, at_us: int) -> None:
    time.seconds, microseconds = divmod(at_us, 1_000_000)
    time.nanos = microseconds * 1000
