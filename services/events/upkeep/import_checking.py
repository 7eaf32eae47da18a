"""Finds out what would become of the rows of an import; records nothing.

Who takes a check over begins anew: nothing is lost by it, and ids that repeat within the file are
known to the worker alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import ImportChecked
from services.events.import_files import RowError, UnreadableFileError
from services.events.import_outcomes import (
    ACCEPTED,
    DUPLICATE,
    QUARANTINED,
    REFUSED,
    added,
    counts_of,
)
from services.events.projections.importing import FoundError
from services.events.upkeep.import_reading import reading
from services.kernel.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.events.import_outcomes import Outcome
    from services.events.upkeep.import_reading import Reading, Rows
    from services.events.upkeep.import_work import Claimed

# The first of them tell what is wrong; how many there are is counted.
CHECKED_ERRORS_MAX = 1_000
# Message ids that are kept to tell which repeat within the file. Beyond it, those that repeat one
# which is not kept count as accepted.
CHECKED_IDS_MAX = 1_000_000
PREVIEW_TIMEOUT_S = 30.0


async def check(claimed: Claimed) -> None:
    """Reads the file to its end, or until it cannot be read."""
    await claimed.begin_anew()
    reason = detail = ""
    try:
        async with reading(claimed.kernel.pool, claimed.row, claimed.sign_of_life) as found:
            await _Checking(claimed, found).run()
    except UnreadableFileError as problem:
        reason, detail = problem.reason, problem.detail
    except FailedPrecondition as refusal:
        reason, detail = "SOURCE_DISABLED", refusal.message
    counts = claimed.progress.counts
    await claimed.end(ImportChecked(counts=counts, reason=reason, detail=detail))


class _Checking:
    """The batches of one check."""

    def __init__(self, claimed: Claimed, found: Reading) -> None:
        self._claimed = claimed
        self._reading = found
        self._kept = 0
        self._seen: set[int] = set()

    async def run(self) -> None:
        """Checks batch after batch; each says so, which fails once the import is cancelled."""
        progress = self._claimed.progress
        # By the rules of now, not of a moment ago.
        self._claimed.recorder.doors.forget(self._claimed.job.workspace)
        while True:
            rows = await self._reading.next()
            outcomes, errors = await self._check(rows)
            progress.counts = added(progress.counts, counts_of(outcomes, len(rows.errors)))
            progress.read_bytes = rows.read_bytes
            if rows.is_last:
                progress.read_bytes = self._claimed.row.state.size_bytes
            errors = sorted([*rows.errors, *errors])[: CHECKED_ERRORS_MAX - self._kept]
            self._kept += len(errors)
            await self._claimed.save(errors)
            if rows.problem is not None:
                raise rows.problem
            if rows.is_last or await self._claimed.has_changed():
                return

    async def _check(self, rows: Rows) -> tuple[Sequence[Outcome], Sequence[FoundError]]:
        if not rows.events:
            return (), ()
        async with asyncio.timeout(PREVIEW_TIMEOUT_S):
            receipts = await self._claimed.recorder.preview(
                self._claimed.origin,
                [event for _, event in rows.events],
                source=self._claimed.row.state.source,
            )
        outcomes = [self._repeated(receipt.message_id, receipt.outcome) for receipt in receipts]
        errors = [
            FoundError(number, RowError(receipt.reason, receipt.detail), outcome)
            for (number, _), receipt, outcome in zip(rows.events, receipts, outcomes, strict=True)
            if outcome in (REFUSED, QUARANTINED)
        ]
        return outcomes, errors

    def _repeated(self, message_id: str, outcome: Outcome) -> Outcome:
        """The outcome, given that the rows before this one would be recorded."""
        if outcome not in (ACCEPTED, QUARANTINED):
            return outcome
        digest = hashlib.blake2b(message_id.encode(), digest_size=8).digest()
        mark = int.from_bytes(digest, "big")
        if mark in self._seen:
            return DUPLICATE
        if len(self._seen) < CHECKED_IDS_MAX:
            self._seen.add(mark)
        return outcome
