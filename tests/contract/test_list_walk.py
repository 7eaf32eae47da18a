"""A list walk skips no row and gives no version of a row twice, whatever others write meanwhile.

One test shows what goes wrong without the guard: a field that changes, declared immutable.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table

CREATE_TABLES = """
create table things (
  workspace text not null, id text not null, name text, rank bigint, born bigint not null,
  create_position bigint not null, update_position bigint not null, primary key (workspace, id)
);
create index things_by_birth on things (workspace, born, id collate "C");
create index things_by_change on things (workspace, update_position);
create table checkpoint (position bigint not null);
insert into checkpoint values (0);
"""
EMPTY_TABLES = "truncate things; update checkpoint set position = 0"
READ_POSITION = "select position from checkpoint"
ADVANCE = "update checkpoint set position = position + 1 returning position"
INSERT_THING = "insert into things values ($1, $2, $3, $4, $5, $6, $6)"
CHANGE_THING = """
update things set name = $3, rank = $4, update_position = $5 where workspace = $1 and id = $2
"""
DELETE_THING = "delete from things where workspace = $1 and id = $2"
READ_THINGS = "select * from things where workspace = 'w1'"


def _listing(**field_options):
    fields = Fields(
        {
            "name": Field("name", Kind.TEXT, sortable=True, **field_options),
            "rank": Field("rank", Kind.INTEGER, sortable=True, **field_options),
            "born": Field("born", Kind.INTEGER, sortable=True, immutable=True, nullable=False),
        }
    )
    return Listing(
        method="ListThings",
        table=Table("things", key="id", positions=Positions()),
        columns="*",
        fields=fields,
    )


THINGS = _listing()
UNGUARDED = _listing(immutable=True)

ORDERS = ["", "born", "born desc", "name", "name desc", "rank desc, name", "rank, born desc"]
IMMUTABLE_ORDERS = {"", "born", "born desc"}

ids = st.sampled_from("abcdefgh")
names = st.none() | st.sampled_from(["", "a", "B", "ä"])
ranks = st.none() | st.integers(0, 5)


@dataclass(frozen=True)
class Save:
    id: str
    name: str | None
    rank: int | None


@dataclass(frozen=True)
class Delete:
    id: str


saves = st.builds(Save, ids, names, ranks)
writes = st.one_of(saves, saves, saves, ids.map(Delete))


@pytest.fixture
async def connection(database):
    connection = await asyncpg.connect(database)
    await connection.execute(CREATE_TABLES)
    yield connection
    await connection.close()


@given(
    before=st.lists(saves, min_size=3, max_size=8, unique_by=lambda save: save.id),
    between=st.lists(st.lists(writes, min_size=1, max_size=3), min_size=2, max_size=6),
    order_by=st.sampled_from(ORDERS),
    page_size=st.integers(1, 3),
)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
async def test_a_walk_keeps_its_promises_whatever_is_written_between_its_pages(
    connection, before, between, order_by, page_size
):
    await connection.execute(EMPTY_TABLES)
    for write in before:
        await _write(connection, write)
    at_start = await _things(connection)
    steps = iter(between)

    async def interfere():
        for write in next(steps, ()):
            await _write(connection, write)

    given_ = await _walk(connection, THINGS, order_by, page_size, interfere)
    _check(given_, at_start, await _things(connection), order_by)


async def test_a_quiet_walk_is_the_whole_list_in_order_with_null_as_the_largest(connection):
    for number, name in enumerate(["b", None, "a", "B", None, "ä"]):
        await _write(connection, Save(f"t{number}", name, None))
    ascending = await _walk(connection, THINGS, "name", 2)
    assert [row["name"] for row in ascending] == ["B", "a", "b", "ä", None, None]
    descending = await _walk(connection, THINGS, "name desc", 2)
    assert list(reversed(ascending)) == descending


@pytest.mark.parametrize("order_by", ["", "rank", "name desc"])
async def test_a_walk_ends_and_keeps_its_promises_beside_a_writer_that_never_rests(
    connection, database, order_by
):
    for number in range(200):
        await _write(connection, Save(f"t{number}", str(number % 7), number))
    at_start = await _things(connection)
    walked = asyncio.Event()
    writer = asyncio.create_task(_write_until(walked, await asyncpg.connect(database)))
    given_ = await _walk(connection, THINGS, order_by, 7)
    walked.set()
    assert await writer > 0
    _check(given_, at_start, await _things(connection), order_by)


async def test_a_filter_holds_on_every_page_and_another_workspace_is_never_seen(connection):
    for number in range(9):
        await _write(connection, Save(f"t{number}", "a" if number % 2 else "b", number))
    await connection.execute("update things set workspace = 'w2' where id = 't1'")
    given_ = await _walk(connection, THINGS, "rank desc", 2, filter="name = a")
    assert [row["id"] for row in given_] == ["t7", "t5", "t3"]


async def test_a_log_of_several_partitions_is_bounded_in_each(connection):
    await connection.execute("alter table things add column part int not null default 0")
    for number in range(4):
        await _write(connection, Save(f"t{number}", None, number))
    await connection.execute("update things set part = 1, create_position = 9 where id = 't0'")
    listing = Listing(
        method="ListThings",
        table=Table("things", key="id", positions=Positions(partition="part")),
        columns="id",
        fields=Fields({}),
    )
    for second, expected in ((8, ["t1", "t2"]), (9, ["t0", "t1", "t2"])):
        query = listing.query(workspace="w1", positions=(3, second))
        assert [row["id"] for row in await connection.fetch(query.sql, *query.args)] == expected


@pytest.mark.parametrize("order_by", ["born", "born desc"])
async def test_a_later_page_is_read_from_its_place_in_the_index(connection, order_by):
    for number in range(3):
        await _write(connection, Save(f"t{number}", None, number))
    ask = {"workspace": "w1", "positions": (3,), "order_by": order_by, "page_size": 1}
    query = THINGS.query(**ask)
    token = query.next_token(await connection.fetch(query.sql, *query.args))
    plan = await _plan(connection, THINGS.query(**ask, page_token=token))
    assert "things_by_birth" in plan
    assert "(ROW(born" in plan.split("Index Cond", 1)[1]


async def test_the_rows_that_moved_are_read_by_their_index(connection):
    plan = await _plan(connection, THINGS.query(workspace="w1", positions=(3,), order_by="rank"))
    assert "things_by_change" in plan


async def test_without_the_guard_a_row_that_moves_is_skipped(connection):
    for number in range(4):
        await _write(connection, Save(f"t{number}", None, number + 1))
    moves = iter([Save("t3", None, 0)])

    async def interfere():
        for write in moves:
            await _write(connection, write)

    unguarded = await _walk(connection, UNGUARDED, "rank", 2, interfere)
    assert [row["id"] for row in unguarded] == ["t0", "t1", "t2"]


async def test_a_row_that_was_given_and_then_changed_comes_again_at_the_end_as_it_is_now(
    connection,
):
    for number in range(4):
        await _write(connection, Save(f"t{number}", None, number + 1))
    moves = iter([Save("t0", None, 9)])

    async def interfere():
        for write in moves:
            await _write(connection, write)

    guarded = await _walk(connection, THINGS, "rank", 1, interfere)
    assert [(row["id"], row["rank"]) for row in guarded] == [
        *(("t0", 1), ("t1", 2), ("t2", 3), ("t3", 4)),
        ("t0", 9),
    ]


def _check(given_, at_start, at_end, order_by):
    """Holds what a walk gave against the promises in the docstring of kernel/paging.py."""
    times = Counter(row["id"] for row in given_)
    versions = Counter((row["id"], row["update_position"]) for row in given_)
    assert set(versions.values()) <= {1}, "a version came twice"
    began = {id_: row["create_position"] for id_, row in at_start.items()}
    assert all(began.get(row["id"]) == row["create_position"] for row in given_), "a new row came"
    for id_, row in at_start.items():
        now = at_end.get(id_)
        if now is not None and now["create_position"] == row["create_position"]:
            assert times[id_] >= 1, "a row was skipped"
            if now == row or order_by in IMMUTABLE_ORDERS:
                assert times[id_] == 1, "a row that stood still was repeated"
    still = [row["id"] for row in given_ if at_end.get(row["id"]) == at_start[row["id"]]]
    assert still == [id_ for id_ in _sorted(at_start, order_by) if id_ in set(still)]


def _sorted(things, order_by):
    """The ids in order, told without SQL: stable sorts from the last key to the first."""
    terms = [term.split() for term in order_by.split(",") if term.strip()]
    is_reversed = bool(terms) and terms[-1][1:] == ["desc"]
    found = sorted(things, reverse=is_reversed)
    for column, *direction in reversed(terms):
        found.sort(
            key=lambda id_, column=column: (
                things[id_][column] is None,
                things[id_][column] if things[id_][column] is not None else 0,
            ),
            reverse=direction == ["desc"],
        )
    return found


async def _walk(connection, listing, order_by, page_size, interfere=None, **ask):
    """All rows from the first page to the empty token; calls `interfere` after each page."""
    position = await connection.fetchval(READ_POSITION)
    rows, token = [], ""
    while True:
        query = listing.query(
            workspace="w1",
            positions=(position,),
            order_by=order_by,
            page_size=page_size,
            page_token=token,
            **ask,
        )
        page = query.page(await connection.fetch(query.sql, *query.args))
        assert len(page.rows) <= page_size
        rows += page.rows
        token = page.next_page_token
        if not token:
            return rows
        if interfere is not None:
            await interfere()


async def _write(connection, write):
    """One event and its effect on the view, in one transaction as projections do it."""
    async with connection.transaction():
        position = await connection.fetchval(ADVANCE)
        if isinstance(write, Delete):
            await connection.execute(DELETE_THING, "w1", write.id)
            return
        changed = await connection.execute(
            CHANGE_THING, "w1", write.id, write.name, write.rank, position
        )
        if changed == "UPDATE 0":
            born = position // 2
            await connection.execute(
                INSERT_THING, "w1", write.id, write.name, write.rank, born, position
            )


async def _write_until(walked, connection):
    dice = random.Random(5)
    written = 0
    while not walked.is_set():
        id_ = f"t{dice.randrange(260)}"
        is_delete = dice.random() < 0.05
        await _write(
            connection,
            Delete(id_) if is_delete else Save(id_, str(dice.randrange(7)), dice.randrange(200)),
        )
        written += 1
    await connection.close()
    return written


async def _things(connection):
    return {row["id"]: dict(row) for row in await connection.fetch(READ_THINGS)}


async def _plan(connection, query):
    """The plan of a query for a table too small for PostgreSQL to want an index by itself."""
    await connection.execute("set enable_seqscan = off; set enable_sort = off")
    rows = await connection.fetch(f"explain {query.sql}", *query.args)
    return "\n".join(row[0] for row in rows)
