"""`make bench`: measures Rapport beside the bare resource and beside another library.

`python -m tests.bench --quick` shows in a minute that it works; `--only appends,feed` measures
parts; `--save DIR` keeps results.md and results.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog
import uvloop

from tests.bench import (
    section_appends,
    section_collection,
    section_deals,
    section_feed,
    section_identity,
    section_profiles,
    section_reads,
    section_rebuild,
    section_recording,
)
from tests.bench.machine import describe, probe_fsync_us
from tests.bench.report import printed, write
from tests.bench.rounds import Outcome, Section, run_rounds
from tests.bench.sizes import FULL, QUICK
from tests.bench.world import World, started

SECTIONS = {
    section.name: section
    for section in (
        section_appends.SECTION,
        section_recording.SECTION,
        section_collection.SECTION,
        section_identity.SECTION,
        section_feed.SECTION,
        section_rebuild.SECTION,
        section_reads.SECTION,
        section_profiles.SECTION,
        section_deals.SECTION,
    )
}
PUBLISHED = Path("docs/bench")
WIDTH_MAX = 78
ERRORS_ONLY = 40


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for."""
    chosen = _parser().parse_args(arguments)
    names = chosen.only.split(",") if chosen.only else list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        print(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(ERRORS_ONLY))
    sizes = QUICK if chosen.quick else FULL
    began = time.monotonic()
    with started(sizes) as world:
        machine, outcomes = uvloop.run(_run(world, [SECTIONS[name] for name in names]))
    _show("")
    for name, value in machine.items():
        print(f"{name:<16}{value}")
    print(f"\n{printed(outcomes)}\n\nwhole run: {time.monotonic() - began:.0f} s")
    kept = chosen.save or (PUBLISHED if not chosen.quick and len(names) == len(SECTIONS) else None)
    if kept:
        write(kept, machine, outcomes)
        print(f"kept in {kept}/results.md and results.json")
    return 0


async def _run(
    world: World, sections: Sequence[Section]
) -> tuple[Mapping[str, str], list[Outcome]]:
    machine = describe(await world.postgres_version())
    outcomes = []
    for section in sections:
        _show(f"{section.name}: preparing")
        async with section.open(world) as bout:
            outcome = Outcome(section, bout)
            print(f"{section.name}: {len(bout.contenders)} contenders", file=sys.stderr)
            async for now in run_rounds(
                outcome,
                rounds=world.sizes.rounds,
                warm_rounds=world.sizes.warm_rounds,
                probe=partial(probe_fsync_us, world.directory, world.sizes.probes),
            ):
                _show(f"{section.name}: {now}")
        print(f"{section.name}: {outcome.seconds:.0f} s", file=sys.stderr)
        outcomes.append(outcome)
    return machine, outcomes


def _show(what: str) -> None:
    """Tells on one line what happens now; only to a person."""
    if sys.stderr.isatty():
        print(f"\r{what[:WIDTH_MAX]:<{WIDTH_MAX}}", end="\r", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--only", default="", help=f"sections: {','.join(SECTIONS)}")
    parser.add_argument(
        "--save", type=Path, help=f"directory for the results; a full run uses {PUBLISHED}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
