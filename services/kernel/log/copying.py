"""PostgreSQL's binary COPY, of rows that were encoded here: half as dear as tuples to the driver.

What many rows share is encoded once, and what has a fixed width together. Each value comes after
its length, as 4 bytes; each row after the number of its values, as 2.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.log.sql import Tx

LENGTH = struct.Struct("!i").pack
NULL = LENGTH(-1)

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_1970_US = (datetime(1970, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


def microseconds(moment: datetime) -> int:
    """A timestamptz: microseconds since 2000."""
    return (moment - _EPOCH) // _MICROSECOND


def since_2000(since_1970_us: int) -> int:
    """The same of microseconds since 1970."""
    return since_1970_us + _1970_US


def text(value: str) -> bytes:
    """A text with its length."""
    encoded = value.encode()
    return LENGTH(len(encoded)) + encoded


async def copy_encoded(
    tx: Tx,
    schema: str,
    table: str,
    columns: Sequence[str],
    pieces: Iterable[bytes],
    timeout_s: float | None = None,
) -> int:
    """Copy rows with values of some columns, in pieces of any size; answers how many bytes."""
    # To the driver, bytes would be the name of a file.
    buffer = bytearray().join((_HEADER, *pieces, _TRAILER))
    await tx.copy_to_table(
        table,
        schema_name=schema,
        columns=columns,
        source=buffer,  # type: ignore[arg-type]  # a buffer is taken, too
        format="binary",
        timeout=timeout_s,
    )
    return len(buffer)
