"""Retracts what an import recorded: each customer event once, whoever does it how often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import CustomerEventRetracted, ImportUndone
from services.events.projections.customer_events import SOURCE, VIEW
from services.events.projections.imported import counting_of, listed_after
from services.events.receipts import stream_of
from services.kernel.log.log import Append, NewEvent, read_heads
from services.kernel.views.checkpoint import read_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.events.upkeep.import_work import Claimed
    from services.kernel.log.sql import Tx

RETRACTIONS_PER_STEP_MAX = 500
SAFETY_POLL_S = 1.0


async def undo(claimed: Claimed) -> None:
    """Goes on where the progress stands until all is retracted."""
    await _until_listed(claimed)
    pool, workspace, progress = claimed.kernel.pool, claimed.job.workspace, claimed.progress
    while message_ids := await listed_after(
        pool, workspace, claimed.name, progress.after_message_id, RETRACTIONS_PER_STEP_MAX
    ):
        await _retract(claimed, message_ids)
    await claimed.end(ImportUndone(retracted=progress.retracted))


async def _retract(claimed: Claimed, message_ids: Sequence[str]) -> None:
    """Retracts those that count, while nobody else can, and saves that they are."""

    async def decide(tx: Tx) -> Sequence[Append]:
        counting = await counting_of(
            tx, claimed.kernel.event_types, claimed.job.workspace, claimed.name, message_ids
        )
        claimed.progress.retracted += len(counting)
        return [
            Append(
                claimed.origin,
                stream_of(message_id),
                [NewEvent(CustomerEventRetracted(message_id=message_id, import_name=claimed.name))],
                version,
            )
            for message_id, version in counting
        ]

    claimed.progress.after_message_id = message_ids[-1]
    await claimed.save_deciding(decide)


async def _until_listed(claimed: Claimed) -> None:
    """Waits until the list has all that the import has recorded.

    Since it is being undone nothing more of it gets into the log: its stream is the fence.
    """
    kernel = claimed.kernel
    heads = await read_heads(kernel.pool)
    with kernel.bell.listening() as heard:
        while True:
            heard.clear()
            reached = await read_positions(kernel.pool, VIEW.name)
            if all(reached.get((SOURCE, n), 0) >= head for n, head in heads.items()):
                return
            await claimed.sign_of_life()
            try:
                async with asyncio.timeout(SAFETY_POLL_S):
                    await heard.wait()
            except TimeoutError:
                continue
