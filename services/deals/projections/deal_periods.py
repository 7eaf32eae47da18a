"""The periods of deals: what each was from when to when, by the time things occurred.

They have the columns of the rows, their `place` among the deal's own, and [from_time, to_time); the
last one's `to_time` is infinity. What is told late changes the periods after it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from rapport.deals.v1.service_pb2 import DEAL_STATE_OPEN
from services.deals.deciders.deal import DECIDER
from services.deals.periods import Period, told
from services.deals.projections.deal_rows import COLUMNS, DEAL_ROWS, DEALS_TABLE
from services.kernel.log.sql import columns
from services.kernel.views.aggregate_table import arrays_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.deals.projections.deal_rows import Row
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

LATE: Final = "interval '1 minute'"
"""What is told within so long counts as told in time: there is much of it, and little else."""
IS_LATE: Final = f"update_time - from_time > {LATE}"

PERIOD_TABLES: Final = f"""
create table {{schema}}.deal_periods (
    like {{schema}}.deals,
    place int not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, deal_id, place)
);
create index deal_periods_by_from_time
    on {{schema}}.deal_periods (workspace, from_time);
create index deal_periods_by_to_time
    on {{schema}}.deal_periods (workspace, to_time);
create index deal_periods_by_update_time
    on {{schema}}.deal_periods (workspace, update_time, from_time) include (deal_id);
create index late_deal_periods_by_update_time
    on {{schema}}.deal_periods (workspace, update_time, from_time) include (deal_id)
    where {IS_LATE};
create index open_deal_periods_by_amount
    on {{schema}}.deal_periods (workspace, stage, to_time, from_time)
    include (currency, amount_minor, probability_bp_override)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index open_deal_periods_by_expected_close_time
    on {{schema}}.deal_periods (workspace, expected_close_time)
    include (pipeline, stage, owner, team, amount_minor, currency, forecast_category_override,
        probability_bp_override, from_time, to_time)
    where state = {DEAL_STATE_OPEN} and not is_deleted;
create index closed_deal_periods_by_close_time
    on {{schema}}.deal_periods (workspace, close_time)
    include (pipeline, owner, team, amount_minor, currency, state, from_time, to_time)
    where state <> {DEAL_STATE_OPEN} and not is_deleted;
"""

# From the period in which the earliest of the new facts lies.
_SINCE = f"""
select workspace, {COLUMNS}, place, from_time
from {{schema}}.deal_periods p
join unnest($1::text[], $2::text[], $3::timestamptz[]) as asked (workspace, deal_id, since)
    using (workspace, deal_id)
where p.to_time > asked.since
order by workspace, deal_id, place
"""

_TYPES = [*DEALS_TABLE.types.values(), "int", "timestamptz", "timestamptz"]
_KEPT = ("workspace", "deal_id")
_CHANGED = (*(name for name in DEALS_TABLE.types if name not in _KEPT), "from_time", "to_time")

_SAVE = f"""
insert into {{schema}}.deal_periods (workspace, {COLUMNS}, place, from_time, to_time)
select workspace, {COLUMNS}, place, from_time, coalesce(to_time, 'infinity')
from unnest({arrays_of(_TYPES)})
    as kept (workspace, {COLUMNS}, place, from_time, to_time)
on conflict (workspace, deal_id, place) do update set
    {", ".join(f"{column} = excluded.{column}" for column in _CHANGED)}
"""


async def keep_periods(
    tx: Tx, schema: str, events: Sequence[Recorded], rows: Sequence[Row]
) -> None:
    """Adds the facts of deals, each with the row it led to, to the periods of their deals."""
    since: dict[tuple[str, str], Any] = {}
    for event in events:
        key = event.workspace, DECIDER.id_of(event.stream)
        since[key] = min(since.get(key, event.occur_time), event.occur_time)
    asked = [(*key, moment) for key, moment in sorted(since.items())]
    periods: dict[tuple[str, str], list[Period]] = {key: [] for key in since}
    for record in await tx.fetch(_SINCE.format(schema=schema), *columns(asked)):
        row = DEAL_ROWS.row(record)
        period = Period(record["place"], record["from_time"], row)
        periods[row.workspace, row.aggregate_id].append(period)
    for event, row in zip(events, rows, strict=True):
        key = row.workspace, row.aggregate_id
        periods[key] = told(periods[key], event.event, event.occur_time, row)
    kept = [values for each in periods.values() for values in _values(each)]
    await tx.execute(_SAVE.format(schema=schema), *columns(kept))


def _values(periods: Sequence[Period]) -> list[tuple[object, ...]]:
    """Rows of the table: each period ends where the next begins."""
    ends = [after.from_time for _, after in pairwise(periods)]
    return [
        (*DEAL_ROWS.values(period.row), period.place, period.from_time, end)
        for period, end in zip(periods, [*ends, None], strict=True)
    ]
