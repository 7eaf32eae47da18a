"""The periods of a forecast: calendar months, quarters and years, in UTC. Pure.

`2026-11`, `2026-Q4` and `2026` name them. A period is half-open: it begins with its first moment,
and ends with the first moment of the next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from services.kernel.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME: Final = re.compile(r"((?:19[7-9]|2[0-9][0-9])[0-9])(?:-(?:Q([1-4])|(0[1-9]|1[0-2])))?")
_YEAR_LAST: Final = 2999
_MONTHS: Final = 12
_MONTHS_OF_QUARTER: Final = 3
_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Period:
    """A month, a quarter or a year: [begin_time, end_time)."""

    name: str
    begin_time: datetime
    end_time: datetime


def known_period(name: str, field: str = "period") -> Period:
    """The period with this name, else InvalidArgument."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise InvalidArgument.of(field, "must be a period, such as 2026-11, 2026-Q4 or 2026")
    year, quarter, month = (int(part) if part else 0 for part in found.groups())
    if quarter:
        return _quarter(year * _MONTHS + (quarter - 1) * _MONTHS_OF_QUARTER)
    if month:
        return _month(year * _MONTHS + month - 1)
    return _year(year * _MONTHS)


def consecutive(first: Period, count: int, field: str = "period_count") -> Sequence[Period]:
    """So many periods of one kind, beginning with the first."""
    kind = _year
    if "-" in first.name:
        kind = _quarter if "Q" in first.name else _month
    periods = [first]
    while len(periods) < count:
        begin = periods[-1].end_time
        if begin.year > _YEAR_LAST:
            raise InvalidArgument.of(field, f"there is no period after the year {_YEAR_LAST}")
        periods.append(kind(begin.year * _MONTHS + begin.month - 1))
    return periods


def weekly(period: Period, until: datetime) -> Sequence[datetime]:
    """When a period began and every seven days on, until it ended or the moment came."""
    times = []
    time = period.begin_time
    while time < period.end_time and time <= until:
        times.append(time)
        time += _WEEK
    return times


# Below a month is its number since the year 0, so that the next one is one more.


def _month(number: int) -> Period:
    year, month = divmod(number, _MONTHS)
    return Period(f"{year}-{month + 1:02}", _begin(number), _begin(number + 1))


def _quarter(number: int) -> Period:
    year, month = divmod(number, _MONTHS)
    name = f"{year}-Q{month // _MONTHS_OF_QUARTER + 1}"
    return Period(name, _begin(number), _begin(number + _MONTHS_OF_QUARTER))


def _year(number: int) -> Period:
    return Period(f"{number // _MONTHS}", _begin(number), _begin(number + _MONTHS))


def _begin(number: int) -> datetime:
    year, month = divmod(number, _MONTHS)
    return datetime(year, month + 1, 1, tzinfo=UTC)
