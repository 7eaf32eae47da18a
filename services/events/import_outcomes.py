"""What became of the rows of a batch, even if it was recorded more than once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rapport.events.v1.import_job_pb2 import ImportCounts
from rapport.events.v1.service_pb2 import ReceiptOutcome

Outcome: TypeAlias = ReceiptOutcome.ValueType

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
SAMPLED_OUT = ReceiptOutcome.RECEIPT_OUTCOME_SAMPLED_OUT

_LANDED = (ACCEPTED, QUARANTINED)


def settle(
    message_ids: Sequence[str], outcomes: Sequence[Outcome], landed: Mapping[str, Outcome]
) -> list[Outcome]:
    """What really became of each row of a batch.

    `outcomes` are those of its last recording; `landed` tells which message ids this very batch
    brought into the log, perhaps in an earlier recording whose answer nobody got. An id that landed
    is no duplicate of itself: the first row that the rules let in brought it. Where the rules have
    changed since and let in none, one of its rows did all the same.
    """
    settled = list(outcomes)
    told = {
        message_id
        for message_id, outcome in zip(message_ids, outcomes, strict=True)
        if outcome in _LANDED
    }
    for place, message_id in enumerate(message_ids):
        if settled[place] == DUPLICATE and message_id in landed and message_id not in told:
            settled[place] = landed[message_id]
            told.add(message_id)
    for place, message_id in reversed(list(enumerate(message_ids))):
        if message_id in landed and message_id not in told:
            settled[place] = landed[message_id]
            told.add(message_id)
    return settled


def counts_of(outcomes: Sequence[Outcome], unmapped: int) -> ImportCounts:
    """The counts of rows with these outcomes, and of rows that could not be mapped."""
    by_outcome = Counter(outcomes)
    return ImportCounts(
        rows=len(outcomes) + unmapped,
        accepted=by_outcome[ACCEPTED],
        duplicate=by_outcome[DUPLICATE],
        refused=by_outcome[REFUSED],
        quarantined=by_outcome[QUARANTINED],
        sampled_out=by_outcome[SAMPLED_OUT],
        unmapped=unmapped,
    )


def added(one: ImportCounts, other: ImportCounts) -> ImportCounts:
    """The sum of two counts."""
    names = ImportCounts.DESCRIPTOR.fields_by_name
    return ImportCounts(**{name: getattr(one, name) + getattr(other, name) for name in names})
