"""Slippage, counted: what was expected to close in a window and no longer is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rapport.deals.v1.reports_pb2 import GetSlippageResponse, SlippageTotal
from services.deals.projections.report_money import (
    day_before,
    money,
    moneys,
    rates_for,
    sum_of,
    unconverted_of,
)
from services.deals.projections.report_source import asked
from services.deals.projections.report_waterfall import STEPS
from services.deals.sums import Converted, by_currency, converted

if TYPE_CHECKING:
    from services.deals.projections.report_source import Question
    from services.deals.sums import Sum
    from services.kernel.log.sql import Tx

_SLIPPAGE: Final = f"""
with {{prefix}} moved as materialized (
    select cur.deal_id,
        prev.expected_close_time >= $2 and prev.expected_close_time < $3
            and cur.expected_close_time >= $3 as is_out
    from {STEPS}
    where cur.is_open and prev.is_open and cur.expected_close_time > prev.expected_close_time
),
expected as (
    select currency, amount_minor
    from {{rows}}
    where workspace = $1 and from_time < $2 and to_time >= $2 and {{is_open}}
        and expected_close_time >= $2 and expected_close_time < $3
),
slipped as (
    select currency, amount_minor
    from {{rows}}
    where workspace = $1 and from_time < $3 and to_time >= $3 and {{is_open}}
        and expected_close_time >= $3
        and deal_id in (select deal_id from moved where is_out)
)
select 'expected' as total, currency, count(*) as count, sum(amount_minor)::numeric as amount_minor
from expected group by currency
union all
select 'slipped', currency, count(*), sum(amount_minor) from slipped group by currency
union all
select 'pushes', null, count(*), null from moved
union all
select 'pushed', null, count(distinct deal_id), null from moved
"""


async def get_slippage(connection: Tx, question: Question) -> GetSlippageResponse:
    """Returns what slipped."""
    about = await asked(connection, question)
    rows = await connection.fetch(about.sql(_SLIPPAGE), *about.arguments.values)
    days = {"expected": day_before(question.start), "slipped": day_before(question.end)}
    totals: dict[str, list[Sum]] = {
        total: [sum_of(row, day) for row in rows if row["total"] == total]
        for total, day in days.items()
    }
    counts = {row["total"]: row["count"] for row in rows}
    parts = [part for sums in totals.values() for part in sums]
    rates = await rates_for(connection, question, parts)
    response = GetSlippageResponse(push_count=counts["pushes"], pushed_deal_count=counts["pushed"])
    left_out: list[Sum] = []
    for total, sums in totals.items():
        known = converted(sums, question.currency, rates) if question.currency else Converted(0, [])
        told = SlippageTotal(
            deal_count=sum(part.count for part in sums),
            amounts=moneys(by_currency(sums)),
            converted=money(known.amount_minor, question.currency),
        )
        left_out += known.unconverted
        getattr(response, total).CopyFrom(told)
    response.unconverted.extend(unconverted_of(left_out, question.currency))
    return response
