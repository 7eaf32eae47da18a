"""A work on an import that a worker has claimed: how it is saved, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rapport.events.v1.import_job_pb2 import ImportMapping
from services.events.deciders.import_job import DECIDER
from services.events.import_outcomes import added, counts_of
from services.events.projections import importing
from services.events.projections.importing import FoundError, Job, Progress
from services.events.projections.imports import IMPORT_ROWS, Row
from services.events.recording import Fence, Recorder
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.sql import Tx
from services.kernel.process.runtime import Kernel
from services.kernel.views.view import append_with_views

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from services.events.import_outcomes import Outcome
    from services.events.upkeep.import_reading import Rows

LEASE_S = 30.0
SAVE_TIMEOUT_S = 20.0

Decide = Callable[[Tx], Awaitable[Sequence[Append]]]
"""Says what is appended with the progress, while nobody else can append."""


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Claimed:
    """One attempt at one work with an import, owned by a worker.

    `row` is the import as it was when it was claimed: whatever happens to it later ends the work.
    """

    kernel: Kernel
    recorder: Recorder
    job: Job
    row: Row
    progress: Progress
    _busy_since: float = field(default_factory=_now)

    @property
    def name(self) -> str:
        """The import's resource name."""
        return DECIDER.name(self.job.import_id)

    @property
    def mapping(self) -> ImportMapping:
        """How its rows are mapped."""
        return ImportMapping.FromString(self.row.state.mapping)

    @property
    def origin(self) -> Origin:
        """In whose name it is recorded: who stands behind the import is said by its own events."""
        return Origin(self.job.workspace, self.name, self.name, causation_id="")

    @property
    def fence(self) -> Fence:
        """What must not have changed while its customer events are recorded."""
        return Fence(DECIDER.stream(self.job.import_id), self.row.version)

    async def has_changed(self) -> bool:
        """Whether something happened to the import since it was claimed."""
        row = await IMPORT_ROWS.existing(self.kernel.pool, self.job.workspace, self.name)
        return row.version != self.row.version

    def advance(self, outcomes: Sequence[Outcome], rows: Rows[Any]) -> None:
        """Counts the next rows of the file with what became of those that could be mapped."""
        counts = counts_of(outcomes, len(rows.errors))
        self.progress.counts = added(self.progress.counts, counts)
        self.progress.read_bytes = self.row.state.size_bytes if rows.is_last else rows.read_bytes

    async def sign_of_life(self) -> None:
        """Keeps the work, else raises FencedError."""
        await importing.renew(self.kernel.pool, self.job, self.progress.epoch, LEASE_S)

    async def save(self, errors: Sequence[FoundError] = (), fact: Message | None = None) -> None:
        """Saves the progress, what was wrong with rows, and what happens to the import by it.

        Raises FencedError when somebody took the work over, Aborted when something else happened to
        the import before: then nothing is saved.
        """

        async def decide(_: Tx) -> Sequence[Append]:
            fence = self.fence
            events = [] if fact is None else [NewEvent(fact)]
            return [Append(self.origin, fence.stream, events, fence.version)] if events else []

        await self.save_deciding(decide, errors)

    async def end(self, fact: Message, errors: Sequence[FoundError] = ()) -> None:
        """Saves that the work is over, with what that means for the import."""
        self.progress.is_over = True
        await self.save(errors, fact)

    async def save_deciding(self, decide: Decide, errors: Sequence[FoundError] = ()) -> None:
        """Saves the progress with what is decided while the heads are held."""
        now = _now()
        self.progress.busy_s += now - self._busy_since
        self._busy_since = now
        log = self.kernel.log
        async with asyncio.timeout(SAVE_TIMEOUT_S), transaction(self.kernel.pool) as tx:
            await log.lock_heads(tx, set(range(log.partitions)))
            await append_with_views(tx, log, self.kernel.views, await decide(tx))
            self.progress.heads = await importing.save(tx, self.job, self.progress, LEASE_S)
            await importing.add_errors(tx, self.job, errors)

    async def begin_anew(self) -> None:
        """Forgets how far the work got, as whoever does it must begin again."""
        self.progress = Progress(epoch=self.progress.epoch)
        async with asyncio.timeout(SAVE_TIMEOUT_S), transaction(self.kernel.pool) as tx:
            self.progress.heads = await importing.save(tx, self.job, self.progress, LEASE_S)
            await importing.forget_errors(tx, self.job)
