"""What every module that speaks SQL needs: a transaction's type, and rows as arrays.

`unnest($1::text[], $2::int[])` takes one array per column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

# A connection in which the caller has begun a transaction.
Tx: TypeAlias = Union["Connection[Record]", "PoolConnectionProxy[Record]"]


def columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Turn rows of equal width into the arrays that `unnest` turns back into rows."""
    return [list(column) for column in zip(*rows, strict=True)]
