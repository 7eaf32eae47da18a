"""The forecast: what deals of a period come to, by how sure they are. Pure, in whole minor units.

A deal that is open counts in the period it is expected to close in, one that is won or lost in the
period it was closed in. What is won is CLOSED, what is lost is OMITTED; an open deal has the
category that somebody gave it, else that of its stage.

Rounding happens at two places only, half up. An amount in another currency is converted deal by
deal, so sums of groups add up to the sum of all. A weighted amount is the exact sum of amounts
times probabilities, divided by 10 000 once, at the end: those of groups may differ from that of
all by a minor unit each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_BEST_CASE,
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_COMMIT,
    FORECAST_CATEGORY_MOST_LIKELY,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
    ForecastCategory,
)
from services.deals.exchange import half_up
from services.deals.pipeline import CERTAIN_BP

if TYPE_CHECKING:
    from collections.abc import Mapping

CATEGORIES: Final = (
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
    FORECAST_CATEGORY_BEST_CASE,
    FORECAST_CATEGORY_MOST_LIKELY,
    FORECAST_CATEGORY_COMMIT,
    FORECAST_CATEGORY_CLOSED,
)
"""From the least sure to what is won."""

COUNTING: Final = CATEGORIES[1:-1]
"""Those of open deals that are in the pipeline."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What some deals come to in one currency.

    Of `deal_count` some have no amount, and some an amount that no rate tells in the currency:
    they count nothing below. `likely` is the sum of amounts times probabilities in hundredths of a
    percent, not yet divided.
    """

    deal_count: int = 0
    unpriced_count: int = 0
    left_out_count: int = 0
    amount_minor: int = 0
    likely: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the deals of one group and one period come to, by category, beside a quota if any."""

    tallies: Mapping[ForecastCategory.ValueType, Tally] = field(default_factory=dict)
    quota_minor: int | None = None

    def tally(self, category: ForecastCategory.ValueType) -> Tally:
        """What the deals of one category come to."""
        return self.tallies.get(category, Tally())

    @property
    def closed_minor(self) -> int:
        """Won in the period."""
        return self._sum(FORECAST_CATEGORY_CLOSED)

    @property
    def commit_minor(self) -> int:
        """Won or promised: CLOSED and COMMIT."""
        return self.closed_minor + self._sum(FORECAST_CATEGORY_COMMIT)

    @property
    def most_likely_minor(self) -> int:
        """All of that, and what is more likely than not."""
        return self.commit_minor + self._sum(FORECAST_CATEGORY_MOST_LIKELY)

    @property
    def best_case_minor(self) -> int:
        """All of that, and what closes if all goes well."""
        return self.most_likely_minor + self._sum(FORECAST_CATEGORY_BEST_CASE)

    @property
    def pipeline_minor(self) -> int:
        """All that is open and not omitted."""
        return self._sum(*COUNTING)

    @property
    def weighted_minor(self) -> int:
        """All that is open and not omitted, each as far as it is likely."""
        return half_up(sum(self.tally(category).likely for category in COUNTING), CERTAIN_BP)

    @property
    def expected_minor(self) -> int:
        """Won, and of the rest what is likely."""
        return self.closed_minor + self.weighted_minor

    @property
    def coverage(self) -> str:
        """Pipeline to what is missing to the quota; unset when nothing is, or there is none."""
        missing = 0 if self.quota_minor is None else self.quota_minor - self.closed_minor
        return ratio(self.pipeline_minor, missing) if missing > 0 else ""

    @property
    def attainment(self) -> str:
        """What was won to the quota; unset when there is none, or one of nothing."""
        return ratio(self.closed_minor, self.quota_minor) if self.quota_minor else ""

    def _sum(self, *categories: ForecastCategory.ValueType) -> int:
        return sum(self.tally(category).amount_minor for category in categories)


def forecast_error(forecast_minor: int, actual_minor: int) -> str:
    """How far a forecast was from what came true, to what came true; unset when that is nothing."""
    return ratio(abs(forecast_minor - actual_minor), actual_minor) if actual_minor else ""


def ratio(part: int, whole: int) -> str:
    """A quotient of amounts as a decimal with four digits behind the point, rounded half up."""
    units, fraction = divmod(half_up(part * 10_000, whole), 10_000)
    return f"{units}.{fraction:04}"
