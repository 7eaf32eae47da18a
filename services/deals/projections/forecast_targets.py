"""What a forecast is held against: the quotas of its groups, and what people said last of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.forecasts_pb2 import ForecastGroupBy
from services.deals.deciders.quota import DECIDER
from services.deals.projections.forecast_submissions import COLUMNS, submission_in
from services.deals.projections.forecasts import GROUPS_MAX, Asked
from services.kernel.views.aggregate_versions import CURRENT_AT

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from rapport.deals.v1.forecasts_pb2 import ForecastSubmission
    from services.kernel.log.sql import Tx

# $1 workspace, $2 periods, $3 pipeline, $4 the moment, $5 the names of groups if they are known
# already, $6 how many at the most, and what the subject is told with.
_QUOTAS: Final = """
select {grp} as grp, quota_id, period, amount_minor, currency from {source}
where workspace = $1 and period = any($2) and pipeline = $3 and currency is not null
    and {seen} and {subject} and ($5::text[] is null or {grp} = any($5))
order by grp, period
limit $6
"""

_SUBMISSIONS: Final = f"""
select distinct on (grp, period) {{grp}} as grp, {COLUMNS}
from forecast_submissions.forecast_submissions
where workspace = $1 and period = any($2) and pipeline = $3
    and ($4::timestamptz is null or create_time <= $4)
    and {{subject}} and ($5::text[] is null or {{grp}} = any($5))
order by grp, period, create_position desc
limit $6
"""


@dataclass(frozen=True, slots=True)
class QuotaSaid:
    """A quota as it was said."""

    name: str
    amount: Money


@dataclass(frozen=True, slots=True)
class Targets:
    """Quotas and latest submissions, by group and name of the period."""

    quotas: dict[tuple[str, str], QuotaSaid] = field(default_factory=dict)
    submissions: dict[tuple[str, str], ForecastSubmission] = field(default_factory=dict)

    @property
    def groups(self) -> set[str]:
        """Those of whom anything was said."""
        return {group for group, _ in (*self.quotas, *self.submissions)}


async def read_targets(
    connection: Tx, asked: Asked, groups: Collection[str], moment: datetime | None
) -> Targets:
    """What was said of the groups of a forecast, now or by a moment.

    Groups of which something was said are found though they have no deals, unless deals are
    narrowed by something else than their group: then `groups` are all there are. Of a group of
    deals without an owner or a team nothing can be said.
    """
    subject = _subject(asked)
    if subject is None:
        return Targets()
    args = (
        asked.workspace,
        [period.name for period in asked.periods],
        asked.pipeline,
        moment,
        sorted(groups) if subject.is_crossed else None,
        (GROUPS_MAX + 1) * len(asked.periods),
        *subject.values,
    )
    is_now = moment is None
    seen = "$4::timestamptz is null" if is_now else CURRENT_AT.format(moment="$4")
    source = "quotas.quotas" if is_now else "quotas.quotas_versions"
    told = {"grp": subject.group, "subject": subject.condition}
    quotas = await connection.fetch(_QUOTAS.format(source=source, seen=seen, **told), *args)
    said = await connection.fetch(_SUBMISSIONS.format(**told), *args)
    return Targets(
        {(row["grp"], row["period"]): _quota_in(row) for row in quotas},
        {(row["grp"], row["period"]): submission_in(row) for row in said},
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose quotas and submissions are asked for; crossed when deals are narrowed otherwise."""

    group: str
    condition: str
    values: tuple[str, ...]
    is_crossed: bool = False


def _subject(asked: Asked) -> _Subject | None:
    """Of whom something may have been said; None when nothing can be."""
    match asked.group_by:
        case ForecastGroupBy.FORECAST_GROUP_BY_OWNER:
            return _grouped("owner", asked.owner, asked.team)
        case ForecastGroupBy.FORECAST_GROUP_BY_TEAM:
            return _grouped("team", asked.team, asked.owner)
    if asked.owner and asked.team:
        return None
    return _Subject("''", "owner = $7 and team = $8", (asked.owner, asked.team))


def _grouped(column: str, value: str, other: str) -> _Subject:
    condition = f"{column} <> '' and ($7 = '' or {column} = $7)"
    return _Subject(column, condition, (value,), is_crossed=bool(other))


def _quota_in(row: Any) -> QuotaSaid:
    amount = Money(amount_minor=row["amount_minor"], currency=row["currency"])
    return QuotaSaid(DECIDER.name(row["quota_id"]), amount)
