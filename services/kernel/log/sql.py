"""What every module that speaks SQL needs: a transaction's type, rows as arrays, one round trip.

`unnest($1::text[], $2::int[])` takes one array per column.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

# A connection in which the caller has begun a transaction.
Tx: TypeAlias = Union["Connection[Record]", "PoolConnectionProxy[Record]"]

_PLACE = re.compile(r"\$(\d+)")


class Statement(NamedTuple):
    """An insert, update or delete with its arguments, not yet sent."""

    text: str
    args: Sequence[object]


async def send(tx: Tx, statements: Sequence[Statement]) -> None:
    """Send statements in one round trip: waiting is most of what a small transaction does.

    None of them sees what another does, and no two may change the same row.
    """
    if statements:
        args = [arg for statement in statements for arg in statement.args]
        await tx.execute(_together(tuple(statement.text for statement in statements)), *args)


def columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Turn rows of equal width into the arrays that `unnest` turns back into rows."""
    return [list(column) for column in zip(*rows, strict=True)]


@lru_cache
def _together(texts: tuple[str, ...]) -> str:
    """One statement that does what several do: the last of them, with the others before it."""
    taken = 0
    steps = []
    for text in texts:
        steps.append(_shifted(text, taken))
        taken += max((int(number) for number in _PLACE.findall(text)), default=0)
    *others, last = steps
    named = ", ".join(f"step_{number} as ({step})" for number, step in enumerate(others))
    return f"with {named} {last}" if others else last


def _shifted(text: str, by: int) -> str:
    """The statement with its placeholders counted on from those before it."""
    return _PLACE.sub(lambda place: f"${int(place[1]) + by}", text)
