"""The waterfall: how the open pipeline of one moment became that of another, to the cent. Pure.

open(start) + created + reopened + undeleted + amount up - amount down + moved in - moved out - won
- lost - deleted = open(end), in every currency. Told in one currency a line more keeps it true:
what is open at the start is told at the rates of that day, each step at those of its own, and what
is open at the end at those of that day; what other rates alone made of it is the revaluation.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.reports_pb2 import (
    WATERFALL_LINE_KIND_AMOUNT_DOWN,
    WATERFALL_LINE_KIND_AMOUNT_UP,
    WATERFALL_LINE_KIND_CREATED,
    WATERFALL_LINE_KIND_DELETED,
    WATERFALL_LINE_KIND_LOST,
    WATERFALL_LINE_KIND_MOVED_IN,
    WATERFALL_LINE_KIND_MOVED_OUT,
    WATERFALL_LINE_KIND_OPEN_AT_END,
    WATERFALL_LINE_KIND_OPEN_AT_START,
    WATERFALL_LINE_KIND_REOPENED,
    WATERFALL_LINE_KIND_REVALUATION,
    WATERFALL_LINE_KIND_UNDELETED,
    WATERFALL_LINE_KIND_UNSPECIFIED,
    WATERFALL_LINE_KIND_WON,
    WaterfallLineKind,
)
from services.deals.sums import converted, gathered

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.deals.exchange import Rates
    from services.deals.sums import Sum

ADDED: Final = (
    WATERFALL_LINE_KIND_OPEN_AT_START,
    WATERFALL_LINE_KIND_CREATED,
    WATERFALL_LINE_KIND_REOPENED,
    WATERFALL_LINE_KIND_UNDELETED,
    WATERFALL_LINE_KIND_AMOUNT_UP,
    WATERFALL_LINE_KIND_MOVED_IN,
)
TAKEN: Final = (
    WATERFALL_LINE_KIND_AMOUNT_DOWN,
    WATERFALL_LINE_KIND_MOVED_OUT,
    WATERFALL_LINE_KIND_WON,
    WATERFALL_LINE_KIND_LOST,
    WATERFALL_LINE_KIND_DELETED,
)
KINDS: Final = tuple(
    kind for kind in WaterfallLineKind.values() if kind != WATERFALL_LINE_KIND_UNSPECIFIED
)


@dataclass(slots=True)
class Line:
    """How often it happened, how much that is in each currency, and in the one asked for."""

    count: int = 0
    amounts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    converted_minor: int = 0


def waterfall(
    sums: Mapping[WaterfallLineKind.ValueType, Iterable[Sum]], currency: str, rates: Rates
) -> tuple[dict[WaterfallLineKind.ValueType, Line], list[Sum]]:
    """The lines of a waterfall, and what their sums in one currency leave out.

    A currency that cannot be told in the one asked for on one of the days is left out on all of
    them: half of it would look like a gain or a loss. Without a currency to tell it in, nothing is
    converted.
    """
    lines = {kind: Line() for kind in KINDS}
    for kind, parts in sums.items():
        for part in parts:
            lines[kind].count += part.count
            if part.currency:
                lines[kind].amounts[part.currency] += part.amount_minor
    if not currency:
        return lines, []
    left_out = gathered(
        part for parts in sums.values() for part in converted(parts, currency, rates).unconverted
    )
    unknown = {part.currency for part in left_out}
    for kind, parts in sums.items():
        told = [part for part in parts if part.currency not in unknown]
        lines[kind].converted_minor = converted(told, currency, rates).amount_minor
    lines[WATERFALL_LINE_KIND_REVALUATION].converted_minor = (
        lines[WATERFALL_LINE_KIND_OPEN_AT_END].converted_minor
        - sum(lines[kind].converted_minor for kind in ADDED)
        + sum(lines[kind].converted_minor for kind in TAKEN)
    )
    return lines, left_out
