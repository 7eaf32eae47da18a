"""Medians, spreads and ratios say what the table claims, and no round is left out."""

import pytest

from tests.bench.rounds import (
    Bout,
    Contender,
    Measured,
    Outcome,
    Section,
    percentile,
    run_rounds,
    speed_ratio,
    summary_of,
)


def test_a_rate_is_a_count_per_second():
    assert Measured(300, 1.5).value("per_s") == 200


def test_a_latency_line_takes_the_percentile_of_the_run():
    run = Measured(100, 1.0, [float(number) for number in range(1, 101)])

    assert (run.value("p50_ms"), run.value("p99_ms")) == (50, 99)


def test_the_percentile_of_one_value_is_that_value():
    assert percentile([7.0], 0.99) == 7


def test_the_spread_is_the_distance_between_best_and_worst():
    summary = summary_of([90.0, 100.0, 130.0])

    assert (summary.median, summary.spread) == (100.0, 0.4)


@pytest.mark.parametrize(("metric", "ratio"), [("per_s", 2.0), ("p50_ms", 0.5)])
def test_a_ratio_above_one_always_means_that_we_are_faster(metric, ratio):
    assert speed_ratio(20.0, 10.0, metric) == ratio


async def test_rounds_go_forth_and_back_and_the_warm_one_does_not_count():
    ran = []

    def contender(name):
        async def run():
            ran.append(name)
            return Measured(1, 1.0)

        return Contender(name, run)

    outcome = Outcome(Section("s", "S", lambda _: None), Bout([contender("a"), contender("b")], []))
    told = [now async for now in run_rounds(outcome, rounds=2, warm_rounds=1, probe=lambda: 5.0)]

    assert ["b", "a", "a", "b", "b", "a"] == ran
    assert {"a": 2, "b": 2} == {name: len(runs) for name, runs in outcome.runs.items()}
    assert [5.0, 5.0] == outcome.fsync_us
    assert len(ran) == len(told)
