"""Files are read row by row; what is wrong with one is told in its place."""

import io

import pytest

from rapport.events.v1.import_job_pb2 import ImportEncoding, ImportFormat
from services.events import import_files
from services.events.import_files import RowError, UnreadableFileError, open_file, sample
from tests.imports_world import CSV, JSONL, PARQUET, csv_file, packed, parquet_file


def read(file, file_type=CSV, **options):
    opened = open_file(io.BytesIO(file), len(file), ImportFormat(type=file_type, **options))
    return list(opened.rows)


def reasons(rows):
    return [row.reason if isinstance(row, RowError) else row for row in rows]


def unreadable(file, file_type=CSV):
    with pytest.raises(UnreadableFileError) as problem:
        read(file, file_type)
    return problem.value.reason


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_lines_end_in_any_way_and_a_byte_order_mark_is_no_character(begin, newline):
    file = newline.join([f"{begin}a,b", '1,"x, y"', "", '"two\nlines",2', ""]).encode()

    assert [{"a": "1", "b": "x, y"}, {"a": "two\nlines", "b": "2"}] == read(file)


def test_delimiter_quote_and_encoding_are_as_said():
    file = "a;b\n'x;''y';ü\n".encode("cp1252")
    windows = ImportEncoding.IMPORT_ENCODING_WINDOWS_1252

    assert [{"a": "x;'y", "b": "ü"}] == read(file, delimiter=";", quote="'", encoding=windows)


def test_columns_without_a_name_get_one():
    assert [{"a": "1", "column_2": "2"}] == read(b"a,\n1,2\n")


def test_a_wrong_row_is_told_in_its_place():
    file = b'a,b\n1,2\n1\n\xff,2\n"1"x,2\n3,4\n"never,closed\n'

    assert [
        {"a": "1", "b": "2"},
        "COLUMNS_MISMATCH",
        "ENCODING_INVALID",
        "ROW_INVALID",
        {"a": "3", "b": "4"},
        "ROW_INVALID",
    ] == reasons(read(file))


@pytest.mark.parametrize(("length", "expected"), [(20, [{"a": "x" * 18}]), (21, ["ROW_TOO_LONG"])])
def test_a_row_is_as_long_as_the_limit_says(monkeypatch, length, expected):
    monkeypatch.setattr(import_files, "ROW_CHARACTERS_MAX", 20)
    line = b'{"a":"' + b"x" * (length - 9) + b'"}\n'

    rows = reasons(read(line + b'{"a":1}\n', JSONL))
    assert {"a": 1} == rows[-1]
    assert ("ROW_TOO_LONG" in rows) == ("ROW_TOO_LONG" in expected)
    text = b"a\n" + b"x" * (length - 1) + b"\ny\n"
    assert {"a": "y"} == reasons(read(text))[-1]
    assert ("ROW_TOO_LONG" in reasons(read(text))) == ("ROW_TOO_LONG" in expected)


def test_a_row_of_many_lines_is_bounded_too(monkeypatch):
    monkeypatch.setattr(import_files, "ROW_CHARACTERS_MAX", 20)

    rows = reasons(read(b'a\n"' + b"x\n" * 30 + b'"\n'))

    assert "ROW_TOO_LONG" in rows
    assert all(isinstance(row, str | dict) for row in rows)


def test_lines_that_are_no_json_objects_are_told():
    file = b'\xef\xbb\xbf{"a":1}\n\n[1]\n{"a":NaN}\n{"a":2}'

    assert [{"a": 1}, "ROW_INVALID", "ROW_INVALID", {"a": 2}] == reasons(read(file, JSONL))


@pytest.mark.parametrize(
    ("file", "file_type", "reason"),
    [
        (b"", CSV, "HEADER_MISSING"),
        (b"a,a\n", CSV, "HEADER_INVALID"),
        (b"\xff\n1\n", CSV, "HEADER_INVALID"),
        (b"\x1f\x8bnot gzip", CSV, "FILE_CORRUPT"),
        (packed(csv_file([["a"], *([str(n)] for n in range(5_000))]))[:-9], CSV, "FILE_CORRUPT"),
        (b"", PARQUET, "FILE_CORRUPT"),
        (b"PAR1" + b"x" * 100 + b"PAR1", PARQUET, "FILE_CORRUPT"),
        (parquet_file([["a"], [1]])[:-12], PARQUET, "FILE_CORRUPT"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(file, file_type, reason):
    assert reason == unreadable(file, file_type)


def test_bytes_amiss_within_parquet_are_told_not_recorded():
    file = bytearray(parquet_file([["a"], *([f"value {n}"] for n in range(1_000))]))
    file[30:60] = b"\xff" * 30

    assert "FILE_CORRUPT" == unreadable(bytes(file), PARQUET)


@pytest.mark.parametrize(("limit", "is_read"), [(22, True), (21, False)])
def test_a_file_unpacks_to_as_much_as_the_limit_says(monkeypatch, limit, is_read):
    monkeypatch.setattr(import_files, "UNPACKED_BYTES_MAX", limit)
    file = packed(b"a\n" + b"0123456789" * 2)

    if is_read:
        assert 1 == len(read(file))
    else:
        assert "FILE_TOO_LARGE" == unreadable(file)


def test_a_row_group_is_as_large_as_the_limit_says(monkeypatch):
    file = parquet_file([["a"], *([n] for n in range(1_000))], compression="none")
    assert 1_000 == len(read(file, PARQUET))

    monkeypatch.setattr(import_files, "ROW_GROUP_BYTES_MAX", 1_000)
    assert "FILE_TOO_LARGE" == unreadable(file, PARQUET)


@pytest.mark.parametrize(("columns", "is_read"), [(3, True), (4, False)])
def test_a_file_has_as_many_columns_as_the_limit_says(monkeypatch, columns, is_read):
    monkeypatch.setattr(import_files, "COLUMNS_MAX", 3)
    file = ",".join("abcd"[:columns]).encode()

    if is_read:
        assert [] == read(file)
    else:
        assert "COLUMNS_TOO_MANY" == unreadable(file)


def test_the_columns_of_parquet_are_told_by_its_end():
    file = parquet_file([["a", "b"], *([n, "x"] for n in range(10_000))])

    columns, rows = sample(file[:100], file[-2_000:], ImportFormat(type=PARQUET), 10)

    assert (["a", "b"], []) == (columns, rows)
