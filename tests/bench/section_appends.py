"""Commands per second: a contact renamed, by one caller and by many.

A command is the whole job: request id remembered, state and list view written in the same
transaction, answered after its commit.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from asyncpg import Connection, Pool, Record

from rapport.contacts.v1.service_pb2 import CreateContactRequest, RenameContactRequest
from services.contacts.__main__ import SERVICE
from services.contacts.service import ContactsService
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import acting_as
from tests.bench.anchor import Library
from tests.bench.bare import columns_of, like
from tests.bench.people import name_of
from tests.bench.rounds import Bout, Contender, Line, Measured, Section
from tests.bench.sizes import ANCHOR_BULK_SIZE, ANCHOR_THREADS, CALLERS_TOGETHER
from tests.bench.world import World, bench_caller, kernel_of

TABLES = ("kernel.events", "kernel.requests", "kernel.states", "contacts.contacts")

# What a command leaves behind, the newest commands first come last.
_WRITTEN = {
    "kernel.events": """
        select * from kernel.events where position > $1 and type like '%ContactRenamed'
        order by position limit $2
    """,
    "kernel.requests": """
        select r.* from kernel.requests r join kernel.events e on r.request_id = e.causation_id
        where e.position > $1 and e.type like '%ContactRenamed' order by e.position limit $2
    """,
    "kernel.states": """
        select s.* from kernel.states s join kernel.events e using (workspace, stream)
        where e.position > $1 and e.type like '%ContactRenamed' order by e.position limit $2
    """,
    "contacts.contacts": """
        select c.* from contacts.contacts c
        join kernel.events e on e.stream = 'contact-' || c.contact_id
        where e.position > $1 and e.type like '%ContactRenamed' order by e.position limit $2
    """,
}

_KEYS = {"kernel.states": "workspace, stream", "contacts.contacts": "workspace, contact_id"}


class Renaming:
    """Callers who rename contacts of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._service = ContactsService(kernel)
        self._names: list[str] = []
        self._numbers = itertools.count()

    async def create(self, count: int) -> None:
        """Makes the contacts."""
        with acting_as(bench_caller()):
            made = await asyncio.gather(
                *(
                    self._service.CreateContact(
                        CreateContactRequest(
                            request_id=str(uuid.uuid4()),
                            given_name=name_of(number)[0],
                            family_name=name_of(number)[1],
                            email=f"{number}@people.example",
                        ),
                        None,
                    )
                    for number in range(count)
                )
            )
        self._names = [each.contact.name for each in made]

    async def rename(self, count: int, callers: int) -> Measured:
        """Renames `count` contacts, each caller one after the other."""
        requests = iter([self._request(next(self._numbers)) for _ in range(count)])

        async def caller() -> None:
            for request in requests:
                await self._service.RenameContact(request, None)

        with acting_as(bench_caller()):
            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(callers)))
            return Measured(count, time.perf_counter() - began)

    def _request(self, number: int) -> RenameContactRequest:
        return RenameContactRequest(
            name=self._names[number % len(self._names)],
            request_id=str(uuid.uuid4()),
            given_name=f"Given {number}",
            family_name="Family",
        )


@dataclass
class BareRows:
    """The rows that commands wrote, written again into tables like theirs."""

    pool: Pool
    schema: str
    reached: int = 0
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)

    async def create(self) -> None:
        """Makes the tables, those that are overwritten with what is there."""
        await self.pool.execute(f"create schema {self.schema}")
        for table in TABLES:
            await like(self.pool, self.schema, table)
            self.columns[table] = await columns_of(self.pool, *table.split("."))
        for table in _KEYS:
            await self.pool.execute(f"insert into {self._name(table)} select * from {table}")

    async def insert(self, count: int) -> Measured:
        """One transaction per command: four statements, prepared once."""
        rows = await self._rows(count)
        async with self.pool.acquire() as connection:
            statements = {
                table: await connection.prepare(self._statement(table)) for table in TABLES
            }
            began = time.perf_counter()
            for number in range(count):
                async with connection.transaction():
                    for table in TABLES:
                        await statements[table].fetch(*rows[table][number])
            return Measured(count, time.perf_counter() - began)

    async def copy(self, count: int) -> Measured:
        """All in one transaction; what is overwritten is copied once per contact."""
        rows = await self._rows(count)
        for table, key in _KEYS.items():
            await self.pool.execute(f"truncate {self._name(table)}")
            places = [self.columns[table].index(column) for column in key.split(", ")]
            rows[table] = list({tuple(row[p] for p in places): row for row in rows[table]}.values())
        async with self.pool.acquire() as connection:
            began = time.perf_counter()
            async with connection.transaction():
                for table in TABLES:
                    await self._copy(connection, table, rows[table])
            return Measured(count, time.perf_counter() - began)

    async def _copy(self, connection: Connection, table: str, rows: list[Record]) -> None:
        await connection.copy_records_to_table(
            table.split(".")[1],
            schema_name=self.schema,
            columns=self.columns[table],
            records=[tuple(row) for row in rows],
        )

    async def _rows(self, count: int) -> dict[str, list[Record]]:
        rows = {
            table: await self.pool.fetch(_WRITTEN[table], self.reached, count) for table in TABLES
        }
        assert {count} == {len(found) for found in rows.values()}, "too few rows to copy"
        self.reached = rows["kernel.events"][-1]["position"]
        return rows

    def _statement(self, table: str) -> str:
        columns = self.columns[table]
        marks = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
        statement = f"insert into {self._name(table)} values ({marks})"
        if table in _KEYS:
            values = ", ".join(f"{column} = excluded.{column}" for column in columns)
            statement += f" on conflict ({_KEYS[table]}) do update set {values}"
        return statement

    def _name(self, table: str) -> str:
        return f"{self.schema}.{table.split('.')[1]}"


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    sizes = world.sizes
    url = await world.postgres.create_database("appends")
    library = Library(await world.postgres.create_database("appends_anchor"))
    await library.timed(library.create_contacts, sizes.contacts)
    async with kernel_of(SERVICE, url) as kernel:
        renaming = Renaming(kernel)
        await renaming.create(sizes.contacts)
        # Enough rows for whoever writes them again, whoever comes first.
        await renaming.rename(sizes.commands_together, CALLERS_TOGETHER)
        inserted, copied = BareRows(kernel.pool, "bare_insert"), BareRows(kernel.pool, "bare_copy")
        await inserted.create()
        await copied.create()
        alone, together = sizes.commands_alone, sizes.commands_together
        saves = sizes.anchor_saves
        yield Bout(
            [
                Contender("rename alone", lambda: renaming.rename(alone, 1)),
                Contender("insert", lambda: inserted.insert(alone)),
                Contender("library alone", lambda: library.timed(library.rename, saves)),
                Contender("rename together", lambda: renaming.rename(together, CALLERS_TOGETHER)),
                Contender("copy", lambda: copied.copy(together)),
                Contender(
                    "library threads",
                    lambda: library.timed(library.rename_in_threads, saves, ANCHOR_THREADS),
                ),
                Contender(
                    "library bulk",
                    lambda: library.timed(
                        library.rename_in_bulk, sizes.anchor_bulk, ANCHOR_BULK_SIZE
                    ),
                ),
            ],
            _LINES,
        )
    library.close()


_LINES = (
    Line(
        what="commands/s, 1 caller",
        ours="rename alone",
        bare="insert",
        anchor="library alone",
        note="bare: the same 4 rows inserted, 1 transaction each; anchor: 1 event, no request id",
    ),
    Line(
        what=f"commands/s, {CALLERS_TOGETHER} callers",
        ours="rename together",
        bare="copy",
        anchor="library threads",
        note=f"bare: COPY of the same rows in one go; anchor: {ANCHOR_THREADS} threads",
    ),
    Line(
        what=f"commands/s, {CALLERS_TOGETHER} callers",
        ours="rename together",
        bare="insert",
        anchor="library bulk",
        note=f"anchor: {ANCHOR_BULK_SIZE} loaded aggregates per save, loading not counted",
    ),
    Line(
        what=f"{CALLERS_TOGETHER} callers beside 1",
        ours="rename together",
        bare="rename alone",
        anchor=None,
        note="what group commit gains: here 'bare' is our own single caller",
    ),
)

SECTION = Section("appends", "Append: a command from request to durable answer", _open)
