"""For any rows and filter, PostgreSQL returns exactly the rows that match in memory.

The example of a failure is minimal: hypothesis shrinks both the rows and the filter.
"""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from services.kernel.lists.filter import Arguments, Field, Fields, InvalidFilter, Kind
from services.kernel.lists.filter_tree import And, Literal, Not, Operator, Or, Restriction, Search

CREATE_TABLE = """
create table things (
  id int primary key, name text, note text collate "C", amount bigint, score double precision,
  vip boolean, create_time timestamptz, wait interval, state int, stage text, labels text[],
  tags jsonb, custom_fields jsonb
)
"""
EMPTY_TABLE = "truncate things"
INSERT_ROW = """
insert into things values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb,
  $13::text::jsonb)
"""
FIELDS = Fields(
    {
        "name": Field("name", Kind.TEXT),
        "note": Field("note", Kind.TEXT),
        "amount": Field("amount", Kind.INTEGER),
        "score": Field("score", Kind.NUMBER),
        "vip": Field("vip", Kind.BOOLEAN),
        "create_time": Field("create_time", Kind.TIMESTAMP),
        "wait": Field("wait", Kind.DURATION),
        "state": Field("state", Kind.ENUM, values={"OPEN": 1, "WON": 2}),
        "stage": Field("stage", Kind.ENUM, values=["EARLY", "LATE"]),
        "labels": Field("labels", Kind.TEXT_LIST),
        "tags": Field("tags", Kind.TEXT_MAP),
        "custom_fields": Field("custom_fields", Kind.STRUCT),
    },
    searched=("name", "note"),
)

words = st.text("abAä%_\\*' ", max_size=3)
keys = st.sampled_from(["a", "b", "a b", "0"])
numbers = st.sampled_from([-1, 0, 1, 2, 10, 0.5, 1e20, 1.5e-7])
moments = st.sampled_from([datetime(2024, 5, day, 10, tzinfo=UTC) for day in (1, 2, 31)])
waits = st.sampled_from([timedelta(seconds=s) for s in (-1, 0, 1.5, 86_400, 100_000)])
scalars = st.one_of(words, numbers, st.booleans(), st.none(), st.sampled_from(["1", "10", "true"]))
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=2),
    st.dictionaries(keys, st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=2),
)
optional = st.none()
rows = st.fixed_dictionaries(
    {
        "name": optional | words,
        "note": optional | words,
        "amount": optional | st.integers(-2, 2),
        "score": optional | numbers.map(float),
        "vip": optional | st.booleans(),
        "create_time": optional | moments,
        "wait": optional | waits,
        "state": optional | st.sampled_from([0, 1, 2]),
        "stage": optional | st.sampled_from(["EARLY", "LATE"]),
        "labels": optional | st.lists(words, max_size=3),
        "tags": optional | st.dictionaries(keys, words, max_size=2),
        "custom_fields": optional | st.dictionaries(keys, values, max_size=3),
    }
)

patterns = st.lists(words, min_size=1, max_size=3).map(lambda pieces: Literal(tuple(pieces)))
anything = st.just(Literal(("", "")))


def _plain(strategy):
    return strategy.map(lambda value: Literal((str(value),)))


struct_values = st.one_of(
    patterns,
    anything,
    _plain(numbers.map(repr)),
    st.sampled_from(["true", "10", "1e0"]).map(lambda text: Literal((text,))),
)
VALUES = {
    ("name",): patterns | anything,
    ("note",): patterns | anything,
    ("amount",): _plain(st.integers(-2, 2)) | anything,
    ("score",): _plain(numbers) | anything,
    ("vip",): _plain(st.sampled_from(["true", "false"])) | anything,
    ("create_time",): _plain(moments.map(datetime.isoformat)) | anything,
    ("wait",): _plain(waits.map(lambda wait: f"{Decimal(wait.total_seconds())}s")) | anything,
    ("state",): _plain(st.sampled_from(["OPEN", "WON"])) | anything,
    ("stage",): _plain(st.sampled_from(["EARLY", "LATE"])) | anything,
    ("labels",): patterns | anything,
    ("tags",): _plain(keys) | anything,
    ("tags", "a"): patterns | anything,
    ("tags", "a b"): patterns | anything,
    ("custom_fields",): _plain(keys) | anything,
    ("custom_fields", "a"): struct_values,
    ("custom_fields", "0"): struct_values,
    ("custom_fields", "a", "b"): struct_values,
    ("custom_fields", "a", "0"): struct_values,
}


def _is_valid(restriction):
    try:
        FIELDS.condition(restriction)
    except InvalidFilter:
        return False
    return True


restrictions = (
    st.sampled_from(sorted(VALUES))
    .flatmap(
        lambda path: st.builds(Restriction, st.just(path), st.sampled_from(Operator), VALUES[path])
    )
    .filter(_is_valid)
)


def _larger(expressions):
    several = st.lists(expressions, min_size=2, max_size=3).map(tuple)
    return st.one_of(several.map(And), several.map(Or), expressions.map(Not))


expressions = st.recursive(restrictions | st.builds(Search, patterns), _larger, max_leaves=6)


@pytest.fixture
async def connection(database):
    connection = await asyncpg.connect(database)
    await connection.execute(CREATE_TABLE)
    yield connection
    await connection.close()


@given(st.lists(rows, max_size=12), expressions)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
async def test_the_database_returns_exactly_the_rows_that_match_in_memory(
    connection, rows, expression
):
    assume(_is_valid(expression))
    await _store(connection, rows)
    wanted = FIELDS.filter(str(expression))
    expected = [number for number, row in enumerate(rows) if wanted.matches(row)]
    event("some match" if 0 < len(expected) < len(rows) else "all or none")
    assert await _ids(connection, wanted) == expected


async def test_a_record_of_the_driver_matches_as_its_row_does(connection):
    await _store(connection, [{**dict.fromkeys(FIELDS.names()), "custom_fields": {"a": [1]}}])
    (record,) = await connection.fetch("select * from things")
    assert FIELDS.filter("custom_fields.a:1 NOT name:*").matches(record)


async def test_text_is_ordered_by_code_point_whatever_the_collation_of_the_column(connection):
    rows = [{**dict.fromkeys(FIELDS.names()), "name": name} for name in ("a", "B", "ä")]
    await _store(connection, rows)
    assert await _ids(connection, FIELDS.filter("name >= a")) == [0, 2]


async def test_equality_in_a_struct_is_served_by_one_index_on_the_column(connection):
    await connection.execute("create index on things using gin (custom_fields jsonb_path_ops)")
    await connection.execute("set enable_seqscan = off")
    arguments = Arguments()
    condition = FIELDS.filter("custom_fields.a = 42").sql(arguments)
    plan = await connection.fetch(
        f"explain select from things where {condition}", *arguments.values
    )
    assert "Bitmap Index Scan on things_custom_fields_idx" in str(plan)


async def _store(connection, rows):
    await connection.execute(EMPTY_TABLE)
    stored = []
    for number, row in enumerate(rows):
        *plain, tags, custom_fields = (row[name] for name in FIELDS.names())
        stored.append([number, *plain, _json(tags), _json(custom_fields)])
    await connection.executemany(INSERT_ROW, stored)


async def _ids(connection, wanted):
    arguments = Arguments()
    condition = wanted.sql(arguments)
    found = await connection.fetch(
        f"select id from things where {condition} order by id", *arguments.values
    )
    return [record["id"] for record in found]


def _json(value):
    return None if value is None else json.dumps(value)
