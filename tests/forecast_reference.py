"""The forecast, slowly: deal by deal and in fractions, as its definition says it.

What SQL counts must be equal to it.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from math import floor

from rapport.deals.v1.service_pb2 import DEAL_STATE_OPEN, DEAL_STATE_WON
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
)
from services.deals.exchange import UnknownRate, day_of

COUNTS = ("deal_count", "unpriced_count", "left_out_count", "amount_minor", "likely")


@dataclass(frozen=True)
class CountedDeal:
    """A deal as a table of deals holds it, from one moment to another."""

    state: int = DEAL_STATE_OPEN
    amount_minor: int | None = None
    currency: str | None = None
    stage: str = ""
    category: int | None = None
    likely_bp: int | None = None
    expected_close_time: datetime | None = None
    close_time: datetime | None = None
    owner: str | None = None
    team: str | None = None
    pipeline: str = "pipelines/sales"
    is_deleted: bool = False
    from_time: datetime | None = None
    to_time: datetime | None = None


def reference(deals, reading, asked, group_of, stages):
    """What deals come to: by group, place and category; and what is left out, by place and day.

    `stages` tells the probability and the category of each stage that is known.
    """
    tallies = defaultdict(Counter)
    wrong = defaultdict(Counter)
    for deal in deals:
        place = _place(deal, asked)
        if place is None or not _is_asked(deal, asked):
            continue
        likely_bp, category = _settings(deal, stages)
        tally = tallies[group_of(deal), place, category]
        tally["deal_count"] += 1
        if deal.amount_minor is None:
            tally["unpriced_count"] += 1
            continue
        day = day_of(reading.moment if deal.state == DEAL_STATE_OPEN else deal.close_time)
        try:
            amount = _converted(deal, reading, day)
        except UnknownRate:
            tally["left_out_count"] += 1
            wrong[place, deal.currency, day]["deal_count"] += 1
            wrong[place, deal.currency, day]["amount_minor"] += deal.amount_minor
            continue
        tally["amount_minor"] += amount
        tally["likely"] += amount * likely_bp
    return dict(tallies), dict(wrong)


def _place(deal, asked):
    """0 for a deal that is expected to close at no known time, else the number of its period."""
    due = deal.expected_close_time if deal.state == DEAL_STATE_OPEN else deal.close_time
    if due is None:
        return 0
    for place, period in enumerate(asked.periods, start=1):
        if period.begin_time <= due < period.end_time:
            return place
    return None


def _is_asked(deal, asked):
    return (
        not deal.is_deleted
        and asked.pipeline in {"", deal.pipeline}
        and asked.owner in {"", deal.owner}
        and asked.team in {"", deal.team}
    )


def _settings(deal, stages):
    if deal.state == DEAL_STATE_WON:
        return 10_000, FORECAST_CATEGORY_CLOSED
    if deal.state != DEAL_STATE_OPEN:
        return 0, FORECAST_CATEGORY_OMITTED
    likely_bp, category = stages.get(deal.stage, (0, FORECAST_CATEGORY_PIPELINE))
    return likely_bp if deal.likely_bp is None else deal.likely_bp, deal.category or category


def _converted(deal, reading, day):
    """The amount in the currency of the reading; all of these have two digits but the yen."""
    if deal.currency == reading.currency:
        return deal.amount_minor
    rate = Fraction(reading.rates.on(deal.currency, reading.currency, day))
    shift = Fraction(100) if deal.currency == "JPY" else Fraction(1)
    return floor(deal.amount_minor * rate * shift + Fraction(1, 2))
