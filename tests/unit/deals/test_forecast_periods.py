"""Periods are calendar months, quarters and years in UTC, half-open, and follow each other."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from services.deals.forecast_periods import consecutive, known_period, weekly
from services.kernel.errors import InvalidArgument


def day(year, month, number=1):
    return datetime(year, month, number, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "begin_time", "end_time"),
    [
        ("2026-11", day(2026, 11), day(2026, 12)),
        ("2026-12", day(2026, 12), day(2027, 1)),
        ("2028-02", day(2028, 2), day(2028, 3)),
        ("2026-Q1", day(2026, 1), day(2026, 4)),
        ("2026-Q4", day(2026, 10), day(2027, 1)),
        ("2026", day(2026, 1), day(2027, 1)),
        ("1970", day(1970, 1), day(1971, 1)),
        ("2999-Q4", day(2999, 10), day(3000, 1)),
    ],
)
def test_a_period_begins_with_its_first_moment_and_ends_with_that_of_the_next(
    name, begin_time, end_time
):
    period = known_period(name)

    assert (name, begin_time, end_time) == (period.name, period.begin_time, period.end_time)


@pytest.mark.parametrize(
    "name",
    [
        *("", "2026-13", "2026-00", "2026-1", "2026-Q0", "2026-Q5", "2026-q1", "26"),
        *("1969", "3000", "2026-Q4 ", "2026-11\n", "٢٠٢٦"),
    ],
)
def test_what_is_no_period_is_refused_by_name(name):
    with pytest.raises(InvalidArgument, match="period"):
        known_period(name)


@pytest.mark.parametrize(
    ("first", "last"), [("2026-11", "2027-10"), ("2026-Q4", "2029-Q3"), ("2026", "2037")]
)
def test_consecutive_periods_are_of_one_kind_and_leave_nothing_between_them(first, last):
    periods = consecutive(known_period(first), 12)

    assert (12, first, last) == (len(periods), periods[0].name, periods[-1].name)
    assert all(before.end_time == after.begin_time for before, after in pairwise(periods))
    assert [known_period(period.name) for period in periods] == list(periods)


def test_there_is_no_period_after_the_last():
    assert 1 == len(consecutive(known_period("2999"), 1))
    with pytest.raises(InvalidArgument, match="period_count"):
        consecutive(known_period("2999"), 2)


def test_weeks_begin_with_the_period_and_end_with_it_or_with_the_present():
    november = known_period("2026-11")
    week = timedelta(days=7)

    whole = weekly(november, day(2027, 1))

    assert [november.begin_time + number * week for number in range(5)] == whole
    assert whole[:2] == weekly(november, november.begin_time + week)
    assert whole[:1] == weekly(november, november.begin_time + week - timedelta(microseconds=1))
    assert [] == weekly(november, day(2026, 10, 31))
