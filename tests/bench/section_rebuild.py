"""Rebuilds: every view of the platform folded anew from its logs, beside the live one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from asyncpg import Pool

from services.contacts.__main__ import SERVICE as CONTACTS
from services.deals.__main__ import SERVICE as DEALS
from services.events.__main__ import SERVICE as EVENTS
from services.identity.__main__ import SERVICE as IDENTITY
from services.kernel.clock import SystemClock
from services.kernel.feed.source import own_source
from services.kernel.log.log import read_heads
from services.kernel.process.runtime import Service, make_kernel, open_pool, prepare_database
from services.kernel.views.checkpoint import Place, create_checkpoint
from services.kernel.views.rebuild import Rebuild
from services.kernel.views.view import AnyView, schema_of
from services.segments.__main__ import SERVICE as SEGMENTS
from tests.bench.anchor import Library
from tests.bench.bare import CopiedTables, read_log, select_log
from tests.bench.consuming import identity_log, segments_log
from tests.bench.facts import log_of
from tests.bench.people import EVENTS_PER_VISITOR, Shop
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.sizes import ANCHOR_BULK_SIZE
from tests.bench.world import World

_BUILT = "select max(generation) from kernel.generations where view = $1 and status = 'BUILDING'"
_TABLES = "select tablename from pg_tables where schemaname = $1 order by tablename"


@dataclass(frozen=True)
class Rebuilt:
    """A view that can be rebuilt, the logs it is made of, and a copy of what comes out."""

    rebuild: Rebuild
    logs: Sequence[Pool]
    copied: CopiedTables
    heads: Sequence[int]

    @property
    def name(self) -> str:
        """The view's name."""
        return self.rebuild.view.name

    @property
    def count(self) -> int:
        """How many events it is made of."""
        return sum(self.heads)

    async def run(self) -> Measured:
        """Rebuilds it, and drops what was built."""
        began = time.perf_counter()
        done = 0
        async for progress in self.rebuild.build():
            done = progress.done
        seconds = time.perf_counter() - began
        assert done == self.count, f"{self.name}: {done} of {self.count}"
        await self.rebuild.drop(await self.generation())
        return Measured(done, seconds)

    async def read(self) -> Measured:
        """Reads the same logs and does nothing with them."""
        read = [await read_log(log, head) for log, head in zip(self.logs, self.heads, strict=True)]
        return Measured(self.count, sum(each.seconds for each in read))

    async def copy(self) -> Measured:
        """Writes the resulting rows and does nothing else."""
        return await self.copied.copy(self.count)

    async def generation(self) -> int:
        """The generation that is being built."""
        return int(await self.rebuild.pool.fetchval(_BUILT, self.name))


async def rebuilt(
    pool: Pool, service: Service, view: AnyView, sources: Mapping[str, Pool]
) -> Rebuilt:
    """Prepares a view: builds it once to know its rows. Without sources it reads its own log."""
    log = make_kernel(pool, service, 1, SystemClock(), secret=b"").log
    types = {consumer.name: consumer.event_types for consumer in service.consumers}
    readers = {name: own_source(source).read for name, source in sources.items()}
    rebuild = Rebuild(pool, log, view, types.get(view.name, service.event_types), readers)
    logs = list(sources.values()) or [pool]
    heads = [(await read_heads(each))[0] for each in logs]
    for (name, _), head in zip(sources.items(), heads, strict=False):
        await create_checkpoint(pool, Place(view.name, name, 0), head)
    async for _ in rebuild.build():
        pass
    copied, built = await copy_of_built(pool, view)
    await rebuild.drop(built)
    return Rebuilt(rebuild, logs, copied, heads)


async def copy_of_built(pool: Pool, view: AnyView) -> tuple[CopiedTables, int]:
    """Takes along the rows of the generation that was built, to be copied; answers its number."""
    built = int(await pool.fetchval(_BUILT, view.name))
    target = f"bare_{view.name}"
    await pool.execute(f'create schema "{target}"')
    await pool.execute(view.tables(target))
    tables = [row[0] for row in await pool.fetch(_TABLES, target)]
    copied = CopiedTables(pool, target, tables)
    await copied.load(schema_of(view.name, built))
    return copied, built


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    async with AsyncExitStack() as stack:

        async def opened(url: str) -> Pool:
            return await stack.enter_async_context(open_pool(url))

        pools = {name: await opened(await log_of(world, name)) for name in IDENTITY.peers}
        pools |= {
            "identity": await opened(await identity_log(world)),
            "segments": await opened(await segments_log(world)),
        }
        views = [
            await rebuilt(
                pools[service.name],
                service,
                view,
                {source: pools[source] for source in _sources_of(service, view)},
            )
            for service in (CONTACTS, DEALS, EVENTS, IDENTITY, SEGMENTS)
            for view in await _views_of(service, pools[service.name])
        ]
        library = Library(await world.postgres.create_database("rebuild_anchor"))
        stack.callback(library.close)
        count = world.sizes.anchor_replayed
        shop = Shop("rebuild", visitors=count // EVENTS_PER_VISITOR)
        await library.timed(library.record, shop.customer_events(count), ANCHOR_BULK_SIZE)
        projected = Library(await world.postgres.create_database("rebuild_anchor_projected"))
        stack.callback(projected.close)
        few = shop.customer_events(world.sizes.anchor_projected)
        await projected.timed(projected.record, few, ANCHOR_BULK_SIZE)
        events = pools["events"]
        yield Bout(
            [
                *(contender for view in views for contender in _contenders(view)),
                Contender("select", partial(select_log, events, (await read_heads(events))[0])),
                Contender("replay", partial(library.timed, library.replay, count)),
                Contender("project", partial(projected.timed, projected.project)),
            ],
            [_READ, *(line for view in views for line in _lines(view))],
        )


async def _views_of(service: Service, pool: Pool) -> list[AnyView]:
    """All views of a service, live, if empty: a rebuild does not look at the live rows."""
    await prepare_database(pool, service, 1, SystemClock())
    return [*service.views, *(consumer.view for consumer in service.consumers)]


def _sources_of(service: Service, view: AnyView) -> Sequence[str]:
    found = [consumer.sources for consumer in service.consumers if consumer.view is view]
    return found[0] if found else ()


def _contenders(view: Rebuilt) -> list[Contender]:
    jobs: dict[str, Callable[[], Any]] = {"": view.run, "read ": view.read, "copy ": view.copy}
    return [Contender(f"{job}{view.name}", run) for job, run in jobs.items()]


def _lines(view: Rebuilt) -> list[Line]:
    rows = sum(len(rows) for rows in view.copied.rows.values())
    return [
        Line(
            what=f"{view.name} beside reading its log",
            ours=view.name,
            bare=f"read {view.name}",
            anchor="project",
            note=f"{view.count:,} events of {len(view.heads)} log(s); anchor: its projection anew",
        ),
        Line(
            what=f"{view.name} beside COPY of its rows",
            ours=view.name,
            bare=f"copy {view.name}",
            note=f"{rows:,} rows in {len(view.copied.tables)} table(s), per event they stand for",
        ),
    ]


_READ = Line(
    what="reading a log",
    ours="read customer_events",
    bare="select",
    anchor="replay",
    note="ours: envelopes; bare: the rows as the driver gives them; anchor: raw replay",
)

SECTION = Section("rebuild", "Rebuild: events/s of each view, folded from the first event", _open)
