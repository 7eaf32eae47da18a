"""What a moment knew of stages and currencies, as a forecast counts by it."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN
from services.deals.exchange import Rate, Rates
from services.deals.pipeline import STARTING, Stage
from services.deals.projections.forecast_settings import Reading, rate_columns, with_later
from services.deals.sums import SUM_MINOR_MAX, sum_told
from services.kernel.errors import OutOfRange

MOMENT = datetime(2026, 10, 3, 12, tzinfo=UTC)
RATES = Rates(
    [
        Rate("USD", "EUR", date(2026, 10, 2), Decimal("0.9")),
        Rate("USD", "EUR", date(2026, 10, 3), Decimal("0.8")),
        Rate("JPY", "EUR", date(2026, 1, 1), Decimal("0.0055")),
    ]
)


def reading(first_day, last_day):
    return Reading(MOMENT, "EUR", RATES, {}, first_day, last_day)


def test_amounts_are_multiplied_by_the_rate_of_each_day_that_counts():
    rows = zip(
        *rate_columns([reading(date(2026, 10, 1), MOMENT.date())], {"USD", "JPY"}), strict=True
    )

    assert {
        (0, "USD", date(2026, 10, 2), Decimal("0.9")),
        (0, "USD", date(2026, 10, 3), Decimal("0.8")),
        # A yen has no smaller unit: one of it is 0.55 cents.
        (0, "JPY", date(2026, 10, 1), Decimal("0.55")),
        (0, "JPY", date(2026, 10, 2), Decimal("0.55")),
        (0, "JPY", date(2026, 10, 3), Decimal("0.55")),
    } == set(rows)


@pytest.mark.parametrize(
    ("first_day", "last_day"),
    [(date(2026, 9, 1), date(2026, 9, 1)), (date(2027, 1, 1), date(2026, 10, 3))],
)
def test_an_open_deal_counts_at_the_rate_of_today_whatever_its_period(first_day, last_day):
    numbers, currencies, days, factors = rate_columns([reading(first_day, last_day)], {"USD"})

    assert (0, "USD", date(2026, 10, 3), Decimal("0.8")) in set(
        zip(numbers, currencies, days, factors, strict=True)
    )


def test_a_currency_that_no_deal_was_closed_in_counts_at_the_rate_of_today_alone():
    rows = zip(*rate_columns([reading(date(2026, 10, 1), MOMENT.date())], {"EUR"}), strict=True)

    assert {
        (0, "USD", date(2026, 10, 3), Decimal("0.8")),
        (0, "JPY", date(2026, 10, 3), Decimal("0.55")),
    } == set(rows)


def test_a_stage_that_was_added_later_is_as_it_is_now():
    added = Stage("legal", "Legal", STAGE_KIND_OPEN, 9_000)
    changed = [replace(stage, probability_bp=1) for stage in STARTING.stages]
    now = {"sales": replace(STARTING, stages=(*changed, added)), "new": STARTING}

    merged = with_later({"sales": STARTING}, now)

    assert (*STARTING.stages, added) == merged["sales"].stages
    assert STARTING == merged["new"]


def test_a_sum_that_cannot_be_told_is_refused_not_cut():
    assert SUM_MINOR_MAX == sum_told(SUM_MINOR_MAX, "EUR").amount_minor
    with pytest.raises(OutOfRange):
        sum_told(SUM_MINOR_MAX + 1, "EUR")
