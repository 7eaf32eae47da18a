"""What deals were, from their first fact on: what an import compares itself with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.deals.projections.deal_rows import COLUMNS, DEAL_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Pool

    from services.deals.deal import State

_BEGINNINGS: Final = f"""
select workspace, {COLUMNS}
from deals.deals_versions
join unnest($2::text[], $3::bigint[]) as asked (deal_id, length) using (deal_id)
where workspace = $1 and version <= asked.length
order by deal_id, version
"""


async def load_beginnings(
    pool: Pool, workspace: str, lengths: Mapping[str, int]
) -> dict[str, list[State]]:
    """The states of the deals that are there, by id, each after its first so many facts."""
    records = await pool.fetch(_BEGINNINGS, workspace, list(lengths), list(lengths.values()))
    found: dict[str, list[State]] = {}
    for row in map(DEAL_ROWS.row, records):
        found.setdefault(row.aggregate_id, []).append(row.state)
    return found
