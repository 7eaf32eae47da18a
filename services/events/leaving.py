"""What becomes of customer events that are to leave quarantine: recorded, discarded, or not. Pure.

Only what is still in quarantine leaves it, and only once. Whoever comes second, with whatever in
mind, hears what happened first.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import (
    CustomerEventQuarantined,
    CustomerEventRecorded,
    CustomerEventRetracted,
    QuarantinedEventDiscarded,
)
from rapport.events.v1.quarantine_pb2 import QuarantineOutcome, QuarantineReceipt
from services.events.receipts import stream_of
from services.events.schema import Refusal
from services.kernel.command.work import Change, StreamState
from services.kernel.errors import Reason
from services.kernel.log.log import Append, NewEvent, Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.kernel.log.recorded import Recorded

COLLECTION = "quarantinedEvents"

_RECORDED = QuarantineOutcome.QUARANTINE_OUTCOME_RECORDED
_DISCARDED = QuarantineOutcome.QUARANTINE_OUTCOME_DISCARDED
_STILL = QuarantineOutcome.QUARANTINE_OUTCOME_STILL_QUARANTINED
_NOT_THERE = QuarantineOutcome.QUARANTINE_OUTCOME_NOT_THERE
_BEFORE = {
    CustomerEventRecorded.DESCRIPTOR.full_name: (
        QuarantineOutcome.QUARANTINE_OUTCOME_ALREADY_RECORDED
    ),
    QuarantinedEventDiscarded.DESCRIPTOR.full_name: (
        QuarantineOutcome.QUARANTINE_OUTCOME_ALREADY_DISCARDED
    ),
    CustomerEventRetracted.DESCRIPTOR.full_name: _NOT_THERE,
}
_QUARANTINED = CustomerEventQuarantined.DESCRIPTOR.full_name

Fact = CustomerEventRecorded | QuarantinedEventDiscarded


def name_of(message_id: str) -> str:
    """The resource name of a customer event in quarantine."""
    return f"{COLLECTION}/{message_id}"


class Leaving:
    """Some customer events on their way out of quarantine, in the order they were asked for.

    `facts` are what they would become, `refused` says why others stay. Both were judged at a
    version of their streams, those of `versions`; any version is right when there are none. `seen`
    is where each stream ended before anything was decided.
    """

    def __init__(
        self,
        origin: Origin,
        message_ids: Iterable[str],
        *,
        facts: Mapping[str, Fact],
        refused: Mapping[str, Refusal] | None = None,
        versions: Mapping[str, int] | None = None,
    ) -> None:
        self.message_ids = list(dict.fromkeys(message_ids))
        self._origin = origin
        self._facts = facts
        self._refused = refused or {}
        self._versions = versions
        self._receipts: dict[str, QuarantineReceipt] = {}
        self.seen: dict[str, int] = {}

    @property
    def workspace(self) -> str:
        """The workspace they belong to."""
        return self._origin.workspace

    @property
    def streams(self) -> list[str]:
        """The streams that are looked at."""
        return [stream_of(message_id) for message_id in self.message_ids]

    def decide(self, states: Mapping[str, StreamState]) -> list[Change]:
        """What goes into the log, given what the streams have come to."""
        self.seen = {stream: state.last_position for stream, state in states.items()}
        self._receipts = {
            stream_of(message_id): self._receipt(message_id, states.get(stream_of(message_id)))
            for message_id in self.message_ids
        }
        return [
            self._change(message_id, states[stream_of(message_id)])
            for message_id in self.message_ids
            if self._receipts[stream_of(message_id)].outcome in (_RECORDED, _DISCARDED)
        ]

    def receipts(self, recorded: Sequence[Recorded]) -> list[QuarantineReceipt]:
        """What became of each, by the events that landed."""
        for event in recorded:
            receipt = self._receipts[event.stream]
            receipt.partition, receipt.position = event.partition, event.position
        return list(self._receipts.values())

    def left_quarantine(self) -> int:
        """How many left quarantine by what was decided last."""
        outcomes = [receipt.outcome for receipt in self._receipts.values()]
        return outcomes.count(_RECORDED) + outcomes.count(_DISCARDED)

    def stayed(self) -> int:
        """How many stayed in quarantine by what was decided last."""
        return [receipt.outcome for receipt in self._receipts.values()].count(_STILL)

    def _receipt(self, message_id: str, state: StreamState | None) -> QuarantineReceipt:
        receipt = QuarantineReceipt(name=name_of(message_id))
        if state is None or state.last_type != _QUARANTINED:
            receipt.outcome = _BEFORE.get(state.last_type if state else "", _NOT_THERE)
        elif self._versions is not None and self._versions.get(message_id) != state.version:
            receipt.outcome, receipt.reason = _STILL, Reason.CONFLICT
            receipt.detail = "it got into quarantine while this was asked; ask again"
        elif (refusal := self._refused.get(message_id)) is not None:
            receipt.outcome, receipt.reason = _STILL, refusal.reason
            receipt.detail = refusal.detail
        else:
            is_recorded = isinstance(self._facts[message_id], CustomerEventRecorded)
            receipt.outcome = _RECORDED if is_recorded else _DISCARDED
        return receipt

    def _change(self, message_id: str, state: StreamState) -> Change:
        fact = self._facts[message_id]
        occur_time = None
        if isinstance(fact, CustomerEventRecorded):
            occur_time = fact.customer_event.occur_time.ToDatetime(tzinfo=UTC)
        new = NewEvent(fact, occur_time)
        return Change(Append(self._origin, stream_of(message_id), [new], state.version))
