"""What becomes of a batch of customer events, each on its own. Pure.

Each is refused, sampled out, repeats another, or is new: recorded, or kept in quarantine. The first
valid customer event of a message id is the one that counts, in the batch as in the log. One that
was refused was never there, so it does not stand in the way of a valid one with its id.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventQuarantined, CustomerEventRecorded
from rapport.events.v1.service_pb2 import Receipt, ReceiptOutcome
from services.events.door import Admitted, Door, SampledOut, admit
from services.events.schema import Reason, Refusal, made_up_message_id
from services.events.suppressed import hashes_of
from services.events.times import stamp
from services.kernel.erasing.subjects import hash_of, normal_form

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rapport.events.v1.customer_event_pb2 import CustomerEvent

Fact = CustomerEventRecorded | CustomerEventQuarantined

STREAM_PREFIX = "message-"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
_NO_TYPE = CustomerEventType.CUSTOMER_EVENT_TYPE_UNSPECIFIED
_TYPES = frozenset(CustomerEventType.values())

_ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
_DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
_REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
_QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
_SAMPLED_OUT = ReceiptOutcome.RECEIPT_OUTCOME_SAMPLED_OUT
_TURNED_AWAY = (_REFUSED, _SAMPLED_OUT)

SUPPRESSED = Refusal(Reason.SUPPRESSED, "it comes with an identifier that is suppressed")
ERASED = Refusal(Reason.ERASED, "it names somebody who was erased since it happened")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a customer event is in the log."""

    partition: int
    position: int


class Fresh(NamedTuple):
    """A customer event that may go into the log, when it happened, and who must not be in it.

    `quarantine` says why it is one that goes into quarantine, `traces` by which hashes an erased
    person would be known in it.
    """

    fact: Fact
    occur_time: datetime
    suspects: frozenset[str]
    quarantine: Refusal | None = None
    traces: frozenset[str] = frozenset()


class Tally(NamedTuple):
    """What is counted together: customer events of one type, name and outcome.

    Only track calls are counted by name: pages and screens have as many names as there are urls.
    """

    type: CustomerEventType.ValueType
    name: str
    outcome: ReceiptOutcome.ValueType
    reason: str


@dataclass(frozen=True, slots=True)
class Inlet:
    """How a batch comes in: through which door, when, and in which call or import.

    `suppression_key` hashes identifiers where the workspace has suppressed some, `erasure_key`
    where it has erased somebody.
    """

    door: Door
    receive_time: datetime
    call: str
    import_name: str = ""
    suppression_key: bytes = b""
    erasure_key: bytes = b""


class Batch:
    """The customer events of one call, judged as they came.

    `fresh` holds what may go into the log, by stream. Whether it is new only the log knows.
    """

    def __init__(self, sent: Iterable[CustomerEvent], inlet: Inlet) -> None:
        """Judges them in turn; whoever cannot have them all judged at once adds them one by one."""
        self.fresh: dict[str, Fresh] = {}
        self._inlet = inlet
        self._receive_us = (inlet.receive_time - _EPOCH) // timedelta(microseconds=1)
        self._receive_time = Timestamp()
        _set_time(self._receive_time, self._receive_us)
        self._kinds: list[tuple[CustomerEventType.ValueType, str]] = []
        self._receipts: list[Receipt] = []
        self._suspicious: list[tuple[Receipt, Fresh]] = []
        for customer_event in sent:
            self.add(customer_event)

    def add(self, sent: CustomerEvent) -> None:
        """Judges the next; a missing id is made from the call, which a repeated call has again."""
        kind = sent.type
        # A number that is no type is as good as none: there are more of them than are counted.
        known = kind if kind in _TYPES else _NO_TYPE
        self._kinds.append((known, sent.name if kind == _TRACK else ""))
        self._receipts.append(self._judge(sent, len(self._receipts)))

    @property
    def receive_time(self) -> datetime:
        """When it came in."""
        return self._inlet.receive_time

    @property
    def has_erased_messages(self) -> bool:
        """Whether the workspace has erased anything."""
        return self._inlet.door.has_erased_messages

    @property
    def traces(self) -> set[str]:
        """The hashes of all identifiers by which an erased person would be known."""
        return {trace for _, fresh in self._suspicious for trace in fresh.traces}

    @property
    def suspects(self) -> set[str]:
        """The ids of all suppressions that would concern the batch."""
        return {suspect for _, fresh in self._suspicious for suspect in fresh.suspects}

    def refuse(self, suppressed: Collection[str], erased: Mapping[str, datetime]) -> None:
        """Refuses what comes with a suppressed identifier, and what is of before an erasure.

        `erased` tells by hash until when what happened is gone.
        """
        self.fresh = {}
        for receipt, fresh in self._suspicious:
            if not fresh.suspects.isdisjoint(suppressed):
                refusal = SUPPRESSED
            elif is_erased(fresh.occur_time, fresh.traces, erased):
                refusal = ERASED
            else:
                self.fresh.setdefault(stream_of(receipt.message_id), fresh)
                continue
            receipt.outcome = _REFUSED
            receipt.reason, receipt.detail = refusal.reason, refusal.detail

    def receipts(
        self, *, recorded: Mapping[str, Place], known: Mapping[str, Place]
    ) -> list[Receipt]:
        """The receipts in the batch's order, of streams `recorded` now or `known` before."""
        told: set[str] = set()
        for receipt in self._receipts:
            if receipt.outcome in _TURNED_AWAY:
                continue
            stream = stream_of(receipt.message_id)
            place = recorded.get(stream)
            if place is not None and stream not in told:
                why = self.fresh[stream].quarantine
                receipt.outcome = _ACCEPTED if why is None else _QUARANTINED
                if why is not None:
                    receipt.reason, receipt.detail = why.reason, why.detail
                told.add(stream)
            else:
                receipt.outcome = _DUPLICATE
                receipt.ClearField("reason")
                receipt.ClearField("detail")
                place = place or known[stream]
            receipt.partition, receipt.position = place.partition, place.position
        return self._receipts

    def turned_away(self) -> Counter[Tally]:
        """How often what was not recorded, by receipts that have been answered."""
        return Counter(
            Tally(*kind, receipt.outcome, receipt.reason)
            for kind, receipt in zip(self._kinds, self._receipts, strict=True)
            if receipt.outcome not in (_ACCEPTED, _QUARANTINED)
        )

    def _judge(self, sent: CustomerEvent, place: int) -> Receipt:
        sent.ClearField("violations")
        sent.ClearField("time_flags")
        # Of what was sent: a retry has the same id, even if transformations have changed meanwhile.
        message_id = sent.message_id or made_up_message_id(sent, call=self._inlet.call, place=place)
        found = admit(self._inlet.door, sent)
        if isinstance(found, Refusal):
            return Receipt(
                message_id=sent.message_id,
                outcome=_REFUSED,
                reason=found.reason,
                detail=found.detail,
            )
        if isinstance(found, SampledOut):
            return Receipt(message_id=message_id, outcome=_SAMPLED_OUT)
        receipt = Receipt()
        receipt.message_id = message_id
        stream = stream_of(message_id)
        if self._inlet.door.has_suppressions or self._inlet.door.has_erased_people:
            # The first of a message id may turn out to be refused: then the next counts.
            fresh = self._stamp(found, message_id)
            self._suspicious.append((receipt, fresh))
            self.fresh.setdefault(stream, fresh)
        elif stream not in self.fresh:
            self.fresh[stream] = self._stamp(found, message_id)
        return receipt

    def _stamp(self, admitted: Admitted, message_id: str) -> Fresh:
        """The fact: what was sent as it was let in, with our two times and what is odd of them."""
        sent = admitted.opened.event
        occur_us, flags = stamp(sent, receive_us=self._receive_us)
        # Copied into, as a message given to a constructor takes three times as long.
        fact = (
            CustomerEventRecorded() if admitted.quarantine is None else CustomerEventQuarantined()
        )
        stamped = fact.customer_event
        stamped.CopyFrom(sent)
        stamped.message_id = message_id
        stamped.source = self._inlet.door.source
        stamped.import_name = self._inlet.import_name
        stamped.receive_time.CopyFrom(self._receive_time)
        _set_time(stamped.occur_time, occur_us)
        if flags:
            stamped.time_flags.extend(flags)
        suspects: frozenset[str] = frozenset()
        if self._inlet.door.has_suppressions:
            suspects = frozenset(hashes_of(self._inlet.suppression_key, admitted.carried))
        occur_time = _EPOCH + timedelta(microseconds=occur_us)
        traces = frozenset(traces_of(self._inlet.erasure_key, admitted.named))
        return Fresh(fact, occur_time, suspects, admitted.quarantine, traces)


def traces_of(key: bytes, named: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The hashes by which the register of the erased would know these identifiers."""
    for type_name, raw in set(named):
        form = normal_form(type_name, raw)
        if form:
            yield hash_of(key, type_name, form)


def is_erased(
    occur_time: datetime, traces: Collection[str], erased: Mapping[str, datetime]
) -> bool:
    """Whether something happened before one whom it names was erased."""
    return any(trace in erased and occur_time <= erased[trace] for trace in traces)


def erased_stream_of(key: bytes, message_id: str) -> str:
    """The stream in which a message is kept that was erased: its id may have told whose it was."""
    return f"erased-{hash_of(key, 'message_id', message_id)}"


def stream_of(message_id: str) -> str:
    """The stream of one customer event: another message id, whatever it holds, another stream."""
    return f"{STREAM_PREFIX}{message_id}"


def message_id_of(stream: str) -> str:
    """The message id of the customer event whose stream this is."""
    return stream.removeprefix(STREAM_PREFIX)


def _set_time(time: Timestamp, at_us: int) -> None:
    time.seconds, microseconds = divmod(at_us, 1_000_000)
    time.nanos = microseconds * 1000
