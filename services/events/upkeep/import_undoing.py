"""Retracts what an import recorded: each customer event once, whoever does it how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import CustomerEventRetracted, ImportUndone
from services.events.projections.customer_events import SOURCE, VIEW
from services.events.projections.imported import listed_after, present_of, quarantined_after
from services.events.receipts import stream_of
from services.kernel.log.bell import heard_within
from services.kernel.log.log import Append, NewEvent, read_heads
from services.kernel.views.checkpoint import read_positions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from services.events.upkeep.import_work import Claimed
    from services.kernel.log.sql import Tx

RETRACTIONS_PER_STEP_MAX = 500
SAFETY_POLL_S = 1.0


async def undo(claimed: Claimed) -> None:
    """Goes on where the progress stands until all is retracted.

    What waits in quarantine comes first: what leaves it meanwhile is recorded, so the list has it.
    """
    after = ""
    while message_ids := await _next(claimed, quarantined_after, after):
        after = message_ids[-1]
        await _retract(claimed, message_ids)
    await _until_listed(claimed)
    progress = claimed.progress
    while message_ids := await _next(claimed, listed_after, progress.after_message_id):
        progress.after_message_id = message_ids[-1]
        await _retract(claimed, message_ids)
    await claimed.end(ImportUndone(retracted=progress.retracted))


async def _next(
    claimed: Claimed, find: Callable[..., Awaitable[list[str]]], after: str
) -> list[str]:
    pool, workspace = claimed.kernel.pool, claimed.job.workspace
    return await find(pool, workspace, claimed.name, after, RETRACTIONS_PER_STEP_MAX)


async def _retract(claimed: Claimed, message_ids: Sequence[str]) -> None:
    """Retracts those that are there, while nobody else can, and saves that they are not."""

    async def decide(tx: Tx) -> Sequence[Append]:
        present = await present_of(
            tx, claimed.kernel.event_types, claimed.job.workspace, claimed.name, message_ids
        )
        claimed.progress.retracted += len(present)
        return [
            Append(
                claimed.origin,
                stream_of(message_id),
                [NewEvent(CustomerEventRetracted(message_id=message_id, import_name=claimed.name))],
                version,
            )
            for message_id, version in present
        ]

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
            await heard_within(heard, SAFETY_POLL_S)
