"""Rates, averages and velocity by the published formulas, with answers worked out by hand."""

import pytest

from services.deals.kpis import DAY_US, Closed, average, nearest, ratio_bp


@pytest.mark.parametrize(
    ("part", "whole", "bp"),
    [(1, 2, 5_000), (1, 3, 3_333), (2, 3, 6_667), (1, 20_000, 1), (0, 5, 0), (7, 7, 10_000)],
)
def test_a_ratio_is_told_in_hundredths_of_a_percent_half_up(part, whole, bp):
    assert bp == ratio_bp(part, whole)


def test_of_nothing_there_is_no_ratio_and_no_average():
    nothing = Closed()

    assert ratio_bp(0, 0) is None
    assert average(0, 0) is None
    assert nothing.win_rate_bp is None
    assert nothing.value_win_rate_bp is None
    assert nothing.average_deal_minor is None
    assert nothing.cycle_mean_us is None
    assert nothing.velocity_minor(10) is None


@pytest.mark.parametrize(("total", "count", "mean"), [(10, 4, 3), (9, 4, 2), (0, 3, 0), (7, 1, 7)])
def test_an_average_is_rounded_half_up(total, count, mean):
    assert mean == average(total, count)


def test_the_middle_of_two_is_rounded_half_up():
    assert [3, 3, 4] == [nearest(3.0), nearest(2.5), nearest(4.0)]


def test_lost_deals_stay_in_the_denominator_of_the_win_rate():
    assert 2_500 == Closed(won_count=1, lost_count=3).win_rate_bp
    assert 0 == Closed(won_count=0, lost_count=3).win_rate_bp


def test_by_value_a_large_win_weighs_more_than_small_losses():
    closed = Closed(won_count=1, lost_count=3, won_minor=900_00, lost_minor=300_00)

    assert 7_500 == closed.value_win_rate_bp


def test_the_average_deal_is_of_deals_whose_worth_is_known():
    closed = Closed(won_count=3, won_minor=300_01, valued_count=2)

    assert 150_01 == closed.average_deal_minor


def test_velocity_is_open_deals_times_win_rate_times_average_deal_over_the_cycle():
    # 50 open · 20 % · 10 000.00 ÷ 50 days = 2 000.00 a day.
    closed = Closed(
        won_count=2,
        lost_count=8,
        won_minor=20_000_00,
        valued_count=2,
        cycle_count=2,
        cycle_us=100 * DAY_US,
    )

    assert 2_000_00 == closed.velocity_minor(50)


def test_velocity_rounds_once_at_the_end():
    # 1 open · 1/3 · 1.00 ÷ (1/3 day) = 1.00 a day, though a third of it is 0.33.
    closed = Closed(
        won_count=1,
        lost_count=2,
        won_minor=1_00,
        valued_count=1,
        cycle_count=1,
        cycle_us=DAY_US // 3,
    )

    assert 1_00 == closed.velocity_minor(1)


@pytest.mark.parametrize(
    "closed",
    [
        Closed(lost_count=3),
        Closed(won_count=1, cycle_count=1, cycle_us=DAY_US),
        Closed(won_count=1, won_minor=5, valued_count=1, cycle_count=1, cycle_us=0),
        Closed(won_count=1, won_minor=5, valued_count=1),
    ],
    ids=["nothing won", "worth nobody knows", "won at once", "no cycle"],
)
def test_without_a_win_a_worth_and_a_cycle_there_is_no_velocity(closed):
    assert closed.velocity_minor(10) is None
