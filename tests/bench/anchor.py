"""The anchor: the PyPI library `eventsourcing` doing the same job on the same PostgreSQL.

In its safe mode, which is its default there: an insert locks the table, so positions become
visible in order. Its calls block, so they run in threads, as its users run them; each method here
times itself and is called through `Library.timed`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import Environment
from psycopg.sql import SQL, Identifier

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from tests.bench.rounds import Measured
from tests.bench.sizes import ANCHOR_BULK_MAX, ANCHOR_BULK_SIZE

if TYPE_CHECKING:
    from eventsourcing.persistence import Tracking

POOL_SIZE = 10
REPLAY_BATCH = 2_000
PAUSE_S = 0.005


class Contact(Aggregate):
    """The aggregate of the commands."""

    @event("Created")
    def __init__(self, given_name: str, family_name: str, email: str) -> None:
        self.given_name = given_name
        self.family_name = family_name
        self.email = email

    @event("Renamed")
    def rename(self, given_name: str, family_name: str) -> None:
        self.given_name = given_name
        self.family_name = family_name


@dataclass
class Message(Aggregate):
    """One customer event: a stream of its own with one event, as ours are."""

    kind: str
    name: str
    user_id: str
    anonymous_id: str
    properties: str
    traits: str
    context: str
    original_time: str


class Shop(Application[UUID]):
    """The application."""


class PeopleView(PostgresTrackingRecorder):
    """A row per visitor, written with the checkpoint in one transaction."""

    def __init__(self, datastore: Any, **options: Any) -> None:
        super().__init__(datastore, **options)
        self._table = Identifier(datastore.schema, "people")
        self.sql_create_statements.append(
            SQL(
                "create table if not exists {} "
                "(visitor text primary key, count bigint, last_name text, last_properties text)"
            ).format(self._table)
        )

    def add(self, visitor: str, name: str, properties: str, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                SQL(
                    "insert into {} as p values (%s, 1, %s, %s) on conflict (visitor) do update "
                    "set count = p.count + 1, last_name = excluded.last_name, "
                    "last_properties = excluded.last_properties"
                ).format(self._table),
                (visitor, name, properties),
                prepare=True,
            )

    def forget(self) -> None:
        """Starts from nothing again."""
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(SQL("truncate {}").format(self._table))
            cursor.execute(
                SQL("delete from {} where application_name = 'Shop'").format(
                    Identifier(self.datastore.schema, self.tracking_table_name)
                )
            )


class People(Projection[PeopleView]):
    """Folds customer events into the view, one transaction each: the library has no batches."""

    name = "people"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        self.view.add(
            domain_event.user_id or domain_event.anonymous_id,
            domain_event.name,
            domain_event.properties,
            tracking,
        )


class Library:
    """The application on a database of its own, and the jobs it is measured with."""

    def __init__(self, database_url: str) -> None:
        self._env = environment_of(database_url)
        self.shop = Shop(env=self._env)
        self.contacts: list[UUID] = []
        self._turn = 0
        self._view: PeopleView | None = None

    async def timed(self, job: Callable[..., Measured], *arguments: Any) -> Measured:
        """Runs a job in a thread while this loop idles."""
        return await asyncio.to_thread(job, *arguments)

    def close(self) -> None:
        """Ends its connections."""
        self.shop.close()
        if self._view is not None:
            self._view.datastore.close()

    def create_contacts(self, count: int) -> Measured:
        """Makes contacts to be renamed."""
        made = [Contact(given_name="Ada", family_name="Abel", email=f"{n}@x") for n in range(count)]
        began = time.perf_counter()
        for start in range(0, count, ANCHOR_BULK_SIZE):
            self.shop.save(*made[start : start + ANCHOR_BULK_SIZE])
        self.contacts += [contact.id for contact in made]
        return Measured(count, time.perf_counter() - began)

    def rename(self, count: int) -> Measured:
        """Loads, renames and saves one contact after the other."""
        turns = self._turns(count)
        began = time.perf_counter()
        for turn in turns:
            self._rename(turn)
        return Measured(count, time.perf_counter() - began)

    def rename_in_threads(self, count: int, threads: int) -> Measured:
        """The same in threads."""
        turns = self._turns(count)
        with ThreadPoolExecutor(threads) as executor:
            list(executor.map(lambda _: self.shop.recorder.max_notification_id(), range(threads)))
            began = time.perf_counter()
            list(executor.map(self._rename, turns))
            return Measured(count, time.perf_counter() - began)

    def rename_in_bulk(self, count: int, bulk: int) -> Measured:
        """Renames contacts it holds already and saves many at once; loading is not timed."""
        seconds = 0.0
        for start in range(0, count, bulk):
            turns = self._turns(min(bulk, count - start))
            held = [self.shop.repository.get(self._contact(turn)) for turn in turns]
            began = time.perf_counter()
            for turn, contact in zip(turns, held, strict=True):
                contact.rename(given_name=f"Given {turn}", family_name="Family")
            self.shop.save(*held)
            seconds += time.perf_counter() - began
        return Measured(count, seconds)

    def record(self, sent: Sequence[CustomerEvent], bulk: int) -> Measured:
        """Saves customer events, each an aggregate of its own, many at once."""
        assert bulk <= ANCHOR_BULK_MAX
        fields = [_fields(each) for each in sent]
        began = time.perf_counter()
        for start in range(0, len(fields), bulk):
            self.shop.save(*(Message(**each) for each in fields[start : start + bulk]))
        return Measured(len(fields), time.perf_counter() - began)

    def replay(self, count: int) -> Measured:
        """Reads stored events in order, undecoded."""
        start, left = 1, count
        began = time.perf_counter()
        while left > 0:
            found = self.shop.recorder.select_notifications(start, min(REPLAY_BATCH, left))
            start, left = found[-1].id + 1, left - len(found)
        return Measured(count, time.perf_counter() - began)

    def project(self) -> Measured:
        """Runs a projection from nothing to the end of the log."""
        self._people().forget()
        end = self.shop.recorder.max_notification_id() or 0
        began = time.perf_counter()
        with ProjectionRunner(
            application_class=Shop,
            projection_class=People,
            view_class=PeopleView,
            env=self._env,
        ) as runner:
            while (runner.view.max_tracking_id(Shop.name) or 0) < end:
                time.sleep(PAUSE_S)
            return Measured(end, time.perf_counter() - began)

    def _people(self) -> PeopleView:
        if self._view is None:
            environment = Environment(People.name, self._env)
            factory = InfrastructureFactory.construct(environment)
            self._view = factory.tracking_recorder(PeopleView)
        return self._view

    def _turns(self, count: int) -> range:
        self._turn += count
        return range(self._turn - count, self._turn)

    def _contact(self, turn: int) -> UUID:
        return self.contacts[turn % len(self.contacts)]

    def _rename(self, turn: int) -> None:
        contact = self.shop.repository.get(self._contact(turn))
        contact.rename(given_name=f"Given {turn}", family_name="Family")
        self.shop.save(contact)


def environment_of(database_url: str) -> dict[str, str]:
    """How the library is told where its database is."""
    parts = urlsplit(database_url)
    where = parse_qs(parts.query)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.removeprefix("/"),
        "POSTGRES_HOST": where["host"][0],
        "POSTGRES_PORT": where["port"][0],
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": "none is asked for",
        "POSTGRES_POOL_SIZE": str(POOL_SIZE),
    }


def _fields(sent: CustomerEvent) -> dict[str, str]:
    return {
        "kind": CustomerEventType.Name(sent.type),
        "name": sent.name,
        "user_id": sent.user_id,
        "anonymous_id": sent.anonymous_id,
        "properties": sent.properties,
        "traits": sent.traits,
        "context": sent.context,
        "original_time": sent.original_time.ToJsonString(),
    }
