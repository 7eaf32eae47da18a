"""Following a service's own log as it grows, for server streams that watch it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.kernel.errors import InvalidArgument, Reason
from services.kernel.log.bell import Bell
from services.kernel.log.log import read_heads, read_partition
from services.kernel.log.recorded import EventTypes, Recorded
from services.kernel.log.tokens import decode_write_token
from services.kernel.rpc.caller import draining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope

# A notification may be missed while its connection is away.
SAFETY_POLL_S = 1.0


class Follower:
    """Hands out new events of the log to any number of watchers."""

    def __init__(self, pool: Pool, event_types: EventTypes) -> None:
        """Reads from the database; `wake` says when to look."""
        self._pool = pool
        self._event_types = event_types
        self._bell = Bell()

    def wake(self, _payload: str | None = None) -> None:
        """Say that the log may have grown."""
        self._bell.ring()

    async def begin(self, service: str, resume_token: str) -> dict[int, int]:
        """Where a watch of this service's log begins: where its token says, else at the log's end.

        Raises InvalidArgument for a token that names no place in it.
        """
        heads = await read_heads(self._pool)
        if not resume_token:
            return heads
        landings = decode_write_token(resume_token, field="resume_token")
        reached = {
            place.partition: place.position
            for place in landings
            if place.service == service and place.partition in heads
        }
        if not reached:
            description = f"names no place in the log of {service}; leave it empty to begin now"
            raise InvalidArgument.of("resume_token", description, reason=Reason.READ_TOKEN_INVALID)
        return reached

    async def follow(
        self, workspace: str, after: dict[int, int] | None
    ) -> AsyncIterator[tuple[list[Recorded], dict[int, int]]]:
        """A workspace's events in batches, each with the position reached per partition.

        `after` says where to go on; None starts at the log's present end. Ends when the
        server drains.
        """
        with self._bell.listening() as grown:
            reached = dict(after) if after is not None else await read_heads(self._pool)
            for partition in await read_heads(self._pool):
                reached.setdefault(partition, 0)
            while not draining().is_set():
                grown.clear()
                found = await self._read(reached)
                # Decoded last: another workspace's unreadable event is not this watcher's.
                own = self._event_types.decode_all(e for e in found if e.workspace == workspace)
                if own:
                    yield own, dict(reached)
                if not found:
                    await _wait(grown, draining())

    async def _read(self, reached: dict[int, int]) -> list[Envelope]:
        """What is new in each partition; moves `reached`."""
        events: list[Envelope] = []
        for partition, position in reached.items():
            batch = await read_partition(self._pool, partition, after=position)
            if batch:
                reached[partition] = batch[-1].position
            events += batch
        return events


async def _wait(*events: asyncio.Event) -> None:
    """Until one of the events is set, or it is time to look anyway."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=SAFETY_POLL_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
