"""How much is measured: every count of a run in one place.

A full run takes several minutes and is what docs/bench publishes; a quick one shows that the
bench works, and its numbers mean little.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The counts of one run; each contender works for a second or so per round."""

    rounds: int
    # Round zero fills caches and pools and is not counted.
    warm_rounds: int = 1

    contacts: int
    commands_alone: int
    commands_together: int

    customer_events: int
    recorded_per_contender: int
    # What the smaller log of two holds before it is measured.
    collected: int

    facts_contacts: int
    facts_deals: int

    reads_alone: int
    reads_together: int

    # Deals of a pipeline, and how often it is asked.
    deals: int
    boards: int
    reports: int

    # The other library is slower per event, so it gets fewer to take as long.
    anchor_saves: int
    anchor_bulk: int
    anchor_projected: int
    anchor_replayed: int

    probes: int = 30


FULL = Sizes(
    rounds=5,
    contacts=2_000,
    commands_alone=300,
    commands_together=4_000,
    customer_events=20_000,
    recorded_per_contender=6_000,
    collected=10_000,
    facts_contacts=8_000,
    facts_deals=8_000,
    reads_alone=400,
    reads_together=1_600,
    deals=200_000,
    boards=40,
    reports=10,
    anchor_saves=300,
    anchor_bulk=3_000,
    anchor_projected=500,
    anchor_replayed=20_000,
)

QUICK = Sizes(
    rounds=2,
    contacts=200,
    commands_alone=50,
    commands_together=400,
    customer_events=2_000,
    recorded_per_contender=1_000,
    collected=1_000,
    facts_contacts=2_000,
    facts_deals=2_000,
    reads_alone=50,
    reads_together=200,
    deals=5_000,
    boards=10,
    reports=5,
    anchor_saves=50,
    anchor_bulk=500,
    anchor_projected=100,
    anchor_replayed=2_000,
    probes=10,
)

CALLERS_TOGETHER = 64
RECORD_BATCHES = (100, 500)
RECORD_CALLERS = (1, 8)
# How many times larger a log must be for "it stays as fast when it grows" to mean something.
GROWN_TIMES = 10
READ_CALLERS = (1, 16)
# Customer events that come in while profiles are read: about a third of what identity can do.
LOAD_PER_S = 1_000
LOAD_BATCH = 50
ANCHOR_THREADS = 8
ANCHOR_BULK_SIZE = 100
# One save of the other library that does not fit into the socket's buffer (some 200 KB) never
# returns: psycopg 3.3 waits in its pipeline. Half of that is safe.
ANCHOR_BULK_MAX = 250
