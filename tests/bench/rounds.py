"""Interleaved rounds: every contender once per round, forth and back, a disk probe before each.

What a shared machine does to one contender it does to its neighbour a second later, so ratios of
medians hold where rates do not.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal

Metric = Literal["per_s", "p50_ms", "p95_ms", "p99_ms"]
PERCENTILES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}


@dataclass(frozen=True)
class Measured:
    """One run of a contender: how many of what it counts in how long, and each call's latency."""

    count: int
    seconds: float
    latencies_ms: Sequence[float] = ()

    def value(self, metric: Metric) -> float:
        """The run as one number."""
        if metric == "per_s":
            return self.count / self.seconds
        return percentile(self.latencies_ms, PERCENTILES[metric])


@dataclass(frozen=True)
class Contender:
    """Something to measure. `run` prepares itself and times only what counts."""

    name: str
    run: Callable[[], Awaitable[Measured]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the table: which contenders stand beside each other, by name."""

    what: str
    ours: str
    bare: str | None = None
    anchor: str | None = None
    metric: Metric = "per_s"
    note: str = ""


@dataclass(frozen=True)
class Bout:
    """The contenders that share rounds, and the lines they end up in."""

    contenders: Sequence[Contender]
    lines: Sequence[Line]


@dataclass(frozen=True)
class Section:
    """A part of the bench: `open` prepares it and yields its bout."""

    name: str
    title: str
    open: Callable[..., AbstractAsyncContextManager[Bout]]


@dataclass
class Outcome:
    """What a section measured: per contender a run for each round, and the disk at that time."""

    section: Section
    bout: Bout
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    fsync_us: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def values(self, contender: str, metric: Metric) -> list[float]:
        """The numbers of a contender, one per round."""
        return [run.value(metric) for run in self.runs[contender]]


@dataclass(frozen=True)
class Summary:
    """Median of the rounds, and how far apart the best and the worst are, as a share of it."""

    median: float
    spread: float


def summary_of(values: Sequence[float]) -> Summary:
    """Sums rounds up."""
    median = statistics.median(values)
    return Summary(median, (max(values) - min(values)) / median if median else 0.0)


def speed_ratio(ours: float, other: float, metric: Metric) -> float:
    """How many times as fast as the other we are; above one we are faster, whatever the unit."""
    return ours / other if metric == "per_s" else other / ours


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    rank = max(0, -(-len(ordered) * share // 1) - 1)
    return ordered[int(rank)]


async def run_rounds(
    outcome: Outcome, *, rounds: int, warm_rounds: int, probe: Callable[[], float]
) -> AsyncIterator[str]:
    """Runs all rounds into `outcome`; yields what happens next, for who watches."""
    began = time.monotonic()
    contenders = outcome.bout.contenders
    for number in range(-warm_rounds, rounds):
        counted = number >= 0
        if counted:
            outcome.fsync_us.append(probe())
        forth = contenders if number % 2 == 0 else contenders[::-1]
        for contender in forth:
            yield (
                f"round {number + 1}/{rounds} {contender.name}"
                if counted
                else (f"warming {contender.name}")
            )
            gc.collect()
            measured = await contender.run()
            if counted:
                outcome.runs.setdefault(contender.name, []).append(measured)
    outcome.seconds = time.monotonic() - began
