"""Questions about forecasts: deals counted by group, period and category, now or at any moment.

Counting is one statement, whatever is asked: of the table of deals for now, of the table of what
they were for moments by the time of recording or of occurrence. How stages were configured and
what currencies were worth at each moment comes with it as arrays.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rapport.deals.v1.forecasts_pb2 import ForecastErrorReason, ForecastGroupBy, ForecastTimeBasis
from rapport.deals.v1.service_pb2 import DEAL_STATE_OPEN, DEAL_STATE_WON
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
)
from services.deals.exchange import CONVERTED_MINOR_MAX
from services.deals.forecast import Tally
from services.deals.pipeline import CERTAIN_BP
from services.deals.projections.forecast_settings import Reading, rate_columns, stage_columns
from services.kernel.log.sql import Statement

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import date, datetime

    from rapport.deals.v1.values_pb2 import ForecastCategory
    from services.deals.forecast_periods import Period
    from services.kernel.log.sql import Tx

GROUPS_MAX: Final = 500
"""Of one answer, in the order of their names."""

ERRORS_MAX: Final = 500
"""Of one answer, in the order of periods, currencies and days."""

UNDATED: Final = 0
"""The place of deals that are expected to close at no known time; that of the first period is 1."""

_UNKNOWN = ForecastErrorReason.FORECAST_ERROR_REASON_RATE_UNKNOWN
_TOO_LARGE = ForecastErrorReason.FORECAST_ERROR_REASON_AMOUNT_TOO_LARGE

GROUPS: Final = {
    ForecastGroupBy.FORECAST_GROUP_BY_UNSPECIFIED: "''",
    ForecastGroupBy.FORECAST_GROUP_BY_NONE: "''",
    ForecastGroupBy.FORECAST_GROUP_BY_OWNER: "coalesce(owner, '')",
    ForecastGroupBy.FORECAST_GROUP_BY_TEAM: "coalesce(team, '')",
}
"""What the group of a deal is called."""

# The range holds for each moment, and uses no index: what lies between the first and the last
# moment, and in the periods, says better to the planner which one does.
_SEEN: Final = """from_time <= ($3::timestamptz[])[cardinality($3::timestamptz[])]
        and to_time > ($3::timestamptz[])[1] and tstzrange(from_time, to_time) @> moment"""

# $1 workspace, $2-$4 moments, $5-$8 stages, $9-$12 rates, $13 currency, $14 begins of periods,
# $15 end of the last, $16 pipeline, $17 owner, $18 team.
_COUNTED: Final = f"""
with moments as (
    select * from unnest($2::int[], $3::timestamptz[], $4::date[]) as m (number, moment, today)
), stages as (
    select * from unnest($5::int[], $6::text[], $7::int[], $8::int[])
        as s (number, stage, likely_bp, category)
), rates as (
    select * from unnest($9::int[], $10::text[], $11::date[], $12::numeric[])
        as r (number, currency, day, factor)
), counted as (
    select number, {{group}} as grp, expected_close_time as due, amount_minor, currency,
        today as day, coalesce(probability_bp_override, likely_bp, 0) as likely_bp,
        coalesce(forecast_category_override, category, {FORECAST_CATEGORY_PIPELINE}) as category
    from {{source}} cross join moments left join stages using (number, stage)
    where {{asked}} and {{seen}} and state = {DEAL_STATE_OPEN}
        and (expected_close_time is null
            or expected_close_time >= ($14::timestamptz[])[1]
                and expected_close_time < $15::timestamptz)
    union all
    select number, {{group}}, close_time, amount_minor, currency,
        (close_time at time zone 'UTC')::date,
        case state when {DEAL_STATE_WON} then {CERTAIN_BP} else 0 end,
        case state when {DEAL_STATE_WON} then {FORECAST_CATEGORY_CLOSED}
            else {FORECAST_CATEGORY_OMITTED} end
    from {{source}} cross join moments
    where {{asked}} and {{seen}} and state <> {DEAL_STATE_OPEN}
        and close_time >= ($14::timestamptz[])[1] and close_time < $15::timestamptz
), converted as (
    select c.number, grp, coalesce(width_bucket(due, $14::timestamptz[]), {UNDATED}) as place,
        category, likely_bp, amount_minor, c.currency, c.day,
        case when c.currency = $13::text then amount_minor end as own,
        case when c.currency <> $13 then round(amount_minor * factor) end as told
    from counted c left join rates r
        on (r.number, r.currency, r.day) = (c.number, c.currency, c.day) and c.currency <> $13
), judged as (
    select *, case when currency <> $13 and told is null then {_UNKNOWN}
        when told > {CONVERTED_MINOR_MAX} then {_TOO_LARGE} end as reason
    from converted
), summed as (
    select number, grp, place, category, likely_bp, reason,
        case when reason is not null then currency end as wrong_currency,
        case when reason is not null then day end as wrong_day,
        count(*) as deal_count, count(*) filter (where amount_minor is null) as unpriced_count,
        coalesce(sum(own), 0) + coalesce(sum(told) filter (where reason is null), 0) as amount,
        sum(amount_minor) as amount_minor
    from judged
    group by number, grp, place, category, likely_bp, reason, wrong_currency, wrong_day
), tallied as (
    select grouping(category) = 1 as is_error, number, grp, place, category,
        reason, wrong_currency, wrong_day, sum(deal_count) as deal_count,
        sum(unpriced_count) as unpriced_count,
        coalesce(sum(deal_count) filter (where reason is not null), 0) as left_out_count,
        sum(amount) as amount, sum(amount * likely_bp) as likely,
        sum(amount_minor) as amount_minor
    from summed
    group by grouping sets (
        (number, grp, place, category), (number, place, reason, wrong_currency, wrong_day)
    )
    having grouping(category) = 0 or reason is not null
), ranked as (
    select *, dense_rank() over (partition by is_error order by grp) as grp_rank,
        row_number() over (
            partition by is_error order by number, place, wrong_currency, wrong_day, reason
        ) as error_rank,
        count(*) over (partition by is_error) as error_count
    from tallied
)
select * from ranked
where case when is_error then error_rank <= {ERRORS_MAX} else grp_rank <= {GROUPS_MAX + 1} end
order by is_error, grp, error_rank
"""

# $1 workspace, $2 and $3 begin and end of the periods.
_CLOSED_IN: Final = f"""
select distinct currency from {{source}}
where workspace = $1 and not is_deleted and state <> {DEAL_STATE_OPEN} and currency is not null
    and close_time >= $2 and close_time < $3
"""

_ASKED: Final = """workspace = $1 and not is_deleted
        and ($16::text = '' or pipeline = $16) and ($17::text = '' or owner = $17)
        and ($18::text = '' or team = $18)"""


@dataclass(frozen=True, slots=True)
class Source:
    """A table of deals, and what is true of the rows that a moment saw."""

    table: str
    seen: str = _SEEN
    is_told_late: bool = False


_LIVE: Final = Source("deals.deals", "true")
_RECORDED: Final = Source("deals.deals_versions")
_OCCURRED: Final = Source("deals.deal_periods", is_told_late=True)


def source_of(basis: ForecastTimeBasis.ValueType, moment: datetime | None) -> Source:
    """Where the deals of a moment are; None is now."""
    if moment is None:
        return _LIVE
    is_occurred = basis == ForecastTimeBasis.FORECAST_TIME_BASIS_OCCUR
    return _OCCURRED if is_occurred else _RECORDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which deals a forecast counts, and how. The periods are consecutive."""

    workspace: str
    periods: Sequence[Period]
    currency: str
    pipeline: str = ""
    owner: str = ""
    team: str = ""
    group_by: ForecastGroupBy.ValueType = ForecastGroupBy.FORECAST_GROUP_BY_NONE


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Amounts of one currency and day that are in no sum."""

    place: int
    reason: ForecastErrorReason.ValueType
    currency: str
    day: date
    deal_count: int
    amount_minor: int


Tallies = dict[str, dict[int, dict["ForecastCategory.ValueType", Tally]]]


@dataclass(slots=True)
class Counted:
    """What deals come to at one moment: by group, place and category."""

    groups: Tallies = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    errors: list[LeftOut] = field(default_factory=list)


async def count_deals(
    connection: Tx, asked: Asked, source: Source, readings: Sequence[Reading]
) -> tuple[list[Counted], int]:
    """What deals come to at each moment, the earliest first, and how many errors there are in all.

    At most `GROUPS_MAX` groups and one more are answered, and `ERRORS_MAX` errors.
    """
    closed_in = await _currencies_of_closed(connection, asked, source)
    sql, args = statement(asked, source, readings, closed_in)
    rows = await connection.fetch(sql, *args)
    counted = [Counted() for _ in readings]
    error_count = 0
    for row in rows:
        reading = counted[row["number"]]
        if row["is_error"]:
            error_count = row["error_count"]
            reading.errors.append(_left_out(row))
        else:
            reading.groups[row["grp"]][row["place"]][row["category"]] = _tally(row)
    return counted, error_count


async def _currencies_of_closed(connection: Tx, asked: Asked, source: Source) -> set[str]:
    """The currencies of deals that were closed in the periods, whichever moment saw them so."""
    times = asked.periods[0].begin_time, asked.periods[-1].end_time
    sql = _CLOSED_IN.format(source=source.table)
    return {row["currency"] for row in await connection.fetch(sql, asked.workspace, *times)}


def statement(
    asked: Asked, source: Source, readings: Sequence[Reading], closed_in: Collection[str]
) -> Statement:
    """The one statement; `closed_in` are the currencies of the deals that were closed."""
    sql = _COUNTED.format(
        source=source.table, seen=source.seen, asked=_ASKED, group=GROUPS[asked.group_by]
    )
    args = (
        asked.workspace,
        list(range(len(readings))),
        [reading.moment for reading in readings],
        [reading.today for reading in readings],
        *stage_columns(readings),
        *rate_columns(readings, closed_in),
        asked.currency,
        [period.begin_time for period in asked.periods],
        asked.periods[-1].end_time,
        asked.pipeline,
        asked.owner,
        asked.team,
    )
    return Statement(sql, args)


def _tally(row: Any) -> Tally:
    return Tally(
        deal_count=int(row["deal_count"]),
        unpriced_count=int(row["unpriced_count"]),
        left_out_count=int(row["left_out_count"]),
        amount_minor=int(row["amount"]),
        likely=int(row["likely"]),
    )


def _left_out(row: Any) -> LeftOut:
    return LeftOut(
        place=row["place"],
        reason=row["reason"],
        currency=row["wrong_currency"],
        day=row["wrong_day"],
        deal_count=int(row["deal_count"]),
        amount_minor=int(row["amount_minor"]),
    )
