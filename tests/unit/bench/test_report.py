"""The table is aligned, Markdown holds the same cells, and JSON every round."""

import json

from tests.bench.report import markdown, printed, raw
from tests.bench.rounds import Bout, Line, Measured, Outcome, Section

MACHINE = {"cpu": "a processor"}


def an_outcome():
    lines = [
        Line(what="appends", ours="us", bare="disk", anchor="them", note="a note"),
        Line(what="a longer name", ours="us", metric="p50_ms"),
    ]
    outcome = Outcome(Section("append", "Append", lambda _: None), Bout([], lines))
    outcome.fsync_us = [100.0, 110.0]
    outcome.runs = {
        "us": [Measured(1_000, 1.0, [1.0]), Measured(3_000, 1.0, [3.0])],
        "disk": [Measured(4_000, 1.0), Measured(4_000, 1.0)],
        "them": [Measured(100, 1.0), Measured(100, 1.0)],
    }
    return outcome


def test_a_line_shows_both_ratios_and_how_far_rounds_were_apart():
    line = next(line for line in printed([an_outcome()]).splitlines() if "appends" in line)

    assert line.split()[1:10] == ["2,000", "±", "50%", "4,000", "±", "0%", "0.50", "100", "±"]


def test_columns_are_aligned():
    lines = printed([an_outcome()]).splitlines()
    rows = [line for line in lines if line.startswith(("appends", "a longer name"))]

    assert len({line.index("±") for line in rows}) == 1


def test_markdown_says_on_which_machine():
    text = markdown(MACHINE, [an_outcome()])

    assert "| cpu | a processor |" in text
    assert "| a longer name | 2.00 ms ± 50% | - | - | - | - |  |" in text


def test_json_keeps_every_round():
    kept = json.loads(raw(MACHINE, [an_outcome()]))["sections"]["append"]

    assert [1_000, 3_000] == kept["lines"][0]["ours"]["rounds"]
    assert [100.0, 110.0] == kept["fsync_us"]
