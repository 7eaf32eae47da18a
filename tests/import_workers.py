"""Imports on a bare database: workers that a test steps, kills, and lets take over."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import asyncpg
from prometheus_client import CollectorRegistry

from rapport.events.v1.events_pb2 import CustomerEventRecorded, CustomerEventRetracted
from services.events.__main__ import SERVICE
from services.events.projections import importing
from services.events.projections.customer_events import SOURCE, VIEW
from services.events.projections.doors import Doors
from services.events.recording import Recorder
from services.events.service.customer_events import EventsService
from services.events.service.imports import ImportsService
from services.events.upkeep.importing import ImportMetrics, ImportUpkeep
from services.kernel.clock import SystemClock
from services.kernel.log.database import transaction
from services.kernel.log.log import read_partition
from services.kernel.process.runtime import make_kernel, prepare_database
from services.kernel.rpc.caller import acting_as, own_caller
from services.kernel.views.checkpoint import Place, create_checkpoint
from tests.imports_world import Imports, mapping

ACME = "acme"


class Killed(BaseException):
    """When a worker's process ends at once: nothing after this line happens."""


class Asked:
    """A service asked without a wire, for a workspace."""

    def __init__(self, service, workspace=ACME):
        self._service, self._workspace = service, workspace

    def __getattr__(self, method):
        async def ask(request):
            caller = own_caller(
                "api_keys/tests",
                clock=SystemClock(),
                scopes=frozenset({"*"}),
                workspace=self._workspace,
            )
            with acting_as(caller):
                return await getattr(self._service, method)(request, None)

        return ask


class Workers(Imports):
    """Imports, and the workers that do what they ask for."""

    def __init__(self, pool, kernel):
        self.pool, self.kernel = pool, kernel
        self.recorder = Recorder(kernel, Doors(pool, kernel.derive_key))
        super().__init__(Asked(ImportsService(kernel)), Asked(EventsService(kernel, self.recorder)))

    @classmethod
    @asynccontextmanager
    async def open(cls, database):
        """Workers on an empty database, which commits but tells nobody."""
        async with asyncpg.create_pool(database, min_size=1, max_size=8) as pool:
            clock = SystemClock()
            await prepare_database(pool, SERVICE, 1, clock)
            kernel = make_kernel(pool, SERVICE, 1, clock, secret=b"")
            await create_checkpoint(pool, Place(VIEW.name, SOURCE, 0))
            committing = asyncio.create_task(kernel.group_commit.run())
            try:
                yield cls(pool, kernel)
            finally:
                kernel.group_commit.close()
                await committing

    async def until(self, name, state, within_s=2.0):
        """The import, which a worker that was stepped has brought into a state."""
        return await super().until(name, state, within_s)

    async def step(self, owner="a worker"):
        """A worker does what it finds; tells whether there was anything."""
        upkeep = ImportUpkeep(self.kernel, self.recorder, ImportMetrics(CollectorRegistry()))
        return await upkeep.step(owner)

    async def run_by_hand(self, file, import_id):
        """Imports a file whose rows have ids of their own, by one worker; its name."""
        by_id = mapping(user_id="who", message_id="id")
        name = await self.ready(file, mapping=by_id, import_id=import_id)
        await self.ask("Start", name)
        while await self.step():
            pass
        await self.until(name, "DONE")
        return name

    async def die(self, owner="a worker"):
        """A worker's process ends where the test says."""
        try:
            while await self.step(owner):
                pass
        except Killed:
            return
        raise AssertionError("the worker got past where it should have died")

    async def undo(self, name):
        """Undoes an import, by one worker, while the list follows."""
        await self.ask("Undo", name)
        await self.list_all()
        while await self.step():
            await self.list_all()
        await self.list_all()
        return await self.until(name, "UNDONE")

    async def lapse(self):
        """Time passes, until what dead workers had is free."""
        await self.pool.execute("update importing.progress set lease_until = '-infinity'")

    async def list_all(self):
        """The list of customer events follows the log to its end."""
        async with transaction(self.pool) as tx:
            after = await tx.fetchval(
                "select position from kernel.checkpoints where consumer = $1", VIEW.name
            )
            envelopes = await read_partition(tx, 0, after=after, limit=100_000)
            events = [self.kernel.event_types.decode(envelope) for envelope in envelopes]
            await VIEW.apply(tx, VIEW.name, events)
            await tx.execute(
                "update kernel.checkpoints set position = position + $2 where consumer = $1",
                VIEW.name,
                len(events),
            )

    async def facts(self):
        """All events of the log, in order."""
        envelopes = await read_partition(self.pool, 0, after=0, limit=100_000)
        return [self.kernel.event_types.decode(envelope) for envelope in envelopes]

    async def counted(self):
        """How often each message id was recorded, and how often retracted."""
        recorded, retracted = Counter(), Counter()
        for event in await self.facts():
            if isinstance(event.event, CustomerEventRecorded):
                recorded[event.event.customer_event.message_id] += 1
            elif isinstance(event.event, CustomerEventRetracted):
                retracted[event.event.message_id] += 1
        return recorded, retracted


def kill_at(monkeypatch, place, when, nth):
    """Ends whoever comes to a place for the nth time, before or after what happens there."""
    owner, name = place
    real = getattr(owner, name)
    came = 0

    async def deadly(*args, **kwargs):
        nonlocal came
        came += 1
        is_last = came == nth
        if is_last and when == "before":
            raise Killed
        result = await real(*args, **kwargs)
        if is_last and when == "after":
            raise Killed
        return result

    async def silent(*_args):
        """Who is dead releases nothing."""

    monkeypatch.setattr(owner, name, deadly)
    monkeypatch.setattr(importing, "release", silent)
