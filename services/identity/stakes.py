"""Stakes: what deals are to those they are made with, and the traits that makes. Pure.

A deal counts once, for whoever is its primary contact, as it does in a list of their deals. What it
was to an earlier one is kept, too, but only to tell since when it is so no longer.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum

from services.identity.traits import (
    DEAL_STAGES,
    LAST_WON_TIME,
    LOST_DEAL_COUNT,
    OPEN_DEAL_COUNT,
    PRODUCTS_OWNED,
    WON_DEAL_COUNT,
    Said,
    lifetime_value,
)
from services.identity.words import Kind, Topic, Word, in_time

_COMPUTED_KEY = b""


class Standing(Enum):
    """What a deal counts as for its contact, by the trait that counts it."""

    NOTHING = ""
    OPEN = OPEN_DEAL_COUNT
    WON = WON_DEAL_COUNT
    LOST = LOST_DEAL_COUNT


COUNTED = (Standing.OPEN, Standing.WON, Standing.LOST)

_STANDINGS = {
    Kind.OPENED: Standing.OPEN,
    Kind.WON: Standing.WON,
    Kind.LOST: Standing.LOST,
    Kind.REOPENED: Standing.OPEN,
}


@dataclass(frozen=True, slots=True)
class Sale:
    """What was won, and when."""

    time: datetime
    amount_minor: int
    currency: str
    products: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stake:
    """What a deal is to somebody who is its primary contact, or was.

    `begin_time` is when it first was theirs, `turn_times` when it last began or ceased to count
    as something, `sale` what was last won of it. Its `stage` is empty while it counts as nothing,
    `stage_time` when it last became another.
    """

    begin_time: datetime
    stage_time: datetime
    stage: str = ""
    standing: Standing = Standing.NOTHING
    turn_times: Mapping[Standing, datetime] = field(default_factory=dict)
    sale: Sale | None = None

    def turned(self, deal: _Deal, moment: datetime) -> Stake:
        """Returns what it is from a moment on."""
        standing = deal.standing
        stage = "" if standing is Standing.NOTHING else deal.stage
        turned = self
        if stage != self.stage:
            turned = replace(turned, stage=stage, stage_time=moment)
        if standing is Standing.WON:
            turned = replace(turned, sale=deal.sale)
        if standing is self.standing:
            return turned
        return replace(
            turned,
            standing=standing,
            turn_times={**self.turn_times, self.standing: moment, standing: moment},
        )


@dataclass(slots=True)
class _Deal:
    """A deal as its words leave it."""

    node: str = ""
    stage: str = ""
    stage_standing: Standing = Standing.NOTHING
    is_deleted: bool = False
    sale: Sale | None = None

    @property
    def standing(self) -> Standing:
        """What it counts as."""
        return Standing.NOTHING if self.is_deleted else self.stage_standing

    def hear(self, word: Word, moment: datetime) -> None:
        """Goes on to what it is after a word."""
        if Topic.CONTACT in word.topics:
            self.node = word.node
        if Topic.DELETION in word.topics:
            self.is_deleted = word.kind is Kind.DELETED
        self.stage = word.stage or self.stage
        self.stage_standing = _STANDINGS.get(word.kind, self.stage_standing)
        if word.kind is Kind.WON:
            self.sale = Sale(moment, word.amount_minor, word.currency, word.products)


def stakes(words: Iterable[Word]) -> dict[str, Stake]:
    """Returns what one deal is to each who is or was its primary contact, by their node."""
    found: dict[str, Stake] = {}
    deal = _Deal()
    for moment, word in in_time(words):
        before = deal.node
        deal.hear(word, moment)
        if before and before != deal.node:
            found[before] = found[before].turned(_Deal(), moment)
        if deal.node:
            stake = found.get(deal.node) or Stake(begin_time=moment, stage_time=moment)
            found[deal.node] = stake.turned(deal, moment)
    return found


def computed(owned: Sequence[Stake]) -> dict[str, Said]:
    """Returns the traits that deals make, each with when it last became other than before.

    Who never was the contact of a deal has none of them; for who was, counts begin with 0.
    """
    if not owned:
        return {}
    begin_time = min(stake.begin_time for stake in owned)
    found = {}
    for standing in COUNTED:
        count = sum(stake.standing is standing for stake in owned)
        turns = [moment for stake in owned if (moment := stake.turn_times.get(standing))]
        found[standing.value] = _said(str(count), max(turns, default=begin_time))
    stages = sorted({stake.stage for stake in owned if stake.stage})
    found[DEAL_STAGES] = _said(_list(stages), max(stake.stage_time for stake in owned))
    return found | _sold([stake for stake in owned if stake.sale is not None])


def _sold(sold: Sequence[Stake]) -> dict[str, Said]:
    """Returns the traits of what was won; what is no longer so has no value."""
    found: dict[str, Said] = {}
    by_currency: dict[str, list[Stake]] = defaultdict(list)
    for stake in sold:
        assert stake.sale is not None  # that is how they were chosen
        if stake.sale.currency:
            by_currency[stake.sale.currency].append(stake)
    for currency, stakes_in in sorted(by_currency.items()):
        amounts = [sale.amount_minor for sale in _won(stakes_in)]
        value = str(sum(amounts)) if amounts else None
        found[lifetime_value(currency)] = _said(value, _turn_time(stakes_in))
    delivering = [stake for stake in sold if stake.sale and stake.sale.products]
    if delivering:
        products = sorted({name for sale in _won(delivering) for name in sale.products})
        found[PRODUCTS_OWNED] = _said(_list(products), _turn_time(delivering))
    if sold:
        last = max((sale.time for sale in _won(sold)), default=None)
        found[LAST_WON_TIME] = _said(None if last is None else _moment_text(last), _turn_time(sold))
    return found


def _won(sold: Iterable[Stake]) -> list[Sale]:
    """Returns the sales that still are."""
    return [stake.sale for stake in sold if stake.sale and stake.standing is Standing.WON]


def _turn_time(sold: Iterable[Stake]) -> datetime:
    """Returns when one of them last began or ceased to count as won."""
    return max(stake.turn_times[Standing.WON] for stake in sold)


def _list(names: Sequence[str]) -> str | None:
    """Returns names as JSON; none are no value."""
    return json.dumps(names, ensure_ascii=False, separators=(",", ":")) if names else None


def _said(value: str | None, moment: datetime) -> Said:
    return Said(value, moment, _COMPUTED_KEY)


def _moment_text(moment: datetime) -> str:
    """Returns a moment as JSON; always as long, so that texts compare as the moments do."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f'"{text}Z"'
