"""Exchange: amounts of one currency told in another, by dated rates, exactly or not at all. Pure.

A rate says how many units of `to_currency` one unit of `from_currency` is worth from a day on,
until a later one does. It counts for that direction only: an inverse has other digits, and a way
over a third currency another price, so neither is guessed. What cannot be told is an
`Unconvertible` with its reason, which a report shows as an error row, and never a silent 1.

An amount is converted by itself, without loss, and rounded half up to the minor unit once, at the
end: by whole numbers, which are as exact as decimals and ten times as fast.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from services.kernel.errors import InvalidArgument
from services.kernel.iso4217 import EXPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

CONVERTED_MINOR_MAX: Final = 10**15
"""Small enough that the sums of thousands of such amounts are exact in 64 bits."""

NO_CURRENCY: Final = "is no ISO 4217 code of a currency with a minor unit"

_RATE: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")

Ratio = tuple[int, int]


class Unconvertible(Exception):
    """When an amount cannot be told in another currency: which, and for which day."""

    def __init__(self, from_currency: str, to_currency: str, on: date) -> None:
        super().__init__(f"{from_currency} in {to_currency} on {on}")
        self.from_currency = from_currency
        self.to_currency = to_currency
        self.on = on


class UnknownRate(Unconvertible):
    """When nobody said what the currency is worth on that day."""


class ConvertedTooLarge(Unconvertible):
    """When the amount would be larger than anything that is added up here."""


class Rate(NamedTuple):
    """What one unit of a currency is worth in another from a day on."""

    from_currency: str
    to_currency: str
    effective_date: date
    rate: Decimal


@dataclass(slots=True)
class _Pair:
    """The rates of one pair in the order of their days.

    `shift` is how many digits more the minor unit of the second has; what the rates do to minor
    units is worked out when it is first asked for.
    """

    shift: int
    dates: list[date] = field(default_factory=list)
    rates: list[Decimal] = field(default_factory=list)
    ratios: dict[int, Ratio] = field(default_factory=dict)

    def ratio(self, place: int) -> Ratio:
        """What one of the rates does to minor units, as a fraction."""
        known = self.ratios.get(place)
        if known is None:
            of_units, units = self.rates[place].as_integer_ratio()
            more, fewer = 10 ** max(self.shift, 0), 10 ** max(-self.shift, 0)
            known = self.ratios[place] = of_units * more, units * fewer
        return known


class Rates:
    """Rates as they were known at one moment, ready for many conversions."""

    def __init__(self, rates: Iterable[Rate] = ()) -> None:
        """At most one rate for each pair and day, of currencies that have minor units."""
        self._pairs: dict[tuple[str, str], _Pair] = {}
        for source, target, effective_date, rate in sorted(rates, key=lambda each: each[2]):
            pair = self._pairs.get((source, target))
            if pair is None:
                pair = _Pair(EXPONENTS[target] - EXPONENTS[source])
                self._pairs[source, target] = pair
            pair.dates.append(effective_date)
            pair.rates.append(rate)

    def on(self, from_currency: str, to_currency: str, day: date) -> Decimal:
        """The rate that counts on a day, else UnknownRate."""
        pair, place = self._found(from_currency, to_currency, day)
        return pair.rates[place]

    def convert(
        self,
        amount_minor: int,
        from_currency: str,
        to_currency: str,
        day: date,
        *,
        at_most: int = CONVERTED_MINOR_MAX,
    ) -> int:
        """An amount told in another currency, both in minor units, else Unconvertible.

        A currency is worth itself, without a rate. No amount is negative.
        """
        if amount_minor < 0:
            raise ValueError("no amount is negative")
        if from_currency == to_currency:
            return amount_minor
        pair, place = self._found(from_currency, to_currency, day)
        numerator, denominator = pair.ratio(place)
        converted = half_up(amount_minor * numerator, denominator)
        if converted > at_most:
            raise ConvertedTooLarge(from_currency, to_currency, day)
        return converted

    def _found(self, from_currency: str, to_currency: str, day: date) -> tuple[_Pair, int]:
        pair = self._pairs.get((from_currency, to_currency))
        place = 0 if pair is None else bisect_right(pair.dates, day)
        if pair is None or not place:
            raise UnknownRate(from_currency, to_currency, day)
        return pair, place - 1


def half_up(numerator: int, denominator: int) -> int:
    """The whole number nearest to a fraction that is not negative; the greater of two as near."""
    return (2 * numerator + denominator) // (2 * denominator)


def conversion_date(read_time: datetime, close_time: datetime | None = None) -> date:
    """The day whose rate counts for a deal: that of its close, of an open one that of the reading.

    Days are those of UTC.
    """
    return day_of(read_time if close_time is None else close_time)


def day_of(time: datetime) -> date:
    """The day of a moment, in UTC."""
    return time.astimezone(UTC).date()


def read_rate(text: str) -> Decimal | None:
    """Reads a rate: above 0, with at most 12 digits before and 12 behind the point."""
    rate = Decimal(text) if _RATE.fullmatch(text) else Decimal(0)
    return rate or None


def rate_text(rate: Decimal) -> str:
    """The one way to write a rate: without zeros in front, or at its end behind the point."""
    return format(rate.normalize(), "f")


def read_day(text: str) -> date | None:
    """Reads a day such as `2026-03-01`; None when no calendar has it."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None


def known_currency(currency: str, field_name: str) -> str:
    """Refuses what is no currency with a minor unit: no amount of it could be told."""
    if currency not in EXPONENTS:
        raise InvalidArgument.of(field_name, NO_CURRENCY)
    return currency


def known_pair(from_currency: str, to_currency: str) -> tuple[str, str]:
    """Refuses what no rate can be for: two currencies that are known, and not the same."""
    known_currency(from_currency, "from_currency")
    known_currency(to_currency, "to_currency")
    if from_currency == to_currency:
        raise InvalidArgument.of("to_currency", "is the same: a currency is worth itself")
    return from_currency, to_currency
