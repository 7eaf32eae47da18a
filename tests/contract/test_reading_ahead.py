"""While a projection applies a batch behind which more waits, the next one is read and prepared."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from google.protobuf import wrappers_pb2
from google.protobuf.struct_pb2 import Struct

from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.recorded import EventTypes
from services.kernel.testing import eventually
from services.kernel.views import projection as projections
from services.kernel.views.projection import Consumer
from tests.projection_world import projection_world
from tests.tallies import TEXTS, Tallies, texts

BATCH_SIZE = 2


@dataclass
class Foreseeing(Tallies):
    """Applies an event only when it has seen the next batch, if there is any more to see."""

    last: int = 0
    ahead: list[int] = field(default_factory=list)

    def read_ahead(self, events):
        """Notes what it is shown."""
        self.ahead += [event.position for event in events]

    async def apply(self, tx, schema, events):
        """Waits to be shown what follows."""
        await eventually(lambda: self._is_shown(min(events[-1].position + 1, self.last)))
        return await super().apply(tx, schema, events)

    def _is_shown(self, position):
        assert self.ahead[-1] >= position


@pytest.fixture
async def world(database, monkeypatch):
    monkeypatch.setattr(projections, "BATCH_SIZE_MAX", BATCH_SIZE)
    made = await projection_world(database)
    yield made
    await made.pool.close()


@asynccontextmanager
async def at_work(world, consumer):
    """A worker that runs meanwhile."""
    projection = world.projection(consumer=consumer)
    projection._batch_size = BATCH_SIZE
    task = asyncio.create_task(projection.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def is_at(world, position):
    assert position == await world.position()


async def test_the_next_batch_is_shown_to_the_view_before_this_one_is_applied(world):
    await world.record(*(texts(f"thing-{n}", "a") for n in range(5)))
    view = Foreseeing(last=5)

    async with at_work(world, Consumer(view, ("things",), TEXTS)):
        await eventually(lambda: is_at(world, 5))

    assert [1, 2, 3, 4, 5] == view.ahead
    assert {f"thing-{n}": (1, "a") for n in range(5)} == await world.tallies()


async def test_poison_that_was_read_ahead_is_parked_alone(world):
    unknown = Append(Origin("acme", "tests", "", ""), "thing-2", [NewEvent(Struct())])
    await world.record(texts("thing-1", "a", "b"), unknown, texts("thing-3", "d"))
    consumer = Consumer(Tallies(), ("things",), EventTypes(wrappers_pb2))

    async with at_work(world, consumer):
        await eventually(lambda: is_at(world, 4))

    assert {"thing-1": (2, "b"), "thing-3": (1, "d")} == await world.tallies()
    assert [3] == [row["position"] for row in await world.pool.fetch("table kernel.parked")]


async def test_what_fails_already_when_it_is_read_ahead_is_parked_alone(world):
    await world.record(*(texts(f"thing-{n}", "bad" if n == 3 else "a") for n in range(5)))

    class Stumbling(Tallies):
        def read_ahead(self, events):
            assert "bad" not in {event.event.value for event in events}

        async def apply(self, tx, schema, events):
            self.read_ahead(events)
            return await super().apply(tx, schema, events)

    async with at_work(world, Consumer(Stumbling(), ("things",), TEXTS)):
        await eventually(lambda: is_at(world, 5))

    assert {f"thing-{n}": (1, "a") for n in (0, 1, 2, 4)} == await world.tallies()
    assert [4] == [row["position"] for row in await world.pool.fetch("table kernel.parked")]


async def test_who_fails_while_he_reads_ahead_goes_on_where_he_was(world):
    """The connection is lost in the first batch; what was read of the second is read again."""
    await world.record(*(texts(f"thing-{n}", "a") for n in range(4)))
    failures = iter([ConnectionResetError("gone")])

    class Losing(Tallies):
        async def apply(self, tx, schema, events):
            for failure in failures:
                raise failure
            return await super().apply(tx, schema, events)

    async with at_work(world, Consumer(Losing(), ("things",), TEXTS)):
        await eventually(lambda: is_at(world, 4))

    assert {f"thing-{n}": (1, "a") for n in range(4)} == await world.tallies()
