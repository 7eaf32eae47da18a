"""A match run that a worker has claimed: how it is saved, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.identity.deciders.match_run import DECIDER
from services.identity.projections import match_progress
from services.identity.projections.match_progress import Job, Progress
from services.identity.projections.match_runs import RUN_ROWS, Row
from services.kernel.errors import Aborted
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.process.runtime import Kernel
from services.kernel.views.view import append_with_views

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from services.kernel.log.sql import Tx

LEASE_S = 30.0
SAVE_TIMEOUT_S = 20.0

Decide = Callable[["Tx"], Awaitable[Sequence[Append]]]
"""Says what is appended with the progress, while nobody else can append."""


@dataclass(slots=True)
class Claimed:
    """A run, owned by a worker.

    `row` is the run as it was when it was claimed: whatever happens to it later ends the work.
    """

    kernel: Kernel
    job: Job
    row: Row
    progress: Progress = field(default_factory=Progress)

    @property
    def name(self) -> str:
        """The run's resource name."""
        return DECIDER.name(self.job.run_id)

    @property
    def origin(self) -> Origin:
        """In whose name it is recorded: who stands behind the run is said by its own events."""
        return Origin(self.job.workspace, self.name, self.name, causation_id="")

    async def sign_of_life(self) -> None:
        """Keeps the run; raises FencedError when somebody took it over, Aborted once it ended."""
        async with asyncio.timeout(SAVE_TIMEOUT_S):
            pool = self.kernel.pool
            await match_progress.save(pool, self.job, self.progress, LEASE_S)
            row = await RUN_ROWS.existing(pool, self.job.workspace, self.name)
        if row.version != self.row.version:
            raise Aborted.conflict(f"{self.name} was ended")

    async def end(self, fact: Message) -> None:
        """Records how the run ended."""

        async def decide(_: Tx) -> Sequence[Append]:
            return []

        await self.save_deciding(decide, fact)

    async def save_deciding(self, decide: Decide, fact: Message | None = None) -> None:
        """Saves the progress with what is decided while the heads are held.

        Raises FencedError when somebody took the run over, Aborted when it has ended: then nothing
        is saved.
        """
        log, stream = self.kernel.log, DECIDER.stream(self.job.run_id)
        async with asyncio.timeout(SAVE_TIMEOUT_S), transaction(self.kernel.pool) as tx:
            await log.lock_heads(tx, set(range(log.partitions)))
            appends = await decide(tx)
            # Without a fact it only makes sure of the version.
            news = [] if fact is None else [NewEvent(fact)]
            own = Append(self.origin, stream, news, self.row.version)
            await append_with_views(tx, log, self.kernel.views, [*appends, own])
            await match_progress.save(tx, self.job, self.progress, LEASE_S)
