"""When a customer event happened by our clock, however wrong the source's clock goes. Pure.

How long it lay there, from `original_time` to `send_time`, is the source's word; when it was sent
is ours: on receipt. Nothing happened after it was received nor before 1970, and what is remarkable
about its times is flagged. Times are microseconds since 1970, like a database's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rapport.events.v1.customer_event_pb2 import TimeFlag

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from rapport.events.v1.customer_event_pb2 import CustomerEvent

OCCUR_US_MIN = 0
"""Nothing happened before 1970: an earlier time is a broken clock's, and becomes this one."""

SKEW_US_MAX = 3_600 * 1_000_000
"""A clock that differs from ours by more is told; the way here alone never takes so long."""

_IN_FUTURE = TimeFlag.TIME_FLAG_IN_FUTURE
_BEFORE_1970 = TimeFlag.TIME_FLAG_BEFORE_1970
_CLOCK_SKEWED = TimeFlag.TIME_FLAG_CLOCK_SKEWED


class Stamp(NamedTuple):
    """When a customer event happened, and what is remarkable about that, in the enum's order."""

    occur_us: int
    flags: tuple[TimeFlag.ValueType, ...]


def stamp(sent: CustomerEvent, *, receive_us: int) -> Stamp:
    """Tells when a customer event that we received just now happened.

    Without an original_time it is the corrected_time, which needs no correction any more; without
    either it happened on receipt.
    """
    is_skewed = False
    raw_us = receive_us
    if sent.HasField("original_time"):
        original_ns = _nanoseconds(sent.original_time)
        raw_us = original_ns // 1000
        if sent.HasField("send_time"):
            send_ns = _nanoseconds(sent.send_time)
            is_skewed = abs(send_ns // 1000 - receive_us) > SKEW_US_MAX
            # In nanoseconds to the end, lest a wrong clock's fractions round another way.
            raw_us = (receive_us * 1000 - (send_ns - original_ns)) // 1000
    elif sent.HasField("corrected_time"):
        raw_us = _nanoseconds(sent.corrected_time) // 1000
    if not is_skewed and OCCUR_US_MIN <= raw_us <= receive_us:
        return Stamp(raw_us, ())
    remarkable = {
        _IN_FUTURE: raw_us > receive_us,
        _BEFORE_1970: raw_us < OCCUR_US_MIN,
        _CLOCK_SKEWED: is_skewed,
    }
    occur_us = min(max(raw_us, OCCUR_US_MIN), receive_us)
    return Stamp(occur_us, tuple(flag for flag, holds in remarkable.items() if holds))


def _nanoseconds(time: Timestamp) -> int:
    return time.seconds * 1_000_000_000 + time.nanos
