"""The rows of an uploaded file, one at a time: CSV, JSON lines or Parquet. Pure.

A row that cannot be read is a `RowError` in its place and the next one is read; a file that
cannot be read on is an `UnreadableFileError`. However a file is made, what is in memory at once is
bounded.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from rapport.events.v1.import_job_pb2 import ImportEncoding, ImportFileType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rapport.events.v1.import_job_pb2 import ImportFormat

# Unpacked, a file may be this long: a small one can be made that unpacks to any length.
UNPACKED_BYTES_MAX = 4 * 1024 * 1024 * 1024
# Parquet is unpacked a part at a time, of a length that the file decides.
ROW_GROUP_BYTES_MAX = 256 * 1024 * 1024
ROW_CHARACTERS_MAX = 1024 * 1024
COLUMNS_MAX = 2_000
EXCERPT_CHARACTERS_MAX = 100

GZIP = b"\x1f\x8b"
_PARQUET_MAGIC = b"PAR1"
_BOM = b"\xef\xbb\xbf"
ENCODINGS = {
    ImportEncoding.IMPORT_ENCODING_UNSPECIFIED: "utf-8-sig",
    ImportEncoding.IMPORT_ENCODING_UTF_8: "utf-8-sig",
    ImportEncoding.IMPORT_ENCODING_WINDOWS_1252: "cp1252",
}
_PARQUET_ROWS_AT_ONCE = 500

_CSV = ImportFileType.IMPORT_FILE_TYPE_CSV
_PARQUET = ImportFileType.IMPORT_FILE_TYPE_PARQUET


class UnreadableFileError(Exception):
    """When a file cannot be read on: why, for programs and for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class RowError:
    """What is wrong with a row: why, for programs and for people, and where."""

    reason: str
    detail: str
    column: str = ""
    excerpt: str = ""


Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is being read.

    `columns` are empty when each row brings its own; `read_bytes` tells how much of the file was
    read so far.
    """

    columns: Sequence[str]
    rows: Iterator[Row | RowError]
    read_bytes: Callable[[], int]


def open_file(file: BinaryIO, size_bytes: int, file_format: ImportFormat) -> OpenFile:
    """Begins to read a file; raises UnreadableFileError, as reading on may do."""
    if file_format.type == _PARQUET:
        return _open_parquet(file, size_bytes)
    unpacked = unpacked_of(file)
    if file_format.type == _CSV:
        return _open_csv(unpacked, file_format, file.tell)
    rows = (row for _, row in json_lines(unpacked))
    return OpenFile((), _guarded(rows), file.tell)


def sample(
    head: bytes, tail: bytes, file_format: ImportFormat, rows_max: int
) -> tuple[list[str], list[Row]]:
    """The columns and the first rows, as far as the first and the last bytes of a file tell them.

    `tail` is empty when `head` is the whole file. Raises UnreadableFileError.
    """
    if file_format.type == _PARQUET and tail:
        # Its end tells the columns, wherever the rows are.
        opened = open_file(io.BytesIO(_PARQUET_MAGIC + tail), 0, file_format)
        return list(opened.columns), []
    opened = open_file(io.BytesIO(head), len(head), file_format)
    found: list[Row] = []
    try:
        found = [row for row in islice(opened.rows, rows_max) if not isinstance(row, RowError)]
    except UnreadableFileError:
        if not tail:
            raise
    columns = opened.columns or list(dict.fromkeys(column for row in found for column in row))
    return list(columns), found


def excerpt_of(value: object) -> str:
    """The beginning of a value, to be shown beside what is wrong with it."""
    if isinstance(value, bytes):
        value = value[:EXCERPT_CHARACTERS_MAX].decode("utf-8", "replace")
    text = str(value)[: EXCERPT_CHARACTERS_MAX + 1]
    text = text.encode("utf-8", "replace").decode().replace("\0", "�")
    if len(text) > EXCERPT_CHARACTERS_MAX:
        return f"{text[: EXCERPT_CHARACTERS_MAX - 1]}…"
    return text


class _Unpacked(io.RawIOBase):
    """A file as it was before it was packed, up to a limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(len(buffer))
        self._read_bytes += len(chunk)
        if self._read_bytes > UNPACKED_BYTES_MAX:
            detail = f"unpacked, the file is longer than {UNPACKED_BYTES_MAX} bytes"
            raise UnreadableFileError("FILE_TOO_LARGE", detail)
        buffer[: len(chunk)] = chunk
        return len(chunk)


def unpacked_of(file: BinaryIO) -> io.BufferedReader:
    """A file from its beginning, as it was before it was packed."""
    start = file.read(len(GZIP))
    file.seek(0)
    # Typed as another kind of file, which it is in all that matters here.
    packed: Any = gzip.GzipFile(fileobj=file) if start == GZIP else file
    return io.BufferedReader(_Unpacked(packed), buffer_size=256 * 1024)


def _guarded(rows: Iterator[Row | RowError]) -> Iterator[Row | RowError]:
    """The same rows; what the unpacking raises says that the file cannot be read on."""
    try:
        yield from rows
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError("FILE_CORRUPT", f"the file cannot be unpacked: {error}") from None


def _open_csv(
    unpacked: io.BufferedReader, file_format: ImportFormat, read_bytes: Callable[[], int]
) -> OpenFile:
    text = io.TextIOWrapper(
        unpacked, encoding=ENCODINGS[file_format.encoding], errors="surrogateescape", newline=""
    )
    table = _Table(_Lines(text), file_format)
    rows = _guarded(table.rows())
    header = next(rows, None)
    if header is None:
        raise UnreadableFileError("HEADER_MISSING", "the file is empty: it has no header")
    if isinstance(header, RowError):
        raise UnreadableFileError("HEADER_INVALID", f"the header: {header.detail}")
    _check_columns(table.columns)
    return OpenFile(table.columns, rows, read_bytes)


class _TooLongError(Exception):
    """When a row goes on and on."""


class _Lines:
    """The lines of a text, none too long, nor too many before `begin_row` is called again."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._left = ROW_CHARACTERS_MAX

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        if not line:
            raise StopIteration
        if len(line) > self._left:
            while line and line[-1] not in "\r\n":
                line = self._text.readline(ROW_CHARACTERS_MAX)
            raise _TooLongError
        self._left -= len(line)
        return line

    def begin_row(self) -> None:
        """The next line is the first of a row."""
        self._left = ROW_CHARACTERS_MAX


class _Table:
    """Separated values; the first row of `rows` only says that the header was read."""

    def __init__(self, lines: _Lines, file_format: ImportFormat) -> None:
        self.columns: tuple[str, ...] = ()
        self._lines = lines
        self._reader = csv.reader(
            lines,
            delimiter=file_format.delimiter or ",",
            quotechar=file_format.quote or '"',
            strict=True,
        )

    def rows(self) -> Iterator[Row | RowError]:
        """The header as an empty row, then the rows."""
        while True:
            self._lines.begin_row()
            try:
                values = next(self._reader)
            except StopIteration:
                return
            except _TooLongError:
                yield _too_long()
                continue
            except csv.Error as error:
                yield RowError("ROW_INVALID", f"the row cannot be read: {error}")
                continue
            if not values:
                continue
            yield self._row(values)

    def _row(self, values: list[str]) -> Row | RowError:
        for place, value in enumerate(values):
            if not value.isascii() and _is_undecodable(value):
                column = self.columns[place] if place < len(self.columns) else ""
                detail = "the bytes are no characters in the encoding of the file"
                return RowError("ENCODING_INVALID", detail, column, excerpt_of(value))
        if not self.columns:
            named = enumerate(values, start=1)
            self.columns = tuple(value.strip() or f"column_{place}" for place, value in named)
            return {}
        if len(values) != len(self.columns):
            detail = f"the row has {len(values)} values, the header has {len(self.columns)}"
            return RowError("COLUMNS_MISMATCH", detail, excerpt=excerpt_of(values[0]))
        return dict(zip(self.columns, values, strict=True))


def _is_undecodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _too_long() -> RowError:
    return RowError("ROW_TOO_LONG", f"the row is longer than {ROW_CHARACTERS_MAX} characters")


def json_lines(lines: io.BufferedReader) -> Iterator[tuple[bytes, Row | RowError]]:
    """The lines that are rows, as they stand and read; of one that is too long only the end."""
    is_first = True
    while line := lines.readline(ROW_CHARACTERS_MAX + 1):
        if len(line) > ROW_CHARACTERS_MAX:
            while line and not line.endswith(b"\n"):
                line = lines.readline(ROW_CHARACTERS_MAX)
            yield line, _too_long()
            continue
        text = line.removeprefix(_BOM) if is_first else line
        is_first = False
        if text.strip():
            yield text, _json_row(text)


def _json_row(text: bytes) -> Row | RowError:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return RowError("ROW_INVALID", f"the line is not JSON: {error}", excerpt=excerpt_of(text))
    if not isinstance(row, dict):
        return RowError("ROW_INVALID", "the line is no JSON object", excerpt=excerpt_of(text))
    return row


def _open_parquet(file: BinaryIO, size_bytes: int) -> OpenFile:
    import pyarrow as pa  # noqa: PLC0415, who imports no Parquet need not load it
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_parquet(error) from None
    columns = tuple(parquet.schema_arrow.names)
    _check_columns(columns)
    metadata = parquet.metadata
    groups = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
    if max(groups, default=0) > ROW_GROUP_BYTES_MAX or sum(groups) > UNPACKED_BYTES_MAX:
        detail = (
            f"unpacked, a row group has more than {ROW_GROUP_BYTES_MAX} bytes, "
            f"or the file more than {UNPACKED_BYTES_MAX}"
        )
        raise UnreadableFileError("FILE_TOO_LARGE", detail)
    read = 0

    def rows() -> Iterator[Row | RowError]:
        nonlocal read
        try:
            batches = parquet.iter_batches(batch_size=_PARQUET_ROWS_AT_ONCE, use_threads=False)
            for batch in batches:
                read += batch.num_rows
                yield from _parquet_rows(batch)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _no_parquet(error) from None

    return OpenFile(columns, rows(), lambda: size_bytes * read // max(metadata.num_rows, 1))


def _parquet_rows(batch: Any) -> Iterator[Row | RowError]:
    """The rows of a batch; where one cannot be read, each by itself."""
    batch = in_microseconds(batch)
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for place in range(batch.num_rows):
            yield _parquet_row(batch.slice(place, 1))


def _parquet_row(batch: Any) -> Row | RowError:
    row: Row = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = values[0].as_py()
        except (ValueError, OverflowError) as error:
            return RowError("VALUE_INVALID", f"the value cannot be read: {error}", name)
    return row


def in_microseconds(batch: Any) -> Any:
    """The batch with times as Python has them, which knows no nanoseconds."""
    import pyarrow as pa  # noqa: PLC0415

    fields = [
        pa.field(field.name, pa.timestamp("us", field.type.tz))
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns"
        else field
        for field in batch.schema
    ]
    return batch.cast(pa.schema(fields), safe=False)


def _check_columns(columns: Sequence[str]) -> None:
    if len(columns) > COLUMNS_MAX:
        detail = f"the file has {len(columns)} columns; at most {COLUMNS_MAX} are read"
        raise UnreadableFileError("COLUMNS_TOO_MANY", detail)
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        detail = f"several columns are called {excerpt_of(twice[0])!r}"
        raise UnreadableFileError("HEADER_INVALID", detail)


def _no_parquet(error: Exception) -> UnreadableFileError:
    return UnreadableFileError("FILE_CORRUPT", f"the file is no Parquet: {excerpt_of(error)}")


def value_in(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column; where there is none of that name, dots lead into nested objects."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
