"""The bare resource: the same bytes into the same tables and streams, with nothing of ours around.

Rows that our side wrote are read back and written again into tables of the same layout with the
same keys and indexes, in a schema per contender, so its tables grow as ours do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import nats
from asyncpg import Connection, Pool, Record
from nats.js import api

from services.kernel.log.log import READ_BATCH_SIZE, read_heads, read_partition
from tests.bench.rounds import Measured

_COLUMNS = """
select column_name from information_schema.columns
where table_schema = $1 and table_name = $2 order by ordinal_position
"""

_NEXT_EVENTS = """
select * from kernel.events where partition = 0 and position > $1 order by position limit $2
"""

PUBLISH_CHUNK = 1_000
PULL_SIZE = 1_000
NATS_TIMEOUT_S = 10.0


@dataclass
class CopiedLog:
    """COPY of a log's rows into a table like the log's, in batches of one transaction each."""

    pool: Pool
    schema: str
    batch_size: int
    reached: int = 0

    async def create(self) -> None:
        """Makes the table."""
        await self.pool.execute(f"create schema {self.schema}")
        await like(self.pool, self.schema, "kernel.events")

    async def copy(self, count: int) -> Measured:
        """Copies the next rows of the log; after its end it begins anew, in an emptied table."""
        rows = await self._rows(count)
        columns = tuple(rows[0].keys())
        values = [tuple(row) for row in rows]
        async with self.pool.acquire() as connection:
            began = time.perf_counter()
            for start in range(0, len(values), self.batch_size):
                async with connection.transaction():
                    await connection.copy_records_to_table(
                        "events",
                        schema_name=self.schema,
                        columns=columns,
                        records=values[start : start + self.batch_size],
                    )
            return Measured(len(values), time.perf_counter() - began)

    async def _rows(self, count: int) -> list[Record]:
        if self.reached + count > (await read_heads(self.pool))[0]:
            await self.pool.execute(f"truncate {self.schema}.events")
            self.reached = 0
        rows = await self.pool.fetch(_NEXT_EVENTS, self.reached, count)
        self.reached += len(rows)
        return rows


@dataclass
class CopiedTables:
    """COPY of all rows of a schema's tables into tables of the same layout, and nothing else."""

    pool: Pool
    target: str
    tables: Sequence[str]
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)

    async def load(self, source: str) -> None:
        """Takes the rows along."""
        for table in self.tables:
            self.columns[table] = await columns_of(self.pool, source, table)
            found = await self.pool.fetch(f'select * from "{source}"."{table}"')
            self.rows[table] = [tuple(row) for row in found]

    async def copy(self, count: int) -> Measured:
        """Writes them in one transaction; `count` is what they stand for."""
        tables = ", ".join(f'"{self.target}"."{table}"' for table in self.tables)
        await self.pool.execute(f"truncate {tables}")
        async with self.pool.acquire() as connection:
            began = time.perf_counter()
            async with connection.transaction():
                for table in self.tables:
                    await connection.copy_records_to_table(
                        table,
                        schema_name=self.target,
                        columns=self.columns[table],
                        records=self.rows[table],
                    )
            return Measured(count, time.perf_counter() - began)


async def like(pool: Pool | Connection, schema: str, table: str) -> None:
    """Makes `schema`.table with the columns, keys and indexes of another table."""
    name = table.rpartition(".")[2]
    await pool.execute(f"create table {schema}.{name} (like {table} including all)")


async def columns_of(pool: Pool, schema: str, table: str) -> tuple[str, ...]:
    """The columns of a table in their order."""
    return tuple(row[0] for row in await pool.fetch(_COLUMNS, schema, table))


async def read_log(pool: Pool, until: int) -> Measured:
    """Reads a log in order, decoded to envelopes and dropped."""
    after = 0
    began = time.perf_counter()
    while after < until:
        batch = await read_partition(pool, 0, after=after, limit=READ_BATCH_SIZE)
        after = batch[-1].position
    return Measured(until, time.perf_counter() - began)


async def select_log(pool: Pool, until: int) -> Measured:
    """Reads a log in order as rows, which is the least that reading it can be."""
    after = 0
    began = time.perf_counter()
    while after < until:
        rows = await pool.fetch(_NEXT_EVENTS, after, READ_BATCH_SIZE)
        after = rows[-1]["position"]
    return Measured(until, time.perf_counter() - began)


async def publish(url: str, messages: Sequence[tuple[str, bytes]], stream: str) -> Measured:
    """Publishes to an empty stream without a header, a thousand per acknowledgement awaited."""
    client = await nats.connect(url)
    try:
        await fresh_stream(client, stream)
        began = time.perf_counter()
        for start in range(0, len(messages), PUBLISH_CHUNK):
            *chunk, (last_subject, last) = messages[start : start + PUBLISH_CHUNK]
            for subject, data in chunk:
                await client.publish(subject, data)
            await client.request(last_subject, last, timeout=NATS_TIMEOUT_S)
        return Measured(len(messages), time.perf_counter() - began)
    finally:
        await client.close()


async def fresh_stream(client: nats.NATS, stream: str) -> None:
    """An empty stream on disk that takes `bare.>`."""
    context = client.jetstream(timeout=NATS_TIMEOUT_S)
    with suppress(nats.js.errors.NotFoundError):
        await context.delete_stream(stream)
    await context.add_stream(name=stream, subjects=["bare.>"], storage=api.StorageType.FILE)


async def read_stream(url: str, stream: str, count: int) -> Measured:
    """Reads a stream with nats-py's pull consumer: fetch after fetch, bytes only."""
    client = await nats.connect(url)
    try:
        context = client.jetstream(timeout=NATS_TIMEOUT_S)
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.NONE)
        pulled = await context.pull_subscribe("", stream=stream, config=config)
        found = 0
        began = time.perf_counter()
        while found < count:
            size = min(PULL_SIZE, count - found)
            found += len(await pulled.fetch(size, timeout=NATS_TIMEOUT_S))
        return Measured(count, time.perf_counter() - began)
    finally:
        await client.close()
