"""The formulas of reports on small histories, with answers worked out by hand.

What PostgreSQL counts is held to these formulas in tests/integration/deals/test_report_rows.py.
"""

from datetime import timedelta

import pytest

from rapport.deals.v1.service_pb2 import DEAL_STATE_LOST, DEAL_STATE_OPEN, DEAL_STATE_WON
from services.deals.deal import State
from tests import deals_reference as reference
from tests.deals_reference import FOREVER, Was
from tests.deals_world import DAY, NEGOTIATION, NOW, PROPOSAL, QUALIFICATION, STAGES

WON, LOST = "won", "lost"
STATES = {WON: DEAL_STATE_WON, LOST: DEAL_STATE_LOST}


def day(number):
    return NOW + number * DAY


def deal(*steps, amount_minor=100, expected=()):
    """A deal that entered these stages on these days, or closed: `(0, PROPOSAL), (3, WON)`.

    `expected` are the days on which it was expected to close, step by step.
    """
    rows, ends = [], [day(number) for number, _ in steps[1:]] + [FOREVER]
    for place, ((number, stage), end) in enumerate(zip(steps, ends, strict=True)):
        is_closed = stage in STATES
        state = State(
            state=STATES.get(stage, DEAL_STATE_OPEN),
            stage=rows[-1].state.stage if is_closed else stage,
            amount_minor=amount_minor,
            currency="EUR",
            open_time=day(steps[0][0]),
            stage_time=day(number),
            close_time=day(number) if is_closed else None,
            expected_close_time=day(expected[place]) if expected else None,
        )
        rows.append(Was(day(number), end, state))
    return rows


@pytest.mark.parametrize(
    ("history", "stage", "until", "days"),
    [
        (deal((0, QUALIFICATION), (3, PROPOSAL)), QUALIFICATION, 10, 3),
        (deal((0, QUALIFICATION), (3, PROPOSAL)), PROPOSAL, 10, 7),
        (deal((0, PROPOSAL), (2, QUALIFICATION), (5, PROPOSAL), (6, WON)), PROPOSAL, 10, 3),
        (deal((0, PROPOSAL), (2, QUALIFICATION), (5, PROPOSAL), (6, WON)), PROPOSAL, 2, 2),
        (deal((0, PROPOSAL), (2, LOST), (5, PROPOSAL)), PROPOSAL, 6, 3),
        (deal((0, PROPOSAL)), PROPOSAL, 0, 0),
        (deal((0, PROPOSAL)), NEGOTIATION, 9, 0),
    ],
    ids=[
        "a visit that ended",
        "a visit that is open",
        "a second visit adds up",
        "what is later does not count",
        "closed is nowhere",
        "entered this moment",
        "never there",
    ],
)
def test_time_in_stage_is_the_sum_of_its_visits(history, stage, until, days):
    assert days * DAY == reference.time_in_stage(history, stage, day(until))


@pytest.mark.parametrize(
    ("history", "without_skips", "with_skips"),
    [
        (deal((0, QUALIFICATION), (1, PROPOSAL)), "pass enter -", "pass enter -"),
        (deal((0, QUALIFICATION), (1, LOST)), "enter - -", "enter - -"),
        (deal((0, QUALIFICATION), (1, NEGOTIATION)), "pass - enter", "pass pass enter"),
        (deal((0, QUALIFICATION), (1, WON)), "pass - -", "pass pass pass"),
        (deal((0, NEGOTIATION), (1, QUALIFICATION)), "enter - enter", "pass pass enter"),
        (
            deal((0, QUALIFICATION), (1, PROPOSAL), (2, QUALIFICATION)),
            "pass enter -",
            "pass enter -",
        ),
        (deal((-1, QUALIFICATION), (1, PROPOSAL)), "- enter -", "- enter -"),
        (deal((0, QUALIFICATION), (5, PROPOSAL)), "pass - -", "pass - -"),
        (deal((0, QUALIFICATION), (9, PROPOSAL)), "enter - -", "enter - -"),
    ],
    ids=[
        "passed",
        "lost deals stay in the denominator",
        "skipped a stage",
        "won from the first",
        "opened late and moved back",
        "came back",
        "entered before the window",
        "entered as the window ended, passed since",
        "passed after the reading",
    ],
)
def test_conversion_counts_those_that_first_entered_in_the_window(
    history, without_skips, with_skips
):
    """The window is days 0 to 5, and it is read on day 9."""
    counts = {"-": (0, 0), "enter": (1, 0), "pass": (1, 1)}
    about = {"a": history}, STAGES, day(0), day(5), day(9)

    for said, skips_left_out in ((without_skips, True), (with_skips, False)):
        found = reference.conversion(*about, skips_left_out=skips_left_out)
        assert [counts[word] for word in said.split()] == list(found.values())


def test_a_deal_counts_once_as_it_stood_when_the_window_ended():
    histories = {
        "won": deal((0, PROPOSAL), (4, WON)),
        "lost": deal((1, PROPOSAL), (2, LOST)),
        "reopened": deal((0, PROPOSAL), (2, WON), (4, PROPOSAL)),
        "won again": deal((-9, PROPOSAL), (-5, WON), (-4, PROPOSAL), (1, WON)),
        "won as it ended": deal((0, PROPOSAL), (5, WON)),
        "won before": deal((-9, PROPOSAL), (-1, WON)),
        "won as it started": deal((-9, PROPOSAL), (0, WON)),
    }

    counts, worth, cycles = reference.sales(histories, day(0), day(5))

    assert {
        ("", "CREATED"): 4,
        ("", DEAL_STATE_OPEN): 2,
        ("", DEAL_STATE_WON): 3,
        ("", DEAL_STATE_LOST): 1,
    } == counts
    assert 300 == worth["", DEAL_STATE_WON, "EUR"]
    assert [4 * DAY, 9 * DAY, 10 * DAY] == sorted(cycles[""])


def test_the_cycle_may_start_at_the_first_entry_to_a_stage():
    there = deal((0, QUALIFICATION), (1, PROPOSAL), (2, QUALIFICATION), (3, PROPOSAL), (4, WON))
    never = deal((0, QUALIFICATION), (4, WON))

    _, _, cycles = reference.sales({"a": there, "b": never}, day(0), day(5), stage=PROPOSAL)

    assert {"": [3 * DAY]} == cycles


@pytest.mark.parametrize(
    ("hours", "median", "p90"),
    [
        ([5], 5, 5),
        ([1, 3], 2, 3),
        ([1, 2, 9], 2, 9),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 5.5, 9),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8], 1, 1),
    ],
)
def test_the_median_lies_in_the_middle_and_nine_of_ten_within_p90(hours, median, p90):
    times = [timedelta(hours=each) for each in hours]

    assert timedelta(hours=median) == reference.median(times)
    assert timedelta(hours=p90) == reference.p90(times)


@pytest.mark.parametrize(
    ("history", "slips", "pushes"),
    [
        (deal((0, PROPOSAL), (2, PROPOSAL), expected=(3, 7)), 1, 1),
        (deal((0, PROPOSAL), (2, PROPOSAL), expected=(3, 4)), 0, 1),
        (deal((0, PROPOSAL), (2, PROPOSAL), expected=(7, 3)), 0, 0),
        (deal((0, PROPOSAL), (1, PROPOSAL), (2, PROPOSAL), expected=(3, 7, 4)), 0, 1),
        (deal((0, PROPOSAL), (1, PROPOSAL), (2, PROPOSAL), expected=(3, 7, 9)), 1, 2),
        (deal((0, PROPOSAL), (1, PROPOSAL), (2, WON), expected=(3, 7, 7)), 0, 1),
        (deal((0, PROPOSAL), (1, PROPOSAL), expected=(7, 9)), 0, 1),
        (deal((0, PROPOSAL), (1, PROPOSAL), expected=(3, 5)), 1, 1),
        (deal((0, PROPOSAL), (5, PROPOSAL), expected=(3, 9)), 0, 0),
    ],
    ids=[
        "moved out",
        "moved within",
        "moved in",
        "moved out and back",
        "moved out and on",
        "closed since",
        "was outside already",
        "moved to the very end",
        "moved after the period",
    ],
)
def test_slippage_is_what_moved_from_inside_the_period_to_after_it(history, slips, pushes):
    """The period is days 0 to 5."""
    _, slipped, pushed = reference.slippage({"a": history}, day(0), day(5))

    assert (slips, pushes) == (len(slipped), pushed.total())


def test_the_waterfall_tells_how_the_pipeline_became_what_it_is():
    histories = {
        "open": deal((-1, PROPOSAL)),
        "created": deal((0, PROPOSAL), amount_minor=7),
        "won": deal((-1, PROPOSAL), (4, WON), amount_minor=20),
        "lost": deal((-1, PROPOSAL), (1, LOST), amount_minor=30),
        "reopened": deal((-3, PROPOSAL), (-2, LOST), (1, PROPOSAL), amount_minor=40),
        "came and went": deal((1, PROPOSAL), (2, WON), amount_minor=50),
        "won as it ended": deal((-1, PROPOSAL), (5, WON), amount_minor=60),
    }

    amounts, counts = reference.waterfall(histories, day(0), day(5))

    assert {
        "OPEN_AT_START": 210,
        "CREATED": 57,
        "REOPENED": 40,
        "WON": 70,
        "LOST": 30,
        "OPEN_AT_END": 207,
    } == {kind: line["EUR"] for kind, line in amounts.items()}
    assert (4, 4) == (counts["OPEN_AT_START"], counts["OPEN_AT_END"])
