"""What a deal was from when to when, in the order in which things occurred. Pure.

Facts arrive in the order they were told. A move that is told late goes before what occurred after
it: what it changes is so from then on, and since no later fact touches the same fields
(`deciders/deal_moves.py`, `deciders/deal_changes.py` see to that), it is so in every later period.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.deals.deal import evolve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from services.deals.deal import State
    from services.kernel.views.aggregate_rows import AggregateRow


@dataclass(frozen=True, slots=True)
class Period:
    """What a deal was from a moment until the next period; `place` counts them from 1."""

    place: int
    from_time: datetime
    row: AggregateRow[State]


def told(
    periods: Sequence[Period], event: Message, occur_time: datetime, row: AggregateRow[State]
) -> list[Period]:
    """The periods after one more fact, which led to this row; they may begin anywhere.

    The first period given, if there is any, begins no later than the fact occurred, or is the first
    of all: what is told of the time before counts from there.
    """
    if not periods:
        return [Period(1, occur_time, row)]
    occur_time = max(occur_time, periods[0].from_time)
    moments = [period.from_time for period in periods]
    cut = bisect_right(moments, occur_time)
    before = periods[cut - 1]
    added = replace(row, state=evolve(before.row.state, event))
    later = [
        replace(
            period,
            place=period.place + 1,
            row=replace(period.row, state=evolve(period.row.state, event)),
        )
        for period in periods[cut:]
    ]
    return [*periods[:cut], Period(before.place + 1, occur_time, added), *later]
