"""What this process appended last, for its own readers: the relay, and the views of its own log.

Who follows closely need not ask the database for what was just written to it. Whatever is not here,
as it is older, or was appended by another process, is read from the log, which alone is the truth.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.log.recorded import Recorded

RECENT_BYTES_MAX = 16 * 1024 * 1024
# What was kept for so long without a successor is forgotten: the log may have been restored.
RECENT_S_MAX = 10.0


@dataclass(slots=True)
class _Run:
    """Events of one partition without a gap: `newer` goes on where `older` ends."""

    older: Sequence[Recorded] = ()
    newer: list[Recorded] = field(default_factory=list)
    newer_bytes: int = 0
    kept_at_s: float = 0.0

    @property
    def is_old(self) -> bool:
        return _now_s() - self.kept_at_s > RECENT_S_MAX

    def after(self, position: int, limit: int) -> Sequence[Recorded]:
        for events, next_ones in ((self.newer, ()), (self.older, self.newer)):
            if events and events[0].position <= position + 1:
                begin = position + 1 - events[0].position
                found = events[begin : begin + limit]
                return [*found, *next_ones[: limit - len(found)]] if next_ones else found
        return ()


class Recent:
    """The last appends of one log, at most `bytes_max` and the last one of each partition."""

    def __init__(self, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._runs: dict[int, _Run] = {}
        self._forgotten = 0

    @property
    def age(self) -> int:
        """How often all was forgotten; whoever is about to append asks for it before."""
        return self._forgotten

    def forget(self) -> None:
        """Forgets all: the log may hold less than what was appended to it."""
        self._forgotten += 1
        self._runs.clear()

    def keep(self, events: Sequence[Recorded], size_bytes: int, age: int | None = None) -> None:
        """Keeps what was appended; only after its transaction was committed.

        What was appended before all was forgotten is not kept.
        """
        if age not in (None, self._forgotten):
            return
        by_partition = attrgetter("partition")
        for partition, own in groupby(sorted(events, key=by_partition), by_partition):
            self._keep(partition, list(own), size_bytes)

    def after(self, partition: int, position: int, limit: int) -> Sequence[Recorded]:
        """The next events after a position; none when the very next one is not here."""
        run = self._runs.get(partition)
        if run is None:
            return ()
        if run.is_old:
            del self._runs[partition]
            return ()
        return run.after(position, limit)

    def _keep(self, partition: int, events: list[Recorded], size_bytes: int) -> None:
        run = self._runs.get(partition)
        if run is None or run.is_old or run.newer[-1].position + 1 != events[0].position:
            run = self._runs[partition] = _Run()
        elif run.newer_bytes + size_bytes > self._bytes_max // 2:
            run.older, run.newer, run.newer_bytes = run.newer, [], 0
        run.newer += events
        run.newer_bytes += size_bytes
        run.kept_at_s = _now_s()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
