"""The file of an import without some of its rows."""

import io

import pytest

from rapport.events.v1.import_job_pb2 import ImportEncoding, ImportFormat
from services.events.import_files import RowError, open_file
from services.events.import_rewriting import count_taken, rewrite
from tests.imports_world import CSV, JSONL, PARQUET, csv_file, jsonl_file, packed, parquet_file

ROWS = [("who", "score"), ("ada", "1,5"), ("eve", "2"), ("ada", ""), ("é\n", "4")]


def takes_ada(_, row):
    return row["who"] == "ada"


def rewritten(file, file_format, takes=takes_ada):
    """How many rows are taken out, the file without them, and its rows."""
    source, out = io.BytesIO(file), io.BytesIO()
    taken = count_taken(source, len(file), file_format, takes)
    rewrite(source, len(file), file_format, takes, out)
    rows = list(open_file(io.BytesIO(out.getvalue()), 0, file_format).rows)
    return taken, out.getvalue(), rows


@pytest.mark.parametrize(
    ("file", "file_format"),
    [
        (csv_file(ROWS), ImportFormat(type=CSV)),
        (csv_file(ROWS, delimiter=";"), ImportFormat(type=CSV, delimiter=";")),
        (packed(csv_file(ROWS)), ImportFormat(type=CSV)),
        (jsonl_file(ROWS), ImportFormat(type=JSONL)),
        (packed(jsonl_file(ROWS)), ImportFormat(type=JSONL)),
    ],
)
def test_rows_are_taken_out_and_the_others_keep_number_and_value(file, file_format):
    taken, left, rows = rewritten(file, file_format)
    again, same, _ = rewritten(left, file_format)

    assert 2 == taken
    assert [RowError, dict, RowError, dict] == [type(row) for row in rows]
    assert [("eve", "2"), ("é\n", "4")] == [(rows[n]["who"], rows[n]["score"]) for n in (1, 3)]
    assert b"ada" not in left
    assert (0, left) == (again, same)


def test_of_parquet_a_row_without_values_is_left():
    _, left, rows = rewritten(parquet_file(ROWS), ImportFormat(type=PARQUET))

    assert ["", "eve", "", "é\n"] == [row["who"] or "" for row in rows]
    assert b"ada" not in left


def test_of_one_column_it_is_still_a_row_that_cannot_be_read():
    _, _, rows = rewritten(csv_file([("who",), ("ada",), ("eve",)]), ImportFormat(type=CSV))

    assert [RowError, dict] == [type(row) for row in rows]


def test_what_could_not_be_read_goes_along():
    """Nobody knows whom it names."""
    csv = csv_file([("who", "score"), ("ada",), ("eve", "2")])
    windows = ImportFormat(type=CSV, encoding=ImportEncoding.IMPORT_ENCODING_WINDOWS_1252)
    taken, left, rows = rewritten(csv, windows, takes=lambda *_: False)

    assert (1, "eve") == (taken, rows[1]["who"])
    assert b"ada" not in left
    taken, left, _ = rewritten(b'{"who": "ada"\n{"who": "eve"}\n', ImportFormat(type=JSONL))
    assert (1, True) == (taken, b"ada" not in left)
