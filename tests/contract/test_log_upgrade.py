"""A database that was made by an earlier release gets what it lacks, and keeps its log."""

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from services.kernel.clock import SystemClock, new_ids
from services.kernel.log.log import Append, Log, NewEvent, Origin, read_partition
from services.kernel.log.tables import create_kernel_tables

ORIGIN = Origin("acme", "tests", "correlation", "causation")
FACT = NewEvent(StringValue(value="a"))

COLUMNS_AND_INDEXES = """
select attrelid::regclass::text as owner, attname::text as name, atttypid::regtype::text as type
from pg_attribute where attrelid in ('kernel.events'::regclass, 'kernel.heads'::regclass,
    'kernel.requests'::regclass) and attnum > 0 and not attisdropped
union all
select tablename, indexname, indexdef from pg_indexes where schemaname = 'kernel'
order by 1, 2
"""

EARLIER = {
    "of no erasure": (
        "kernel.events drop column erasure",
        "kernel.heads drop column sealed_time",
        "kernel.requests drop column unchanged",
    ),
    "of erasures, and nothing on its way": ("kernel.heads drop column sealed_time",),
    "of erasures, and no unchanged streams": ("kernel.requests drop column unchanged",),
}


@pytest.mark.parametrize("lacking", EARLIER.values(), ids=EARLIER)
async def test_what_is_missing_is_added_each_by_itself(database, lacking):
    log = Log(service="boxes", partitions=1, clock=SystemClock(), new_ids=new_ids)
    connection = await asyncpg.connect(database)
    try:
        await create_kernel_tables(connection, 1)
        made = await connection.fetch(COLUMNS_AND_INDEXES)
        for column in lacking:
            await connection.execute(f"alter table {column}")
        await create_kernel_tables(connection, 1)
        async with connection.transaction():
            await log.append(connection, [Append(ORIGIN, "box-1", [FACT])])
        repaired = await connection.fetch(COLUMNS_AND_INDEXES)
        [event] = await read_partition(connection, 0, after=0, limit=9)
    finally:
        await connection.close()

    assert made == repaired
    assert ("box-1", "") == (event.stream, event.erasure)
