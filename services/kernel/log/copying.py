"""PostgreSQL's binary COPY, of rows that were encoded here: half as dear as tuples to the driver.

What many rows share is encoded once, and what has a fixed width together. Each value comes after
its length, as 4 bytes; each row after the number of its values, as 2.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.log.sql import Tx
    from services.kernel.log.writing import WritingConnection

LENGTH = struct.Struct("!i").pack
NULL = LENGTH(-1)

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_1970_US = (datetime(1970, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


def timestamptz(moment: datetime) -> int:
    """A moment as PostgreSQL has it: microseconds since 2000."""
    return (moment - _EPOCH) // _MICROSECOND


def timestamptz_of(since_1970_us: int) -> int:
    """The same of microseconds since 1970."""
    return since_1970_us + _1970_US


def text(value: str) -> bytes:
    """A text with its length."""
    encoded = value.encode()
    return LENGTH(len(encoded)) + encoded


async def copy_encoded(
    tx: Tx, schema: str, table: str, columns: Sequence[str], pieces: Iterable[bytes]
) -> int:
    """Copy rows with values of some columns, in pieces of any size; answers how many bytes."""
    options = _options(schema, columns, pieces)
    await tx.copy_to_table(table, **options)
    return len(options["source"])


def copy_encoded_soon(
    tx: Tx,
    schema: str,
    table: str,
    columns: Sequence[str],
    pieces: Iterable[bytes],
    timeout_s: float | None = None,
) -> None:
    """Let such rows be copied, as `writing.execute_soon` lets a statement go on."""
    options = _options(schema, columns, pieces)
    cast("WritingConnection", tx).copy_encoded_soon(table, **options, timeout=timeout_s)


def _options(schema: str, columns: Sequence[str], pieces: Iterable[bytes]) -> dict[str, Any]:
    # To the driver, bytes would be the name of a file.
    source = bytearray().join((_HEADER, *pieces, _TRAILER))
    return {"schema_name": schema, "columns": columns, "source": source, "format": "binary"}
