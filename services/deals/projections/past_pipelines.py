"""The pipelines of a workspace as they were at each of many moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.deals.pipeline import STARTING, STARTING_ID
from services.deals.projections.pipelines import PIPELINE_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncpg import Pool

    from services.deals.pipeline import Pipeline
    from services.kernel.log.sql import Tx

_BETWEEN: Final = """
select * from pipelines.pipelines_versions
where workspace = $1 and from_time <= $3 and to_time > $2
order by from_time, version
"""


class PastPipelines:
    """Tells the pipelines there were at any moment of a span."""

    def __init__(self, versions: list[tuple[datetime, str, Pipeline]]) -> None:
        """`versions`: since when which pipeline was what, in the order of time."""
        self._versions = versions

    def at(self, moment: datetime) -> Mapping[str, Pipeline]:
        """The pipelines by id, the one that every workspace begins with too."""
        begun = {key: found for since, key, found in self._versions if since <= moment}
        return {STARTING_ID: STARTING, **begun}


async def load_past_pipelines(
    connection: Tx | Pool, workspace: str, earliest: datetime, latest: datetime
) -> PastPipelines:
    """What pipelines were in [earliest, latest] of record time."""
    records = await connection.fetch(_BETWEEN, workspace, earliest, latest)
    versions = [
        (record["from_time"], record["pipeline_id"], PIPELINE_ROWS.state_of(record))
        for record in records
    ]
    return PastPipelines(versions)
