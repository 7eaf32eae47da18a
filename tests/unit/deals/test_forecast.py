"""The formulas of a forecast, each with a vector that was worked out by hand.

deal  amount   category     probability
a     1000.00  CLOSED       100 %
b      400.00  COMMIT        80 %
c      300.00  MOST_LIKELY   60 %
d      200.00  BEST_CASE     50 %
e      100.01  PIPELINE      12.5 %
f      900.00  OMITTED       20 %
"""

import pytest

from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_BEST_CASE,
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_COMMIT,
    FORECAST_CATEGORY_MOST_LIKELY,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
)
from services.deals.forecast import Forecast, Tally, forecast_error, ratio


def tally(amount_minor, likely_bp):
    return Tally(deal_count=1, amount_minor=amount_minor, likely=amount_minor * likely_bp)


TALLIES = {
    FORECAST_CATEGORY_CLOSED: tally(100_000, 10_000),
    FORECAST_CATEGORY_COMMIT: tally(40_000, 8_000),
    FORECAST_CATEGORY_MOST_LIKELY: tally(30_000, 6_000),
    FORECAST_CATEGORY_BEST_CASE: tally(20_000, 5_000),
    FORECAST_CATEGORY_PIPELINE: tally(10_001, 1_250),
    FORECAST_CATEGORY_OMITTED: tally(90_000, 2_000),
}
FORECAST = Forecast(TALLIES, quota_minor=150_000)


def test_closed_is_what_was_won():
    assert 100_000 == FORECAST.closed_minor


def test_commit_is_closed_and_what_is_promised():
    assert 140_000 == FORECAST.commit_minor


def test_most_likely_holds_commit():
    assert 170_000 == FORECAST.most_likely_minor


def test_best_case_holds_most_likely():
    assert 190_000 == FORECAST.best_case_minor


def test_the_pipeline_is_all_that_is_open_and_not_omitted():
    assert 100_001 == FORECAST.pipeline_minor


def test_weighted_is_amount_times_probability_of_what_is_open_and_not_omitted():
    # 320.00 + 180.00 + 100.00 + 12.50125
    assert 61_250 == FORECAST.weighted_minor


def test_expected_is_closed_and_weighted():
    assert 161_250 == FORECAST.expected_minor


def test_weighted_amounts_are_rounded_half_up_once_not_deal_by_deal():
    # Three deals of 0.01 at 50 % are 0.015, not three times 0.01.
    deals = Tally(deal_count=3, amount_minor=3, likely=3 * 5_000)

    assert 2 == Forecast({FORECAST_CATEGORY_PIPELINE: deals}).weighted_minor
    assert 1 == Forecast({FORECAST_CATEGORY_PIPELINE: tally(1, 5_000)}).weighted_minor
    assert 0 == Forecast({FORECAST_CATEGORY_PIPELINE: tally(1, 4_999)}).weighted_minor


def test_coverage_is_the_pipeline_to_what_is_missing_to_the_quota():
    # 1000.01 / (1500.00 - 1000.00)
    assert "2.0000" == FORECAST.coverage


@pytest.mark.parametrize("quota_minor", [None, 0, 99_999, 100_000])
def test_there_is_no_coverage_of_a_quota_that_is_met_or_that_nobody_said(quota_minor):
    assert "" == Forecast(TALLIES, quota_minor).coverage


def test_a_quota_missed_by_a_cent_is_covered():
    assert "100001.0000" == Forecast(TALLIES, 100_001).coverage


def test_attainment_is_closed_to_quota():
    assert "0.6667" == FORECAST.attainment
    assert "2.0000" == Forecast(TALLIES, 50_000).attainment


@pytest.mark.parametrize("quota_minor", [None, 0])
def test_there_is_no_attainment_of_nothing(quota_minor):
    assert "" == Forecast(TALLIES, quota_minor).attainment


@pytest.mark.parametrize(
    ("forecast_minor", "error"),
    [(120_000, "0.2000"), (80_000, "0.2000"), (100_000, "0.0000"), (0, "1.0000")],
)
def test_the_error_of_a_forecast_is_how_far_it_was_off_to_what_came_true(forecast_minor, error):
    assert error == forecast_error(forecast_minor, 100_000)


def test_there_is_no_error_when_nothing_came_true():
    assert "" == forecast_error(120_000, 0)


def test_nothing_comes_to_nothing():
    empty = Forecast()

    assert {0} == {empty.closed_minor, empty.best_case_minor, empty.pipeline_minor}
    assert 0 == empty.weighted_minor


def test_the_largest_sums_are_exact():
    deals = Tally(deal_count=200_000, amount_minor=2 * 10**20, likely=2 * 10**20 * 3_333 + 5_000)

    assert 66_660_000_000_000_000_001 == Forecast({FORECAST_CATEGORY_COMMIT: deals}).weighted_minor


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(1, 3, "0.3333"), (2, 3, "0.6667"), (1, 20_000, "0.0001"), (1, 20_001, "0.0000")],
)
def test_ratios_have_four_digits_rounded_half_up(part, whole, said):
    assert said == ratio(part, whole)
