"""Any table comes out of any kind of file as it went in, and no bytes whatever do harm."""

import io

from hypothesis import given
from hypothesis import strategies as st

from rapport.events.v1.import_job_pb2 import ImportFormat
from services.events.import_files import RowError, UnreadableFileError, open_file
from services.events.import_mapping import Mapper, violations
from services.events.import_suggestion import suggest
from tests.imports_world import CSV, JSONL, PARQUET, csv_file, jsonl_file, packed, parquet_file

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=5)


@st.composite
def tables(draw, values=TEXTS):
    """A header and rows."""
    header = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    row = st.lists(values, min_size=len(header), max_size=len(header))
    return [header, *draw(st.lists(row, max_size=8))]


def read(file, **file_format):
    opened = open_file(io.BytesIO(file), len(file), ImportFormat(**file_format))
    return list(opened.rows)


def expected(table):
    header, *rows = table
    return [dict(zip(header, row, strict=True)) for row in rows]


@given(tables(), st.sampled_from(",;\t|"), st.sampled_from("\"'"), st.booleans(), st.booleans())
def test_a_table_goes_through_csv(table, delimiter, quote, is_packed, is_quoted):
    options = {"delimiter": delimiter, "quotechar": quote, "quoting": 1 if is_quoted else 0}
    file = csv_file(table, **options)

    rows = read(packed(file) if is_packed else file, type=CSV, delimiter=delimiter, quote=quote)

    assert expected(table) == rows


JSON = st.recursive(
    st.none() | st.booleans() | TEXTS | st.integers(-(2**63), 2**64 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


@given(tables(JSON), st.booleans())
def test_a_table_goes_through_json_lines(table, is_packed):
    file = jsonl_file(table)

    assert expected(table) == read(packed(file) if is_packed else file, type=JSONL)


@given(tables(), st.integers(1, 5))
def test_a_table_goes_through_parquet(table, row_group_size):
    if len(table) > 1:
        file = parquet_file(table, row_group_size=row_group_size)

        assert expected(table) == read(file, type=PARQUET)


@given(st.binary(max_size=300), st.sampled_from([CSV, JSONL, PARQUET]), st.booleans())
def test_whatever_bytes_come_each_row_is_read_or_told_or_the_file_is(file, file_type, is_packed):
    try:
        rows = read(packed(file) if is_packed else file, type=file_type)
    except UnreadableFileError:
        return

    assert all(isinstance(row, dict | RowError) for row in rows)


@given(tables(JSON))
def test_a_suggested_mapping_maps_every_row_or_tells_why_not(table):
    rows = expected(table)
    mapping = suggest(table[0], rows)
    assert not list(violations(mapping))

    mapper = Mapper.of(mapping, "imports/one")
    for number, row in enumerate(rows, start=1):
        made = mapper.mapped(number, row)
        assert isinstance(made, RowError) or made.message_id
