"""Sums of amounts: one per currency and day, told in one currency or left out with the reason.

Pure. What cannot be told is never counted as if a rate were 1: it stands beside the sum.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rapport.common.v1.money_pb2 import Money
from services.deals.exchange import CONVERTED_MINOR_MAX, Unconvertible
from services.kernel.errors import OutOfRange

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from services.deals.exchange import Rates

SUM_MINOR_MAX: Final = 2**63 - 1
"""What a sum in an answer has room for."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Amounts of one currency whose rate is that of one day; no currency, no amount."""

    currency: str
    day: date
    count: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Converted:
    """A sum in one currency, and what it leaves out."""

    amount_minor: int
    unconverted: list[Sum]


def converted(parts: Iterable[Sum], currency: str, rates: Rates) -> Converted:
    """Sums told in one currency.

    Each is rounded once, half up, after the amounts of its currency and day were added up. It is
    left out as too large where its amounts would be, each by itself, on average.
    """
    total, unconverted = 0, []
    for part in gathered(parts):
        try:
            total += rates.convert(
                *(part.amount_minor, part.currency, currency, part.day),
                at_most=CONVERTED_MINOR_MAX * part.count,
            )
        except Unconvertible:
            unconverted.append(part)
    return Converted(total, unconverted)


def gathered(parts: Iterable[Sum]) -> list[Sum]:
    """Sums of amounts, one for each currency and day, in their order."""
    found: dict[tuple[str, date], Sum] = {}
    for part in parts:
        if part.currency:
            key = part.currency, part.day
            known = found.get(key, Sum(*key, 0, 0))
            found[key] = replace(
                known,
                count=known.count + part.count,
                amount_minor=known.amount_minor + part.amount_minor,
            )
    return [found[key] for key in sorted(found)]


def by_currency(parts: Iterable[Sum]) -> dict[str, int]:
    """The amount in each currency that occurs, in their order."""
    amounts: defaultdict[str, int] = defaultdict(int)
    for part in parts:
        if part.currency:
            amounts[part.currency] += part.amount_minor
    return dict(sorted(amounts.items()))


def sum_told(amount_minor: int, currency: str) -> Money:
    """A sum as an answer tells it; raises OutOfRange for one that it has no room for."""
    if abs(amount_minor) > SUM_MINOR_MAX:
        raise OutOfRange(f"a sum is above {SUM_MINOR_MAX} minor units; ask for less at once")
    return Money(amount_minor=amount_minor, currency=currency)
