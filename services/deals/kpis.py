"""What follows from counts and sums of deals: rates, averages and velocity, exactly. Pure.

The formulas are the published ones, as CRMs and sales glossaries state them; each function says
its own. Where there is nothing to divide by there is no answer, which is not zero. Everything is
reckoned in whole numbers and rounded half up once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from services.deals.exchange import half_up

BP: Final = 10_000
"""All of it, in hundredths of a percent."""

DAY_US: Final = 24 * 60 * 60 * 1_000_000


def ratio_bp(part: int, whole: int) -> int | None:
    """Part ÷ whole in hundredths of a percent; None of nothing."""
    return half_up(part * BP, whole) if whole else None


def average(total: int, count: int) -> int | None:
    """Total ÷ count; None of nothing."""
    return half_up(total, count) if count else None


def nearest(middle: float) -> int:
    """The whole number nearest to the middle of two, half up."""
    return int(middle + 0.5)


@dataclass(frozen=True, slots=True)
class Closed:
    """The deals that closed in a window, W.

    `valued_count` are those of the won whose worth is known; `cycle_count` are those of the won
    that have a cycle, and `cycle_us` is the sum of their cycles.
    """

    won_count: int = 0
    lost_count: int = 0
    won_minor: int = 0
    lost_minor: int = 0
    valued_count: int = 0
    cycle_count: int = 0
    cycle_us: int = 0

    @property
    def win_rate_bp(self) -> int | None:
        """win_rate(W) = won ÷ (won + lost), by count: lost deals stay in the denominator."""
        return ratio_bp(self.won_count, self.won_count + self.lost_count)

    @property
    def value_win_rate_bp(self) -> int | None:
        """win_rate(W) = won ÷ (won + lost), by value."""
        return ratio_bp(self.won_minor, self.won_minor + self.lost_minor)

    @property
    def average_deal_minor(self) -> int | None:
        """avg_deal = won value ÷ won count, of deals whose worth is known."""
        return average(self.won_minor, self.valued_count)

    @property
    def cycle_mean_us(self) -> int | None:
        """The mean cycle, where cycle = closed_at - cycle_start; of won deals only."""
        return average(self.cycle_us, self.cycle_count)

    def velocity_minor(self, open_count: int) -> int | None:
        """Velocity per day = open count · win rate · avg_deal ÷ mean cycle in days.

        The win rate is the one by count, and no step on the way is rounded.
        """
        if not (self.won_count and self.valued_count and self.cycle_us):
            return None
        win_rate = Fraction(self.won_count, self.won_count + self.lost_count)
        average_deal = Fraction(self.won_minor, self.valued_count)
        cycle_days = Fraction(self.cycle_us, self.cycle_count * DAY_US)
        return half_up(*(open_count * win_rate * average_deal / cycle_days).as_integer_ratio())
