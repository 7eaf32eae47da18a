"""Records the rows of an import, batch by batch."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.events_pb2 import ImportFailed, ImportFinished, ImportPaused
from services.events.import_files import RowError, UnreadableFileError
from services.events.import_mapping import Mapper
from services.events.import_outcomes import (
    DUPLICATE,
    REFUSED,
    settle,
)
from services.events.projections.imported import landed_since
from services.events.projections.importing import FoundError, count_errors
from services.events.upkeep.import_reading import reading
from services.kernel.errors import FailedPrecondition, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from rapport.events.v1.service_pb2 import Receipt
    from services.events.import_outcomes import Outcome
    from services.events.upkeep.import_reading import Reading, RowMapper, Rows
    from services.events.upkeep.import_work import Claimed

# All are kept, so a file with more than this is not worth going on with.
ROW_ERRORS_MAX = 100_000
RECORD_TIMEOUT_S = 30.0
RECORD_ATTEMPTS_MAX = 10
RETRY_PAUSE_S = 0.1
RETRY_PAUSE_MAX_S = 2.0

M = TypeVar("M", bound=Message)


async def record(claimed: Claimed) -> None:
    """Goes on where the progress stands until all rows are recorded or the import cannot go on."""
    kept = await count_errors(claimed.kernel.pool, claimed.job)

    async def run(found: Reading[CustomerEvent]) -> None:
        await _Recording(claimed, found, kept).run()

    await go_on(claimed, Mapper.of(claimed.mapping, claimed.name), run)


async def go_on(
    claimed: Claimed, mapper: RowMapper[M], run: Callable[[Reading[M]], Awaitable[None]]
) -> None:
    """Runs from where the progress stands; the import fails if its file cannot be opened."""
    pool, sign_of_life = claimed.kernel.pool, claimed.sign_of_life
    try:
        async with reading(pool, claimed.row, mapper, sign_of_life) as found:
            await found.skip(claimed.progress.counts.rows, sign_of_life)
            await run(found)
    except UnreadableFileError as problem:
        await claimed.end(_failed(claimed, problem))


def ending(claimed: Claimed, rows: Rows[Any], kept: int) -> Message | None:
    """What the import ends with when these rows are counted, if it ends; `kept` are row errors."""
    problem = rows.problem
    if kept > ROW_ERRORS_MAX:
        detail = f"something is wrong with more than {ROW_ERRORS_MAX} rows"
        problem = UnreadableFileError("ROW_ERRORS_TOO_MANY", detail)
    if problem is not None:
        return _failed(claimed, problem)
    return ImportFinished(counts=claimed.progress.counts) if rows.is_last else None


def _failed(claimed: Claimed, problem: UnreadableFileError) -> ImportFailed:
    return ImportFailed(
        counts=claimed.progress.counts, reason=problem.reason, detail=problem.detail
    )


class _Recording:
    """The batches of one import on their way into the log, one at a time."""

    def __init__(self, claimed: Claimed, found: Reading[CustomerEvent], kept: int) -> None:
        self._claimed = claimed
        self._reading = found
        self._kept = kept
        # Whether the next rows may have been recorded before, by whoever had the work.
        self._is_uncertain = True

    async def run(self) -> None:
        """Records batch after batch; the import ends with the last of them, or pauses."""
        # A source that was disabled until a moment ago is enabled.
        self._claimed.recorder.doors.forget(self._claimed.job.workspace)
        while True:
            rows = await self._reading.next()
            try:
                outcomes, refused = await self._record(rows)
            except FailedPrecondition as refusal:
                paused = ImportPaused(reason="SOURCE_DISABLED", detail=refusal.message)
                await self._claimed.save(fact=paused)
                return
            if await self._save(rows, outcomes, [*rows.errors, *refused]):
                return
            self._is_uncertain = False

    async def _save(
        self,
        rows: Rows[CustomerEvent],
        outcomes: Sequence[Outcome],
        errors: Sequence[FoundError],
    ) -> bool:
        """Saves what became of rows; tells whether the import has ended by it."""
        self._claimed.advance(outcomes, rows)
        self._kept += len(errors)
        fact = ending(self._claimed, rows, self._kept)
        if fact is None:
            await self._claimed.save(errors)
        else:
            await self._claimed.end(fact, errors)
        return fact is not None

    async def _record(
        self, rows: Rows[CustomerEvent]
    ) -> tuple[Sequence[Outcome], Sequence[FoundError]]:
        """What became of each customer event, and what was wrong with those refused."""
        if not rows.mapped:
            return (), ()
        receipts = await self._receipts(rows)
        ids = [event.message_id for _, event in rows.mapped]
        outcomes = [receipt.outcome for receipt in receipts]
        landed: Mapping[str, Outcome] = {}
        if self._is_uncertain or DUPLICATE in outcomes:
            claimed = self._claimed
            landed = await landed_since(
                claimed.kernel.pool,
                claimed.kernel.event_types,
                claimed.job.workspace,
                claimed.name,
                ids,
                claimed.progress.heads,
            )
        settled = settle(ids, outcomes, landed)
        refused = [
            FoundError(number, RowError(receipt.reason, receipt.detail))
            for (number, _), receipt, outcome in zip(rows.mapped, receipts, settled, strict=True)
            if outcome == REFUSED
        ]
        return settled, refused

    async def _receipts(self, rows: Rows[CustomerEvent]) -> Sequence[Receipt]:
        """Records the customer events, and again while nobody knows whether they are."""
        pause_s = RETRY_PAUSE_S
        for attempt in range(1, RECORD_ATTEMPTS_MAX + 1):
            try:
                async with asyncio.timeout(RECORD_TIMEOUT_S):
                    response = await self._claimed.recorder.record(
                        self._claimed.origin,
                        [_copied(event) for _, event in rows.mapped],
                        source=self._claimed.row.state.source,
                        import_name=self._claimed.name,
                        fence=self._claimed.fence,
                    )
                return response.receipts
            except (Unavailable, ResourceExhausted, TimeoutError):
                self._is_uncertain = True
                if attempt == RECORD_ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
                await self._claimed.sign_of_life()
        raise AssertionError("a last attempt answers or raises")


def _copied(event: CustomerEvent) -> CustomerEvent:
    """What is recorded may be changed on its way in; what is mapped may be recorded again."""
    copy = CustomerEvent()
    copy.CopyFrom(event)
    return copy
