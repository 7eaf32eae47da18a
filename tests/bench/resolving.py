"""How fast identity resolves a large crowd as it comes, and all of it at once.

    python -m tests.bench.resolving --events 1000000 --people 200000

The tables that both leave are compared row for row, and bare COPY writes the same rows.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop
from asyncpg import Pool

from deploy.stack.postgres import Postgres
from deploy.stack.settings import Settings
from services.identity.__main__ import SERVICE
from services.identity.facts import read_fact
from services.identity.projections.assertions import Swing
from services.identity.projections.atoms import add_to_atoms, save_atoms
from services.identity.projections.islands import Islands
from services.identity.projections.step import profiles_of
from services.identity.projections.view import PLAN_BY_KEYS
from services.identity.rules import DEFAULT
from services.kernel.clock import SystemClock, new_ids
from services.kernel.feed.source import own_source
from services.kernel.log.database import transaction
from services.kernel.log.log import Log, read_all
from services.kernel.log.reader import LogReader
from services.kernel.process.garbage import collect_garbage_rarely
from services.kernel.process.runtime import make_kernel, open_pool, prepare_database
from services.kernel.views.rebuild import Rebuild
from services.kernel.views.view import digest
from tests.bench.consuming import follow_feed
from tests.bench.crowd import Crowd
from tests.bench.facts import fill
from tests.bench.section_rebuild import copy_of_built

# A server of its own for some million people; the stack's are development sizes.
PRODUCTION = {"shared_buffers": "4GB", "max_wal_size": "16GB"}

_ALONE = "graph_alone"

_COUNTS = """
select (select count(*) from profiles.nodes) as identifiers,
    (select count(*) from profiles.edges) as edges,
    (select count(*) from profiles.profiles) as profiles
"""


async def measure(postgres: Postgres, events: int, people: int) -> None:
    """Fills a log, resolves it in both ways and prints what came of it."""
    say(f"{os.cpu_count()} cores, load at start {os.getloadavg()[0]:.1f}")
    log_url = await postgres.create_database("crowd")
    url = await postgres.create_database("identity")
    async with open_pool(log_url) as source, open_pool(url) as pool:
        await prepare_database(source, SERVICE, 1, SystemClock())
        await prepare_database(pool, SERVICE, 1, SystemClock())
        began = time.perf_counter()
        await fill(source, "events", Crowd(people).facts(events))
        tell("the log is filled", events, time.perf_counter() - began)
        await as_it_comes(pool, source, events)
        await graph_alone(pool, source, events)
        await at_once(pool, source, events)


async def as_it_comes(pool: Pool, source: Pool, events: int) -> None:
    """Folds the log batch by batch, with all that is told of it."""
    log = Log(service="events", partitions=1, clock=SystemClock(), new_ids=new_ids)
    done = await follow_feed(
        SERVICE,
        pool,
        "events",
        events,
        lambda _source, partition, after: LogReader(
            source, log, partition=partition, after_position=after
        ),
    )
    tell("as it comes", done.count, done.seconds)
    row = await pool.fetchrow(_COUNTS)
    say(", ".join(f"{count} {what}" for what, count in dict(row).items()))


async def graph_alone(pool: Pool, source: Pool, events: int) -> None:
    """Resolves the log batch by batch, and keeps who is who and since when, but nothing else.

    So engines are compared that hold no timeline and tell nobody; it leaves the same graph.
    """
    view, event_types = SERVICE.consumers[0].view, SERVICE.consumers[0].event_types
    async with transaction(pool) as tx:
        await tx.execute(f"create schema {_ALONE}; {view.tables(_ALONE)}")
    rules = defaultdict(lambda: DEFAULT)
    began = time.perf_counter()
    async for batch in read_all(source, 0, after=0, until=events):
        read = (read_fact(DEFAULT, event, {}) for event in event_types.decode_all(batch))
        facts = [fact for fact in read if fact is not None]
        async with transaction(pool) as tx:
            await tx.execute(PLAN_BY_KEYS)
            touched = Islands(tx, _ALONE, rules)
            await touched.join(facts, Swing())
            growth = add_to_atoms(touched.atoms, facts)
            touched.save(profiles_of(touched.clusters, touched.atoms))
            save_atoms(tx, _ALONE, growth)
    tell("the graph alone", events, time.perf_counter() - began)
    async with pool.acquire() as connection:
        ours, alone = await digest(connection, view.name), await digest(connection, _ALONE)
    graph = ("nodes", "edges", "atoms")
    same = all(ours[table] == alone[table] for table in graph)
    say("the same graph" if same else f"DIFFERENT: {ours} {alone}")


async def at_once(pool: Pool, source: Pool, events: int) -> None:
    """Builds the view beside in memory, compares, and copies its rows bare."""
    consumer = SERVICE.consumers[0]
    log = make_kernel(pool, SERVICE, 1, SystemClock(), secret=b"").log
    readers = {"events": own_source(source).read}
    rebuild = Rebuild(pool, log, consumer.view, consumer.event_types, readers)
    began = time.perf_counter()
    async for _ in rebuild.build():
        pass
    tell("at once", events, time.perf_counter() - began)
    comparison = await rebuild.compare()
    say("row for row the same" if comparison.equal else f"DIFFERENT: {comparison}")
    copied, _ = await copy_of_built(pool, consumer.view)
    bare = await copied.copy(events)
    tell("bare COPY of the same rows", events, bare.seconds)


def tell(what: str, events: int, seconds: float) -> None:
    """Prints a line of the table."""
    say(f"{what:28} {events:>9} events {seconds:8.1f} s {events / seconds:>9.0f} events/s")


def say(text: str) -> None:
    """Prints at once, for it takes minutes."""
    print(text, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Reads how many are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.resolving")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=200_000)
    chosen = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    folder = Path(tempfile.mkdtemp(prefix="rapport-bench-"))
    folder.chmod(0o711)
    binaries = Settings.from_env().postgres_bin
    postgres = Postgres(folder / "postgres", bin_dir=binaries, settings=PRODUCTION)
    try:
        postgres.start()
        # As every process of the platform runs.
        collect_garbage_rarely()
        uvloop.run(measure(postgres, chosen.events, chosen.people))
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
