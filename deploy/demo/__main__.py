"""`make demo`: shows Rapport at work, on the platform that runs here or on one it starts itself.

    python -m deploy.demo               a generated world, one person's story, and how a shop sends
    python -m deploy.demo --data DIR    what lies in DIR instead of the generated world

Everything goes through the gateway. Exits 1 as soon as an answer is not what the demo claims.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvloop

from deploy.demo import b2b_deals
from deploy.demo.answers import show_answers
from deploy.demo.collecting import show_collection
from deploy.demo.door import Door, open_door, reason_of
from deploy.demo.freight import ContactFreight, CustomerEventFreight, DealFreight
from deploy.demo.generated import SEED, world
from deploy.demo.loading import Loaded, load
from deploy.demo.pipeline import show_pipeline
from deploy.demo.report import problems_of, report
from deploy.demo.sources import absent, present
from deploy.demo.story import BrokenClaim, Story, new_person
from deploy.demo.telling import Teller, number
from deploy.stack.errors import StackError
from deploy.stack.platform import Platform, running_platform
from deploy.stack.settings import Settings
from deploy.up import Progress
from services.kernel.errors import RapportError

REFUSED_FILE = "demo-refused.csv"


@asynccontextmanager
async def platform(settings: Settings, teller: Teller) -> AsyncIterator[Mapping[str, Any]]:
    """Yields what dev.json says of the platform that runs, or of one that ends with the block."""
    dev = running_platform(settings.data_dir)
    if dev is not None:
        teller.line(f"Using the platform that runs: gRPC {dev['grpc']}, HTTP {dev['http']}")
        yield dev
        return
    teller.line(f"No platform runs here; starting one in {settings.data_dir}, until the end")
    async with Platform(settings, report=Progress(teller.console)) as started:
        yield started.dev
        teller.line("\nStopping the platform; its data stays")


async def load_directory(door: Door, teller: Teller, directory: Path) -> list[Loaded]:
    """Loads every set that lies in a directory."""
    teller.heading(f"Loading {directory}")
    missing = absent(directory)
    if missing:
        teller.step("absent", ", ".join(missing))
    found = list(present(directory))
    if not found:
        raise BrokenClaim(f"{directory} holds none of the sets the demo can load")
    return [await load(door, known.read(source), known.freight, teller) for known, source in found]


async def show_cases(door: Door, teller: Teller, directory: Path) -> None:
    """Tells what became of the sales cases that lie in a directory, if there are any."""
    for known, source in present(directory):
        if known.folder == b2b_deals.DATASET:
            cases = [item.message for item in b2b_deals.read(source).items]
            await show_pipeline(door, teller, cases)


async def load_generated(door: Door, teller: Teller) -> list[Loaded]:
    """Loads the world that is made up."""
    teller.heading(f'Loading a GENERATED world: nobody in it exists (seed "{SEED}")')
    customer_events, contacts, deals = world()
    return [
        await load(door, customer_events, CustomerEventFreight(), teller),
        await load(door, contacts, ContactFreight(), teller),
        await load(door, deals, DealFreight(), teller),
    ]


async def run(settings: Settings, teller: Teller, directory: Path | None) -> list[str]:
    """Shows everything; returns the numbers that differ, as sentences."""
    begun = time.monotonic()
    async with platform(settings, teller) as dev, open_door(dev) as door:
        if directory is None:
            loads = await load_generated(door, teller)
        else:
            loads = await load_directory(door, teller, directory)
        report(teller, loads, refused_file=settings.data_dir / REFUSED_FILE)
        new = sum(loaded.accepted for loaded in loads)
        known = sum(loaded.known for loaded in loads)
        teller.line(f"  {number(new)} new, {number(known)} already there from an earlier run")
        if directory is not None:
            await show_cases(door, teller, directory)
        story = Story(door, teller, new_person(secrets.token_hex(4)))
        await story.tell()
        await show_answers(story)
        await show_collection(story)
    teller.line(f"\nDone in {time.monotonic() - begun:.0f} s")
    return problems_of(loads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exits 0 when everything held."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description="Shows Rapport.")
    parser.add_argument(
        "--data",
        type=lambda text: Path(text).expanduser(),
        metavar="DIR",
        help="loads the sets that lie there",
    )
    directory: Path | None = parser.parse_args(arguments).data
    teller = Teller()
    if directory is not None and not directory.is_dir():
        teller.problem(f"{directory} is no directory")
        return 1
    try:
        problems = uvloop.run(run(Settings.from_env(), teller, directory))
    except StackError as error:
        problems = [f"Rapport does not run: {error}"]
    except BrokenClaim as error:
        problems = [f"This does not hold: {error}"]
    except RapportError as error:
        problems = [f"The platform refused: {reason_of(error)}"]
    except (TimeoutError, asyncio.CancelledError):
        problems = ["The platform did not get there in time"]
    except KeyboardInterrupt:
        problems = ["Stopped by hand"]
    except (OSError, ValueError, httpx.HTTPError) as error:
        problems = [f"It could not go on: {error}"]
    for problem in problems:
        teller.problem(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
