"""The numbers as people read them: an aligned table, Markdown for the record, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.rounds import Line, Outcome, Summary, speed_ratio, summary_of

HEADINGS = ("what", "ours", "bare", "ratio", "anchor", "ratio", "note")
RIGHT = {1, 2, 3, 4, 5}
MINUS = "-"

EXPLANATION = (
    "Median of the rounds, ± half the distance between the best and the worst. Rates are per "
    "second; lines in ms are latencies. A ratio says how many times as fast as the other we are: "
    "above 1 we are faster, below 1 slower. The anchor is the PyPI library `eventsourcing` on the "
    "same PostgreSQL in its safe mode (it locks its table, so that no follower skips an event)."
)


@dataclass(frozen=True)
class Row:
    """One printed line."""

    cells: tuple[str, ...]


def rows_of(outcome: Outcome) -> list[Row]:
    """The lines of a section."""
    return [_row(outcome, line) for line in outcome.bout.lines]


def table(headings: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Aligned lines, numbers to the right."""
    cells = [tuple(headings), *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [_aligned(row, widths) for row in cells]


def printed(outcomes: Sequence[Outcome]) -> str:
    """The whole run for a terminal."""
    every = {outcome.section.name: rows_of(outcome) for outcome in outcomes}
    lines = table(HEADINGS, [row for rows in every.values() for row in rows])
    told = [lines[0]]
    rest = iter(lines[1:])
    for outcome in outcomes:
        told += ["", f"{outcome.section.title}  ({disk(outcome)})"]
        told += [next(rest) for _ in every[outcome.section.name]]
    return "\n".join(told)


def markdown(machine: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """The whole run for the record."""
    lines = ["# What was measured", "", EXPLANATION, "", "Made by `make bench`.", ""]
    lines += ["| machine | |", "|---|---|", *(f"| {name} | {it} |" for name, it in machine.items())]
    for outcome in outcomes:
        rounds = len(outcome.fsync_us)
        lines += ["", f"## {outcome.section.title}", ""]
        lines += [f"{rounds} rounds in {outcome.seconds:.0f} s, {disk(outcome)}.", ""]
        lines += [f"| {' | '.join(HEADINGS)} |", "|---|--:|--:|--:|--:|--:|---|"]
        lines += [f"| {' | '.join(row.cells)} |" for row in rows_of(outcome)]
    return "\n".join(lines) + "\n"


def raw(machine: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """Every round of every contender."""
    sections = {
        outcome.section.name: {
            "fsync_us": [round(value, 1) for value in outcome.fsync_us],
            "lines": [_raw_line(outcome, line) for line in outcome.bout.lines],
            "runs": {
                name: [{"count": run.count, "seconds": round(run.seconds, 4)} for run in runs]
                for name, runs in outcome.runs.items()
            },
        }
        for outcome in outcomes
    }
    return json.dumps({"machine": machine, "sections": sections}, indent=1) + "\n"


def write(directory: Path, machine: Mapping[str, str], outcomes: Sequence[Outcome]) -> None:
    """Keeps the run as results.md and results.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.md").write_text(markdown(machine, outcomes))
    (directory / "results.json").write_text(raw(machine, outcomes))


def disk(outcome: Outcome) -> str:
    """What the disk did meanwhile."""
    found = summary_of(outcome.fsync_us)
    return f"fsync {found.median:.0f} µs ± {found.spread / 2:.0%}"


def number(value: float, metric: str) -> str:
    """A rate without decimals, a latency with two."""
    return f"{value:,.0f}" if metric == "per_s" else f"{value:.2f} ms"


def _row(outcome: Outcome, line: Line) -> Row:
    ours = summary_of(outcome.values(line.ours, line.metric))
    cells = [line.what, _told(ours, line)]
    for other in (line.bare, line.anchor):
        if other is None:
            cells += [MINUS, MINUS]
            continue
        theirs = summary_of(outcome.values(other, line.metric))
        ratio = speed_ratio(ours.median, theirs.median, line.metric)
        cells += [_told(theirs, line), f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"]
    return Row((*cells, line.note))


def _told(summary: Summary, line: Line) -> str:
    return f"{number(summary.median, line.metric)} ± {summary.spread / 2:.0%}"


def _raw_line(outcome: Outcome, line: Line) -> dict[str, object]:
    named = {"ours": line.ours, "bare": line.bare, "anchor": line.anchor}
    values = {
        role: {
            "contender": name,
            "rounds": [round(value, 4) for value in outcome.values(name, line.metric)],
        }
        for role, name in named.items()
        if name is not None
    }
    return {"what": line.what, "metric": line.metric, "note": line.note, **values}


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if place in RIGHT else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
