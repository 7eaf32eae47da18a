"""Rows for PostgreSQL: `unnest($1::text[], $2::int[])` takes one array per column."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Turn rows of equal width into the arrays that `unnest` turns back into rows."""
    return [list(column) for column in zip(*rows, strict=True)]
