"""Finds out what would become of the rows of an import; records nothing.

Who takes a check over begins anew: nothing is lost by it, and what repeats within the file is known
to the worker alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from google.protobuf.message import Message

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.events_pb2 import ImportChecked
from services.events.import_files import RowError, UnreadableFileError
from services.events.import_mapping import Mapper
from services.events.import_outcomes import (
    ACCEPTED,
    DUPLICATE,
    QUARANTINED,
    REFUSED,
    Outcome,
)
from services.events.projections.importing import FoundError
from services.events.upkeep.import_reading import RowMapper, Rows, reading
from services.kernel.errors import FailedPrecondition

if TYPE_CHECKING:
    from services.events.upkeep.import_reading import Reading
    from services.events.upkeep.import_work import Claimed

# The first of them tell what is wrong; how many there are is counted.
CHECKED_ERRORS_MAX = 1_000
# Ids that are kept to tell which repeat within the file. Beyond it, rows that repeat one which is
# not kept count as if it were not there.
CHECKED_IDS_MAX = 1_000_000
PREVIEW_TIMEOUT_S = 30.0


M = TypeVar("M", bound=Message)
Found: TypeAlias = tuple[Sequence[Outcome], Sequence[FoundError]]
Judge: TypeAlias = Callable[[Rows[M]], Awaitable[Found]]
"""Tells what would become of rows that could be mapped, and what is wrong with them."""


async def check(claimed: Claimed) -> None:
    """Finds out what would become of customer events."""
    # By the rules of now, not of a moment ago.
    claimed.recorder.doors.forget(claimed.job.workspace)
    await check_rows(claimed, Mapper.of(claimed.mapping, claimed.name), _Preview(claimed).judge)


async def check_rows(claimed: Claimed, mapper: RowMapper[M], judge: Judge[M]) -> None:
    """Reads the file to its end, or until it cannot be read."""
    await claimed.begin_anew()
    reason = detail = ""
    try:
        async with reading(claimed.kernel.pool, claimed.row, mapper, claimed.sign_of_life) as found:
            await _check(claimed, found, judge)
    except UnreadableFileError as problem:
        reason, detail = problem.reason, problem.detail
    except FailedPrecondition as refusal:
        reason, detail = "SOURCE_DISABLED", refusal.message
    counts = claimed.progress.counts
    await claimed.end(ImportChecked(counts=counts, reason=reason, detail=detail))


async def _check(claimed: Claimed, found: Reading[M], judge: Judge[M]) -> None:
    """Checks batch after batch; each says so, which fails once the import is cancelled."""
    kept = 0
    while True:
        rows = await found.next()
        outcomes, errors = await judge(rows) if rows.mapped else ((), ())
        claimed.advance(outcomes, rows)
        errors = sorted([*rows.errors, *errors])[: CHECKED_ERRORS_MAX - kept]
        kept += len(errors)
        await claimed.save(errors)
        if rows.problem is not None:
            raise rows.problem
        if rows.is_last or await claimed.has_changed():
            return


class _Preview:
    """What would become of the customer events of one check."""

    def __init__(self, claimed: Claimed) -> None:
        self._claimed = claimed
        self._seen: set[int] = set()

    async def judge(self, rows: Rows[CustomerEvent]) -> Found:
        """What the door and the log say of them."""
        async with asyncio.timeout(PREVIEW_TIMEOUT_S):
            receipts = await self._claimed.recorder.preview(
                self._claimed.origin,
                [event for _, event in rows.mapped],
                source=self._claimed.row.state.source,
            )
        outcomes = [self._repeated(receipt.message_id, receipt.outcome) for receipt in receipts]
        errors = [
            FoundError(number, RowError(receipt.reason, receipt.detail), outcome)
            for (number, _), receipt, outcome in zip(rows.mapped, receipts, outcomes, strict=True)
            if outcome in (REFUSED, QUARANTINED)
        ]
        return outcomes, errors

    def _repeated(self, message_id: str, outcome: Outcome) -> Outcome:
        """The outcome, given that the rows before this one would be recorded."""
        if outcome not in (ACCEPTED, QUARANTINED):
            return outcome
        mark = mark_of(message_id.encode())
        if mark in self._seen:
            return DUPLICATE
        if len(self._seen) < CHECKED_IDS_MAX:
            self._seen.add(mark)
        return outcome


def mark_of(content: bytes) -> int:
    """What tells a content from all others, and is short."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
