"""The sales report, counted: what was created, won and lost in a window, and is open as it ends.

A deal is taken as it stood when the window ended, once. It is measured as created, as open, won or
lost: each measure is added up per group, currency and day of the rate.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.reports_pb2 import (
    SALES_GROUPING_COMPANY,
    SALES_GROUPING_CUSTOM_FIELD,
    SALES_GROUPING_LOST_REASON,
    SALES_GROUPING_MONTH,
    SALES_GROUPING_OWNER,
    SALES_GROUPING_PIPELINE,
    SALES_GROUPING_STAGE,
    SALES_GROUPING_TEAM,
    SALES_GROUPING_UNSPECIFIED,
    GetSalesReportResponse,
    SalesRow,
    SalesValue,
)
from rapport.deals.v1.service_pb2 import DEAL_STATE_LOST, DEAL_STATE_OPEN, DEAL_STATE_WON
from services.deals.kpis import Closed, nearest
from services.deals.projections.report_money import (
    day_before,
    money,
    rates_for,
    sum_of,
    unconverted_of,
)
from services.deals.projections.report_source import asked
from services.deals.sums import by_currency, converted
from services.kernel.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rapport.common.v1.money_pb2 import Money
    from rapport.deals.v1.reports_pb2 import GetSalesReportRequest, SalesGrouping
    from services.deals.exchange import Rates
    from services.deals.projections.report_source import Asked, Question
    from services.deals.sums import Sum
    from services.kernel.log.sql import Tx

ROWS_MAX: Final = 1000
"""A report is for people to read; a list of deals has pages."""

CREATED: Final = 0
"""The measure of what was created; the others are numbered as the states of deals."""

_GROUPS: Final[Mapping[SalesGrouping.ValueType, str]] = {
    SALES_GROUPING_UNSPECIFIED: "''",
    SALES_GROUPING_MONTH: "to_char(m.happened at time zone 'UTC', 'YYYY-MM')",
    SALES_GROUPING_OWNER: "r.owner",
    SALES_GROUPING_TEAM: "r.team",
    SALES_GROUPING_COMPANY: "r.company",
    SALES_GROUPING_PIPELINE: "r.pipeline",
    SALES_GROUPING_STAGE: "coalesce(r.closed_from, r.stage)",
    SALES_GROUPING_LOST_REASON: "r.lost_reason",
    SALES_GROUPING_CUSTOM_FIELD: "r.custom_fields ->> {field}",
}

# The cycle begins when the deal was opened, or first entered a stage.
_FIRST_ENTRY: Final = f"""(
    select min(visit.from_time) from {{rows}} visit
    where visit.workspace = $1 and visit.deal_id = r.deal_id and visit.from_time < $3
        and visit.state = {DEAL_STATE_OPEN} and visit.stage = {{stage}}
)"""

_MEASURED: Final = f"""
with {{prefix}} ended as (
    select r.*, {{opened}} as opened_at,
        case when r.state <> {DEAL_STATE_OPEN} then {{closed}} end as closed_at
    from {{rows}} r
    where r.workspace = $1 and r.from_time < $3 and r.to_time >= $3
        and not r.is_deleted and {{is_about}}
),
measured as materialized (
    select m.measure, coalesce({{group}}, '') as group_key, r.currency, r.amount_minor,
        (r.closed_at at time zone 'UTC')::date as close_day,
        case when m.measure = {DEAL_STATE_WON} then
            (extract(epoch from r.closed_at - {{cycle_start}}) * 1000000)::bigint
        end as cycle_us
    from ended r
    cross join lateral (
        select {CREATED} as measure, r.opened_at as happened where r.opened_at >= $2
        union all
        select r.state, r.closed_at where r.closed_at >= $2
        union all
        select r.state, null where r.state = {DEAL_STATE_OPEN} and {{is_open_measured}}
    ) m
),
shown as materialized (
    select distinct group_key from measured limit {ROWS_MAX + 1}
)
"""

_SUMS: Final = f"""
{_MEASURED}
select measure, group_key, currency, close_day, count(*) as count,
    sum(amount_minor)::numeric as amount_minor,
    count(cycle_us) as cycle_count, sum(cycle_us) as cycle_us,
    null::float8 as cycle_median_us
from measured
join shown using (group_key)
group by measure, group_key, currency, close_day
union all
select measure, group_key, null, null, 0, null, 0, null,
    percentile_cont(0.5) within group (order by cycle_us)
from measured
join shown using (group_key)
where cycle_us is not null
group by measure, group_key
"""


@dataclass(slots=True)
class _Group:
    """What was measured of one group: sums by measure, and the cycles of what was won."""

    sums: defaultdict[int, list[Sum]] = field(default_factory=lambda: defaultdict(list))
    cycle_count: int = 0
    cycle_us: int = 0
    cycle_median_us: float | None = None

    @property
    def parts(self) -> list[Sum]:
        """All sums, of whatever measure."""
        return [part for sums in self.sums.values() for part in sums]

    @property
    def closed(self) -> Closed:
        """What closed, but for its worth."""
        return Closed(
            won_count=self.count(DEAL_STATE_WON),
            lost_count=self.count(DEAL_STATE_LOST),
            cycle_count=self.cycle_count,
            cycle_us=self.cycle_us,
        )

    def count(self, measure: int) -> int:
        """How many deals there are of a measure."""
        return sum(part.count for part in self.sums[measure])


async def get_sales_report(
    connection: Tx, question: Question, request: GetSalesReportRequest
) -> GetSalesReportResponse:
    """Returns the rows of a sales report."""
    about = await asked(connection, question)
    groups = await _groups(connection, about, request)
    parts = [part for each in groups.values() for part in each.parts]
    rates = await rates_for(connection, question, parts)
    left_out: list[Sum] = []
    rows = []
    for key in sorted(groups):
        found = groups[key]
        row = _row(key, found)
        for currency in [question.currency] if question.currency else by_currency(found.parts):
            told = _Told(found, currency, is_converted=bool(question.currency), rates=rates)
            row.values.append(told.value())
            left_out += told.left_out
        if request.group_by == SALES_GROUPING_MONTH:
            row.ClearField("open_count")
            for value in row.values:
                value.ClearField("open")
                value.ClearField("velocity_per_day")
        rows.append(row)
    return GetSalesReportResponse(
        rows=rows, unconverted=unconverted_of(left_out, question.currency)
    )


async def _groups(
    connection: Tx, about: Asked, request: GetSalesReportRequest
) -> dict[str, _Group]:
    """What was measured, by group."""
    arguments = about.arguments
    group, cycle_start = _GROUPS[request.group_by], "r.opened_at"
    if request.group_by == SALES_GROUPING_CUSTOM_FIELD:
        group = group.format(field=arguments.add(request.custom_field, "text"))
    if request.cycle_start_stage:
        stage = arguments.add(request.cycle_start_stage, "text")
        cycle_start = _FIRST_ENTRY.format(rows=about.source.rows, stage=stage)
    is_open_measured = request.group_by != SALES_GROUPING_MONTH
    sql = about.sql(
        _SUMS,
        group=group,
        cycle_start=cycle_start,
        is_open_measured=str(is_open_measured).lower(),
    )
    groups: defaultdict[str, _Group] = defaultdict(_Group)
    if request.group_by == SALES_GROUPING_UNSPECIFIED:
        groups[""] = _Group()
    day = day_before(about.question.end)
    for row in await connection.fetch(sql, *arguments.values):
        found = groups[row["group_key"]]
        if row["cycle_median_us"] is not None:
            found.cycle_median_us = row["cycle_median_us"]
            continue
        found.sums[row["measure"]].append(sum_of(row, row["close_day"] or day))
        found.cycle_count += row["cycle_count"]
        found.cycle_us += int(row["cycle_us"] or 0)
    if len(groups) > ROWS_MAX:
        raise InvalidArgument.of("group_by", f"makes more than {ROWS_MAX} rows; filter the deals")
    return dict(groups)


def _row(key: str, found: _Group) -> SalesRow:
    """The row of a group, but for what its deals were worth."""
    closed = found.closed
    row = SalesRow(
        group=key,
        created_count=found.count(CREATED),
        won_count=closed.won_count,
        lost_count=closed.lost_count,
        open_count=found.count(DEAL_STATE_OPEN),
        win_rate_bp=closed.win_rate_bp,
    )
    if closed.cycle_mean_us is not None and found.cycle_median_us is not None:
        row.cycle_mean.FromMicroseconds(closed.cycle_mean_us)
        row.cycle_median.FromMicroseconds(nearest(found.cycle_median_us))
    return row


@dataclass(slots=True)
class _Told:
    """What the deals of a group were worth in one currency: all of them, or those in it."""

    group: _Group
    currency: str
    is_converted: bool
    rates: Rates
    left_out: list[Sum] = field(default_factory=list)

    def value(self) -> SalesValue:
        """The value as the API tells it."""
        created, _ = self._measured(CREATED)
        open_, open_count = self._measured(DEAL_STATE_OPEN)
        won, valued_count = self._measured(DEAL_STATE_WON)
        lost, _ = self._measured(DEAL_STATE_LOST)
        closed = replace(
            self.group.closed, won_minor=won, lost_minor=lost, valued_count=valued_count
        )
        if self.is_converted:
            open_count = self.group.count(DEAL_STATE_OPEN)
        return SalesValue(
            currency=self.currency,
            created=money(created, self.currency),
            open=money(open_, self.currency),
            won=money(won, self.currency),
            lost=money(lost, self.currency),
            win_rate_bp=closed.value_win_rate_bp,
            average_deal=self._money(closed.average_deal_minor),
            velocity_per_day=self._money(closed.velocity_minor(open_count)),
        )

    def _measured(self, measure: int) -> tuple[int, int]:
        """How much a measure comes to, and how many of its deals are in that sum."""
        parts = self.group.sums[measure]
        if not self.is_converted:
            parts = [part for part in parts if part.currency == self.currency]
        known = converted(parts, self.currency, self.rates)
        self.left_out += known.unconverted
        valued = sum(part.count for part in parts if part.currency)
        return known.amount_minor, valued - sum(part.count for part in known.unconverted)

    def _money(self, amount_minor: int | None) -> Money | None:
        return None if amount_minor is None else money(amount_minor, self.currency)
