"""Looks back at what was recorded: the newest first, for as long as there is time.

It is read in pieces and told one by one, others being served in between: what is done with one may
take its time. Whoever asks learns whether it was all there is: a limit or the call's deadline may
come first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import CustomerEventRecorded

if TYPE_CHECKING:
    from asyncpg import Pool, Record

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from services.kernel.log.recorded import EventTypes

EVENTS_LOOKED_AT_MAX = 100_000
PIECE_SIZE = 250
LOOK_S_MAX = 20.0
"""How long it is looked back when nobody's deadline is sooner."""
ANSWER_RESERVE_S = 0.5
"""What is kept of the caller's time for the answer."""

_PIECE = """
select c.receive_time, c.position, c.partition, e.type, e.data
from (
    select receive_time, position, partition
    from customer_events.customer_events
    where workspace = $1 and receive_time >= $2
      and ($3::timestamptz is null or (receive_time, position, partition) < ($3, $4, $5))
      and ($6::text is null or source = $6)
      and ($7::text[] is null or name = any($7))
    order by receive_time desc, position desc, partition desc
    limit $8
) c
join kernel.events e using (partition, position)
order by c.receive_time desc, c.position desc, c.partition desc
"""


@dataclass(slots=True, kw_only=True)
class Lookback:
    """The customer events of a workspace that were received since a moment."""

    pool: Pool
    event_types: EventTypes
    workspace: str
    since: datetime
    source: str = ""
    event_names: Sequence[str] = ()
    remaining_s: float | None = None
    limit: int = EVENTS_LOOKED_AT_MAX
    looked_at: int = field(default=0, init=False)
    is_complete: bool = field(default=False, init=False)

    async def customer_events(self) -> AsyncIterator[CustomerEvent]:
        """The customer events, the newest first; then `is_complete` says if those were all."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._time_s()
        last: Record | None = None
        while self.looked_at < self.limit and loop.time() < ends_at:
            size = min(PIECE_SIZE, self.limit - self.looked_at)
            try:
                async with asyncio.timeout(ends_at - loop.time()):
                    rows = await self._rows(last, size + 1)
            except TimeoutError:
                return
            for row in rows[:size]:
                if loop.time() >= ends_at:
                    return
                last = row
                self.looked_at += 1
                yield self._read(row)
                await asyncio.sleep(0)
            if len(rows) <= size:
                self.is_complete = True
                return

    def _time_s(self) -> float:
        if self.remaining_s is None:
            return LOOK_S_MAX
        return min(LOOK_S_MAX, self.remaining_s - ANSWER_RESERVE_S)

    async def _rows(self, last: Record | None, count: int) -> list[Record]:
        place = (None, 0, 0) if last is None else tuple(last)[:3]
        return await self.pool.fetch(
            _PIECE,
            self.workspace,
            self.since,
            *place,
            self.source or None,
            list(self.event_names) or None,
            count,
        )

    def _read(self, row: Record) -> CustomerEvent:
        fact = self.event_types.message(row["type"], row["data"])
        assert isinstance(fact, CustomerEventRecorded)
        return fact.customer_event
