"""Every import has its turn: not even one that always fails keeps workers from the others."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.events_pb2 import CustomerEventQuarantined, CustomerEventRecorded
from rapport.events.v1.imports_pb2 import WatchImportRequest
from services.events.__main__ import SERVICE
from services.events.import_outcomes import QUARANTINED
from services.events.projections.imported import landed_since
from services.events.receipts import stream_of
from services.events.service import imports
from services.events.service.imports import ImportsService
from services.events.upkeep import import_undoing
from services.events.upkeep import importing as upkeep
from services.events.upkeep.importing import ImportMetrics, ImportUpkeep
from services.kernel.clock import SystemClock
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.rpc.caller import acting_as, own_caller
from tests.import_workers import Workers
from tests.imports_world import counts, csv_file, people


@pytest.fixture
async def workers(database_of):
    """Workers on an empty database."""
    async with Workers.open(await database_of(SERVICE)) as workers:
        yield workers


async def test_an_undo_that_always_fails_leaves_the_others_their_turn(workers, monkeypatch):
    async def broken(*_args):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(import_undoing, "present_of", broken)
    undone = await workers.run_by_hand(csv_file([("who", "id"), ("a", "m-1")]), "undone")
    await workers.ask("Undo", undone)
    name = await workers.ready(people(3), import_id="import-1")
    await workers.ask("Start", name)
    await workers.list_all()

    with pytest.raises(ZeroDivisionError):
        await workers.step()
    await workers.step("another")

    assert {"rows": 3, "accepted": 3} == counts((await workers.until(name, "DONE")).progress)


async def test_an_undo_that_failed_is_tried_again_after_a_pause(workers, monkeypatch):
    real, failures = import_undoing.present_of, iter([ZeroDivisionError("a bug")])

    async def broken_once(*args):
        for failure in failures:
            raise failure
        return await real(*args)

    monkeypatch.setattr(import_undoing, "present_of", broken_once)
    monkeypatch.setattr(upkeep, "TROUBLE_PAUSE_S", 0)
    name = await workers.run_by_hand(csv_file([("who", "id"), ("a", "m-1")]), "undone")
    await workers.ask("Undo", name)
    await workers.list_all()

    with pytest.raises(ZeroDivisionError):
        await workers.step()
    await workers.step("another")

    assert 1 == (await workers.until(name, "UNDONE")).retracted


async def test_a_bell_that_never_rests_keeps_no_worker_busy(workers, monkeypatch):
    looks = 0

    async def fruitless(*_args):
        nonlocal looks
        looks += 1
        workers.kernel.bell.ring()
        if looks > 100:
            raise asyncio.CancelledError
        return False

    monkeypatch.setattr(ImportUpkeep, "step", fruitless)
    idle = ImportUpkeep(workers.kernel, workers.recorder, ImportMetrics(CollectorRegistry()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5 * upkeep.LOOK_PAUSE_S):
            await idle.run()

    assert 2 <= looks <= 6


async def test_a_bell_that_never_rests_keeps_no_watch_busy(workers, monkeypatch):
    name = await workers.ready(people(3), import_id="one")
    shown, looks = ImportsService._shown, 0

    async def ringing(*args):
        nonlocal looks
        looks += 1
        workers.kernel.bell.ring()
        return await shown(*args)

    monkeypatch.setattr(ImportsService, "_shown", ringing)
    service = ImportsService(workers.kernel)
    clock, scopes = SystemClock(), frozenset({"*"})

    async def watch():
        async for _ in service.WatchImport(WatchImportRequest(name=name), None):
            pass

    caller = own_caller("api_keys/tests", clock=clock, scopes=scopes, workspace="acme")
    with acting_as(caller), pytest.raises(TimeoutError):
        await asyncio.wait_for(watch(), 5 * imports.WATCH_PAUSE_S)

    assert 2 <= looks <= 6


async def test_a_row_that_left_quarantine_before_it_was_counted_counts_as_quarantined(workers):
    name, kept = "imports/one", CustomerEvent(message_id="m-1", import_name="imports/one")
    facts = [
        CustomerEventQuarantined(customer_event=kept),
        CustomerEventRecorded(customer_event=kept),
    ]
    origin = Origin("acme", name, name, causation_id="")
    async with transaction(workers.pool) as tx:
        appends = [Append(origin, stream_of("m-1"), [NewEvent(fact) for fact in facts])]
        await workers.kernel.log.append(tx, appends)

    landed = await landed_since(
        workers.pool, workers.kernel.event_types, "acme", name, ["m-1"], heads=[0]
    )

    assert {"m-1": QUARANTINED} == landed
