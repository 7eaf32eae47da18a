"""The file of an import without some of its rows, each of which stays a row. Pure.

Rows keep their numbers, so an import goes on where it was. A row that is taken out is one that
cannot be read; of Parquet, whose rows are always read, one without any value. Rows that could not
be read before are taken out along with them, for nobody knows whom they name.
"""

from __future__ import annotations

import csv
import gzip
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from rapport.events.v1.import_job_pb2 import ImportFileType
from services.events.import_files import (
    ENCODINGS,
    GZIP,
    RowError,
    json_lines,
    open_file,
    unpacked_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rapport.events.v1.import_job_pb2 import ImportFormat
    from services.events.import_files import Row

    Takes = Callable[[int, Row], bool]

TAKEN = "(erased)"
"""What stands in place of a row that was taken out."""

_PARQUET_ROWS_AT_ONCE = 500


def count_taken(file: BinaryIO, size_bytes: int, file_format: ImportFormat, takes: Takes) -> int:
    """How many rows are to be taken out; raises UnreadableFileError."""
    file.seek(0)
    opened = open_file(file, size_bytes, file_format)
    return sum(_is_taken(row, number, takes) for number, row in enumerate(opened.rows, start=1))


def rewrite(
    file: BinaryIO, size_bytes: int, file_format: ImportFormat, takes: Takes, out: BinaryIO
) -> None:
    """Writes the file without the rows to be taken out; raises UnreadableFileError."""
    file.seek(0)
    if file_format.type == ImportFileType.IMPORT_FILE_TYPE_PARQUET:
        _rewrite_parquet(file, size_bytes, file_format, takes, out)
        return
    is_packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    with _packed(out) if is_packed else _as_it_is(out) as target:
        if file_format.type == ImportFileType.IMPORT_FILE_TYPE_CSV:
            _rewrite_csv(file, size_bytes, file_format, takes, target)
        else:
            _rewrite_json(file, takes, target)


def _is_taken(row: Row | RowError, number: int, takes: Takes) -> bool:
    if isinstance(row, RowError):
        return TAKEN not in row.excerpt
    return takes(number, row)


def _rewrite_csv(
    file: BinaryIO, size_bytes: int, file_format: ImportFormat, takes: Takes, target: Any
) -> None:
    opened = open_file(file, size_bytes, file_format)
    encoding = ENCODINGS[file_format.encoding].removesuffix("-sig")
    text = io.TextIOWrapper(target, encoding=encoding, newline="", write_through=True)
    writer = csv.writer(
        text,
        delimiter=file_format.delimiter or ",",
        quotechar=file_format.quote or '"',
        quoting=csv.QUOTE_ALL,
    )
    writer.writerow(opened.columns)
    # One value more than there are columns: never a row that could be read.
    taken = [TAKEN, *("" for _ in opened.columns)]
    for number, row in enumerate(opened.rows, start=1):
        if isinstance(row, RowError) or takes(number, row):
            writer.writerow(taken)
        else:
            writer.writerow(row.values())
    text.detach()


def _rewrite_json(file: BinaryIO, takes: Takes, target: Any) -> None:
    for number, (line, row) in enumerate(json_lines(unpacked_of(file)), start=1):
        is_out = isinstance(row, RowError) or takes(number, row)
        target.write(f'"{TAKEN}"'.encode() if is_out else line.rstrip(b"\r\n"))
        target.write(b"\n")


def _rewrite_parquet(
    file: BinaryIO, size_bytes: int, file_format: ImportFormat, takes: Takes, out: BinaryIO
) -> None:
    import pyarrow as pa  # noqa: PLC0415, who imports no Parquet need not load it
    import pyarrow.parquet as pq  # noqa: PLC0415

    opened = open_file(file, size_bytes, file_format)
    outs = [_is_taken(row, number, takes) for number, row in enumerate(opened.rows, start=1)]
    file.seek(0)
    source = pq.ParquetFile(file)
    schema = pa.schema([field.with_nullable(True) for field in source.schema_arrow])
    number = 0
    with pq.ParquetWriter(out, schema) as writer:
        for batch in source.iter_batches(batch_size=_PARQUET_ROWS_AT_ONCE, use_threads=False):
            places = [None if outs[number + place] else place for place in range(batch.num_rows)]
            kept = batch.take(pa.array(places, pa.int64()))
            writer.write_batch(pa.RecordBatch.from_arrays(kept.columns, schema=schema))
            number += batch.num_rows


@contextmanager
def _packed(out: BinaryIO) -> Iterator[Any]:
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed:
        yield packed


@contextmanager
def _as_it_is(out: BinaryIO) -> Iterator[Any]:
    yield out
