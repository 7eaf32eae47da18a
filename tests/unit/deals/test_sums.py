"""Sums in several currencies are told in one, or what is left out is said."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from rapport.deals.v1.reports_pb2 import (
    WATERFALL_LINE_KIND_CREATED,
    WATERFALL_LINE_KIND_OPEN_AT_END,
    WATERFALL_LINE_KIND_OPEN_AT_START,
    WATERFALL_LINE_KIND_REVALUATION,
    WATERFALL_LINE_KIND_WON,
)
from services.deals.exchange import CONVERTED_MINOR_MAX, Rate, Rates
from services.deals.projections.report_money import day_before, earlier, money
from services.deals.sums import SUM_MINOR_MAX, Sum, by_currency, converted, gathered
from services.deals.waterfall import KINDS, waterfall
from services.kernel.errors import OutOfRange

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
RATES = Rates(
    [Rate("USD", "EUR", MONDAY, Decimal("0.5")), Rate("USD", "EUR", TUESDAY, Decimal("0.75"))]
)


def test_each_day_has_its_rate():
    told = converted([Sum("USD", MONDAY, 1, 100), Sum("USD", TUESDAY, 1, 100)], "EUR", RATES)

    assert (125, []) == (told.amount_minor, told.unconverted)


def test_amounts_of_one_day_are_added_up_before_they_are_rounded():
    told = converted([Sum("USD", MONDAY, 1, 1), Sum("USD", MONDAY, 1, 1)], "EUR", RATES)

    assert 1 == told.amount_minor


def test_an_unknown_rate_is_never_a_one():
    pesos = Sum("MXN", MONDAY, 2, 900)

    told = converted([Sum("EUR", MONDAY, 1, 100), pesos], "EUR", RATES)

    assert (100, [pesos]) == (told.amount_minor, told.unconverted)


def test_a_sum_may_be_as_large_as_its_amounts_by_themselves():
    cents = Rates([Rate("USD", "EUR", MONDAY, Decimal(1))])
    largest = Sum("USD", MONDAY, 2, 2 * CONVERTED_MINOR_MAX)
    larger = replace(largest, amount_minor=largest.amount_minor + 1)

    fits, does_not = (converted([part], "EUR", cents) for part in (largest, larger))

    assert (2 * CONVERTED_MINOR_MAX, []) == (fits.amount_minor, fits.unconverted)
    assert (0, [larger]) == (does_not.amount_minor, does_not.unconverted)


def test_what_is_too_large_in_one_line_is_left_out_of_every_line():
    doubled = Rates([Rate("USD", "EUR", MONDAY, Decimal(2))])
    large = Sum("USD", MONDAY, 1, CONVERTED_MINOR_MAX)
    sums = {
        WATERFALL_LINE_KIND_OPEN_AT_START: [large],
        WATERFALL_LINE_KIND_CREATED: [Sum("USD", MONDAY, 9, 9)],
    }

    lines, left_out = waterfall(sums, "EUR", doubled)

    assert [large] == left_out
    assert {0} == {line.converted_minor for line in lines.values()}


def test_an_answer_has_room_for_64_bits():
    for amount_minor in (SUM_MINOR_MAX, -SUM_MINOR_MAX):
        told = money(amount_minor, "EUR")
        assert told is not None
        assert amount_minor == told.amount_minor
    for amount_minor in (SUM_MINOR_MAX + 1, -SUM_MINOR_MAX - 1):
        with pytest.raises(OutOfRange):
            money(amount_minor, "EUR")


def test_no_day_lies_before_the_calendar():
    first = datetime(1, 1, 1, tzinfo=UTC)

    assert date(1, 1, 1) == day_before(first)
    assert date(2026, 3, 1) == day_before(datetime(2026, 3, 2, tzinfo=UTC))
    assert first == earlier(first + timedelta(days=1), timedelta(days=2))


def test_amounts_that_nobody_knows_are_no_money():
    parts = [Sum("", MONDAY, 5, 0), Sum("USD", MONDAY, 1, 3), Sum("EUR", MONDAY, 1, 2)]

    assert {"EUR": 2, "USD": 3} == by_currency(parts)
    assert parts[:0:-1] == gathered(parts)
    assert ([], {}) == (gathered(parts[:1]), by_currency(parts[:1]))


def test_what_other_rates_alone_made_of_the_pipeline_is_its_revaluation():
    sums = {
        WATERFALL_LINE_KIND_OPEN_AT_START: [Sum("USD", MONDAY, 1, 100)],
        WATERFALL_LINE_KIND_CREATED: [Sum("EUR", TUESDAY, 1, 10)],
        WATERFALL_LINE_KIND_OPEN_AT_END: [Sum("USD", TUESDAY, 1, 100), Sum("EUR", TUESDAY, 1, 10)],
    }

    lines, left_out = waterfall(sums, "EUR", RATES)

    assert [] == left_out
    assert [50, 10, 85] == [lines[kind].converted_minor for kind in sums]
    assert 25 == lines[WATERFALL_LINE_KIND_REVALUATION].converted_minor


def test_a_fall_of_the_rate_is_a_negative_revaluation():
    sums = {
        WATERFALL_LINE_KIND_OPEN_AT_START: [Sum("USD", TUESDAY, 1, 100)],
        WATERFALL_LINE_KIND_WON: [Sum("USD", MONDAY, 1, 100)],
    }

    lines, _ = waterfall(sums, "EUR", RATES)

    assert -25 == lines[WATERFALL_LINE_KIND_REVALUATION].converted_minor


def test_a_currency_that_is_unknown_on_one_day_is_left_out_on_all_of_them():
    sunday = date(2026, 3, 1)
    sums = {
        WATERFALL_LINE_KIND_OPEN_AT_START: [Sum("USD", sunday, 1, 100), Sum("EUR", sunday, 1, 7)],
        WATERFALL_LINE_KIND_OPEN_AT_END: [Sum("USD", TUESDAY, 1, 100), Sum("EUR", TUESDAY, 1, 7)],
    }

    lines, left_out = waterfall(sums, "EUR", RATES)

    assert [Sum("USD", sunday, 1, 100)] == left_out
    assert {7, 0} == {line.converted_minor for line in lines.values()}
    assert {"USD": 100, "EUR": 7} == lines[WATERFALL_LINE_KIND_OPEN_AT_START].amounts


def test_without_a_currency_to_tell_it_in_nothing_is_converted():
    sums = {WATERFALL_LINE_KIND_CREATED: [Sum("MXN", MONDAY, 3, 100), Sum("", MONDAY, 2, 0)]}

    lines, left_out = waterfall(sums, "", RATES)

    assert (list(KINDS), []) == (list(lines), left_out)
    assert (5, {"MXN": 100}) == (
        lines[WATERFALL_LINE_KIND_CREATED].count,
        lines[WATERFALL_LINE_KIND_CREATED].amounts,
    )
