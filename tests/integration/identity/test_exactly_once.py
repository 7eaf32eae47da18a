"""Wherever identity is killed, its log tells each thing once, in order: it folds to the tables."""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.identity.__main__ import SERVICE
from services.identity.projections.history import HistoryView
from services.identity.projections.purposes import PurposesView
from services.identity.rules import DEFAULT
from services.kernel.clock import SystemClock
from services.kernel.log.log import read_all, read_heads
from services.kernel.process.runtime import make_kernel, open_pool, prepare_database
from services.kernel.views import projection as module
from services.kernel.views.checkpoint import create_checkpoint, take_lease
from services.kernel.views.projection import Projection, ProjectionMetrics
from tests.accounts_world import AccountHistory
from tests.consents_world import purposes_of
from tests.identity_histories import another_order
from tests.identity_whole import Reader, assert_tables, assert_told, follows
from tests.mortal import Killed, mortal_transaction

EVENTS = 250
BATCH_SIZE_MAX = 12
STATEMENTS_MAX = 60
DEATHS = 0.7


@dataclass
class Mortals:
    """Workers of identity's projection that may be killed, one after the other."""

    pool: Any
    log: Any
    events: list
    life: dict
    born: int = 0

    async def work(self, rng):
        """A worker goes on where the last one was killed, in batches of his own."""
        self.born += 1
        projection = Projection(
            pool=self.pool,
            log=self.log,
            consumer=SERVICE.consumers[0],
            source="events",
            partition=0,
            open_reader=lambda *_: None,
            owner=f"worker {self.born}",
            metrics=ProjectionMetrics(CollectorRegistry()),
            lease_s=0,
        )
        await create_checkpoint(self.pool, projection.place)
        lease = await take_lease(self.pool, projection.place, projection.owner, 0)
        while lease.position < len(self.events):
            is_mortal = rng.random() < DEATHS
            self.life["left"] = rng.randrange(STATEMENTS_MAX) if is_mortal else -1
            size = rng.randint(1, BATCH_SIZE_MAX)
            await projection.apply(lease, self.events[lease.position : lease.position + size])

    async def told(self):
        """What the log says."""
        head = (await read_heads(self.pool))[0]
        return [
            SERVICE.event_types.decode(envelope)
            async for batch in read_all(self.pool, 0, after=0, until=head)
            for envelope in batch
        ]


@pytest.fixture
async def mortals(database, monkeypatch):
    life = {"left": -1}
    monkeypatch.setattr(module, "transaction", mortal_transaction(life))
    rng = random.Random(1)
    facts = AccountHistory(rng, "acme").some(
        EVENTS, retracting=6, judging=6, flagging=3, erasing=2, consenting=3
    )
    events = [
        event._replace(position=position)
        for position, event in enumerate(another_order(rng, facts), start=1)
    ]
    clock = SystemClock()
    async with open_pool(database) as pool:
        await prepare_database(pool, SERVICE, 1, clock)
        async with pool.acquire() as connection:
            await PurposesView().apply(connection, "purposes", purposes_of(facts))
        kernel = make_kernel(pool, SERVICE, 1, clock, secret=bytes(32))
        yield Mortals(pool, kernel.log, events, life)


async def test_a_log_of_workers_that_are_killed_folds_to_the_tables(mortals):
    rng, deaths = random.Random(2), 0
    while True:
        try:
            await mortals.work(rng)
            break
        except Killed:
            deaths += 1

    told = await mortals.told()
    versions = Counter()
    for event in told:
        versions[event.stream] += 1
        assert event.version == versions[event.stream]
    reader, wanted = Reader(), follows(mortals.events, {"acme": DEFAULT})
    reader.read(told)
    assert_told(reader, wanted)
    assert deaths > 10
    async with mortals.pool.acquire() as connection:
        await assert_tables(connection, "profiles", wanted)
        async with connection.transaction():
            await HistoryView().apply(connection, "history", told)
        kept = await connection.fetch(
            "select node, profile from history.nodes where to_time = 'infinity'"
        )
    assert {row["node"]: row["profile"] for row in kept} == {
        node: profile for node, profile in wanted.people.profile_of.items() if profile is not None
    }
