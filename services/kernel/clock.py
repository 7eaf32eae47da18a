"""Time and ids: the only place that reads the clock; everything else is told what time it is."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

# A UUID like any other, that takes a seventh of the time to make: each event has one.
from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_VERSION = 0x7 << 12
_VARIANT = 0b10 << 62
_RANDOM_BITS = (1 << 62) - 1
_RANDOM = struct.Struct("!Q")
_HALVES = struct.Struct("!QQ").pack


class Clock(Protocol):
    """Tells the time: aware, in UTC, to the microsecond."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class FixedClock:
    """A clock for tests that stands still until it is told otherwise."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.set(now)

    def now(self) -> datetime:
        return self._now

    def set(self, now: datetime) -> None:
        """Moves to a moment, which may lie in the past."""
        if now.tzinfo is None:
            raise ValueError("a clock tells aware times only")
        self._now = now.astimezone(UTC)

    def advance(self, step: timedelta) -> None:
        """Moves by a step."""
        self._now += step


class Ids:
    """Makes UUIDv7 (RFC 9562): they sort by the time they were made, also within a millisecond.

    The 12 bits after the version hold the fraction of the millisecond. When the clock stands still
    or goes back, the 60 bits of time go on from the last id instead, so ids of one process never go
    back.
    """

    def __init__(self, clock: Clock, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._randomness = randomness
        self._last_tick = 0

    def __call__(self) -> UUID:
        """The next id."""
        return self.several(1)[0]

    def several(self, count: int) -> list[UUID]:
        """The next ids, for a third of the price."""
        since_epoch_us = (self._clock.now() - _EPOCH) // _MICROSECOND
        ms, fraction_us = divmod(since_epoch_us, 1000)
        tick = max((ms << 12) | (fraction_us * 4096 // 1000), self._last_tick + 1)
        made: list[UUID] = []
        for (random,) in _RANDOM.iter_unpack(self._randomness(8 * count)):
            timed = (tick >> 12 << 16) | _VERSION | (tick & 0xFFF)
            made.append(DriverUUID(_HALVES(timed, _VARIANT | (random & _RANDOM_BITS))))
            tick += 1
        self._last_tick = tick - 1
        return made


_IDS = Ids(SystemClock())
new_id, new_ids = _IDS, _IDS.several
"""The process's ids. Code that must be repeatable takes an `Ids` of its own instead."""
