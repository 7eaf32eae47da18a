"""A history for a case that has none: seeded, the same in every run, and declared. Pure.

Cases open over 2024, on working days, and pass the stages of `pipelines/sales`. What is won passes
all of them; what is lost ends wherever it is, and takes longer to end. Some amounts change on the
way, some closes are put off.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Final

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.imports_pb2 import ImportedDeal, ImportedDealChange
from rapport.deals.v1.service_pb2 import DealDetails
from services.kernel.log.recorded import timestamp_of

SEED: Final = "slipway"
YEAR: Final = datetime(2024, 1, 1, 8, tzinfo=UTC)
OPEN_STAGES: Final = tuple(
    f"pipelines/sales/stages/{stage}" for stage in ("qualification", "proposal", "negotiation")
)
WON: Final = "pipelines/sales/stages/won"
LOST: Final = "pipelines/sales/stages/lost"
LOST_REASON: Final = "not recorded in the source"

_DAYS: Final = 365
_DAYS_IN_STAGE: Final = {WON: (7, 40), LOST: (7, 60)}
_STAGES_LOST: Final = (1, 1, 2, 2, 3)
_HUNDREDS: Final = (20, 30, 45, 60, 90, 150, 240, 400, 900)
_SHARE_REPRICED: Final = 0.3
_SATURDAY: Final = 5


def made_up(deal: ImportedDeal, number: int, *, is_won: bool) -> None:
    """Gives a case an opening, its way through the stages, amounts and an end."""
    chance = random.Random(f"{SEED}/{number}")
    end = WON if is_won else LOST
    stages = OPEN_STAGES if is_won else OPEN_STAGES[: chance.choice(_STAGES_LOST)]
    moment = _working(chance, YEAR + timedelta(days=chance.randrange(_DAYS)))
    expected = moment + timedelta(days=chance.randrange(60, 120))
    hundreds = chance.choice(_HUNDREDS)
    deal.open_time.CopyFrom(timestamp_of(moment))
    deal.stage = stages[0]
    deal.details.amount.CopyFrom(_euros(hundreds))
    deal.details.expected_close_time.CopyFrom(timestamp_of(expected))
    for stage in (*stages[1:], end):
        days = timedelta(days=chance.randint(*_DAYS_IN_STAGE[end]))
        half, moment = _working(chance, moment + days / 2), _working(chance, moment + days)
        if chance.random() < _SHARE_REPRICED:
            hundreds = max(10, round(hundreds * chance.choice((0.8, 0.9, 1.1, 1.25))))
            _change(deal, half, DealDetails(amount=_euros(hundreds)))
        if moment > expected:
            expected = moment + timedelta(days=chance.randrange(14, 45))
            later = DealDetails(expected_close_time=timestamp_of(expected))
            _change(deal, half + timedelta(minutes=5), later)
        change = ImportedDealChange(occur_time=timestamp_of(moment), stage=stage)
        if stage == LOST:
            change.lost_reason = LOST_REASON
        deal.changes.append(change)


def _change(deal: ImportedDeal, moment: datetime, details: DealDetails) -> None:
    change = ImportedDealChange(occur_time=timestamp_of(moment), details=details)
    change.update_mask.paths.extend(field.name for field, _ in details.ListFields())
    deal.changes.append(change)


def _working(chance: random.Random, moment: datetime) -> datetime:
    """Some minute of office hours, on that day or, when nobody works, the next one."""
    day = moment.replace(hour=8, minute=0)
    while day.weekday() >= _SATURDAY:
        day += timedelta(days=1)
    return day + timedelta(minutes=chance.randrange(9 * 60))


def _euros(hundreds: int) -> Money:
    return Money(amount_minor=hundreds * 100 * 100, currency="EUR")
