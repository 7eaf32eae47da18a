"""Customer events about products and orders for tests: one by one, and dense random histories."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import (
    CatalogueEntry,
    CustomerEventRecorded,
    CustomerEventRetracted,
    ProductRecorded,
)
from services.events.projections.commerce import CommerceView
from services.kernel.log.recorded import Recorded

START = datetime(2026, 1, 1, tzinfo=UTC)
TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK


def at(minute):
    """A moment."""
    return START + timedelta(minutes=minute)


class Sales:
    """Makes recorded events; each is a minute later than the one before unless told otherwise."""

    def __init__(self, workspace="acme", seed=0):
        self.workspace = workspace
        self._random = random.Random(seed)
        self._minutes = itertools.count()
        self._positions = itertools.count(1)

    def event(self, stream, message, *, occurred=None):
        """One event of a stream."""
        received = next(self._minutes)
        return Recorded(
            partition=0,
            position=next(self._positions),
            workspace=self.workspace,
            stream=stream,
            version=1,
            event_id=uuid.UUID(int=self._random.getrandbits(128)),
            type=message.DESCRIPTOR.full_name,
            event=message,
            actor="tests",
            correlation_id="c",
            causation_id="",
            occur_time=at(received if occurred is None else occurred),
            record_time=at(received),
        )

    def track(self, name, properties, *, message_id=None, occurred=None, received=None):
        """A customer event with properties."""
        sent = CustomerEvent(
            message_id=message_id or f"m{self._random.getrandbits(64)}",
            type=TRACK,
            name=name,
            user_id="u-1",
            properties=json.dumps(properties),
        )
        sent.receive_time.FromDatetime(at(0 if received is None else received))
        return self.event(
            f"message-{sent.message_id}",
            CustomerEventRecorded(customer_event=sent),
            occurred=occurred,
        )

    def retract(self, recorded):
        """The retraction of a recorded customer event."""
        message_id = recorded.event.customer_event.message_id
        return self.event(recorded.stream, CustomerEventRetracted(message_id=message_id))

    def catalogue(self, product, **entry):
        """An entry of the catalogue."""
        fact = ProductRecorded(entry=CatalogueEntry(**entry))
        return self.event(f"product-{product}", fact)


class DenseSales:
    """Few products and few orders, so that everything meets everything."""

    def __init__(self, rng, workspace):
        self._rng = rng
        self._sales = Sales(workspace, seed=rng.random())
        self._retractable = []

    def some(self, size):
        """A number of events; what is retracted was recorded before, and may be sent again."""
        return [event for _ in range(size) for event in self._one()]

    def _one(self):
        choice = self._rng.choice
        if self._retractable and self._rng.random() < 0.15:
            recorded = self._retractable.pop(self._rng.randrange(len(self._retractable)))
            yield self._sales.retract(recorded)
            if self._rng.random() < 0.3:
                again = self._sales.track(
                    choice(["Order Completed", "Product Viewed"]),
                    self._properties(),
                    message_id=recorded.event.customer_event.message_id,
                    occurred=self._rng.randint(0, 30),
                )
                self._retractable.append(again)
                yield again
            return
        if self._rng.random() < 0.1:
            yield self._sales.catalogue(choice("pqr"), display_name=choice(["", "Lamp"]))
            return
        names = ["Product Viewed", "Product Added", "Order Completed", "order_updated"]
        names += ["Order Refunded", "Order Refunded", "Order Cancelled", "Order Continued"]
        names += ["Product List Viewed", "Coupon Entered"]
        recorded = self._sales.track(
            choice(names),
            self._properties(),
            occurred=self._rng.randint(0, 30),
            received=self._rng.randint(0, 5),
        )
        self._retractable.append(recorded)
        yield recorded

    def _properties(self):
        choice = self._rng.choice
        said = {"order_id": choice(["1", "2", 3, "3", "", "a/b"]), "currency": choice(["EUR", "x"])}
        said |= choice([{}, {"total": choice([10, "27.50", 1.005, "ten"])}])
        said |= choice([{}, {"products": [self._product() for _ in range(choice([0, 1, 2, 3]))]}])
        said |= choice([{}, self._product()])
        said |= choice([{}, {"parts": choice([2, 3, 99])}, {"part": choice([1, 2, 3])}])
        return said

    def _product(self):
        choice = self._rng.choice
        said = {"product_id": choice(["p", "q", "r", ""]), "sku": choice(["p", "s", ""])}
        said |= choice([{}, {"quantity": choice([1, 2, -1, 1.5])}])
        said |= choice([{}, {"name": choice(["Lamp", "Desk"]), "brand": choice(["A", "B", None])}])
        return said | choice([{}, {"price": choice([5, "2.5", "free", 0.1])}])


def another_order(rng, history):
    """The same events in another order; those of one stream keep theirs."""
    queues = {}
    for event in history:
        queues.setdefault((event.workspace, event.stream), []).append(event)
    turns = [(event.workspace, event.stream) for event in history]
    rng.shuffle(turns)
    following = {stream: iter(events) for stream, events in queues.items()}
    return [next(following[stream]) for stream in turns]


def batches(rng, events, largest):
    """The events in batches of random sizes."""
    rest = list(events)
    while rest:
        size = rng.randint(1, largest)
        yield rest[:size]
        rest = rest[size:]


@asynccontextmanager
async def connected(database):
    """A connection to a database."""
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


async def create(connection, schema="commerce"):
    """Makes the view's tables in a schema."""
    await connection.execute(f"create schema {schema}")
    await connection.execute(CommerceView().tables(schema))


async def apply(connection, events, schema="commerce"):
    """Applies one batch in one transaction."""
    async with connection.transaction():
        await CommerceView().apply(connection, schema, events)


async def tables(connection, schema):
    """Every row of every table, as text and sorted."""
    names = ("mentions", "statements", "refund_sums", "orders", "products")
    return {
        name: sorted(
            row["row"]
            for row in await connection.fetch(f"select t::text as row from {schema}.{name} t")
        )
        for name in names
    }
