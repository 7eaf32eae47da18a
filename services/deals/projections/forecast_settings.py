"""What a moment knew of stages and of currencies, as a forecast needs it: arrays for SQL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from services.deals.exchange import Rates, UnknownRate, day_of
from services.deals.pipeline import stage_name
from services.deals.projections.exchange_rates import load_rates
from services.deals.projections.pipelines import load_pipelines
from services.kernel.errors import NotFound
from services.kernel.iso4217 import EXPONENTS
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from asyncpg import Pool

    from services.deals.pipeline import Pipeline
    from services.deals.projections.forecasts import Asked
    from services.kernel.log.sql import Tx

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """A moment at which deals are counted, and what it knew.

    An open deal counts at the rate of `today`, a closed one at that of its close, which lies
    between `first_day` and `last_day`.
    """

    moment: datetime
    currency: str
    rates: Rates
    pipelines: Mapping[str, Pipeline]
    first_day: date
    last_day: date

    @property
    def today(self) -> date:
        """The day of the moment."""
        return day_of(self.moment)


async def read_settings(
    connection: Tx,
    asked: Asked,
    moment: datetime | None,
    now: datetime,
    *,
    is_told_late: bool,
) -> Reading:
    """What a moment knew of stages and currencies; None is now."""
    read_time = now if moment is None else moment
    first_day, today = day_of(asked.periods[0].begin_time), day_of(read_time)
    rates = await load_rates(
        connection,
        asked.workspace,
        asked.currency,
        read_time,
        first_date=min(first_day, today),
    )
    pipelines = await read_pipelines(connection, asked.workspace, moment, is_told_late=is_told_late)
    last_day = min(day_of(asked.periods[-1].end_time), today)
    return Reading(read_time, asked.currency, rates, pipelines, first_day, last_day)


async def read_pipelines(
    connection: Tx | Pool, workspace: str, moment: datetime | None, *, is_told_late: bool
) -> Mapping[str, Pipeline]:
    """The pipelines that a moment knew; None is now.

    What is told late may have happened in a stage that was added later: that is as it is now.
    """
    pipelines = await load_pipelines(connection, workspace, moment)
    if is_told_late:
        return with_later(pipelines, await load_pipelines(connection, workspace))
    return pipelines


def existing_pipeline(name: str, pipelines: Mapping[str, Pipeline]) -> None:
    """Refuses a pipeline that there is not, or was not; without a name it is all of them."""
    if name and name.removeprefix("pipelines/") not in pipelines:
        raise NotFound(name)


def with_later(then: Mapping[str, Pipeline], now: Mapping[str, Pipeline]) -> dict[str, Pipeline]:
    """Pipelines as they were, with the stages that were added since."""
    merged = dict(now)
    for pipeline_id, pipeline in then.items():
        known = {stage.stage_id for stage in pipeline.stages}
        later = [stage for stage in now[pipeline_id].stages if stage.stage_id not in known]
        merged[pipeline_id] = replace(pipeline, stages=(*pipeline.stages, *later))
    return merged


def stage_columns(readings: Sequence[Reading]) -> list[list[object]]:
    """The stages of each reading: its number, name, probability and category."""
    rows = [
        (number, stage_name(pipeline_id, stage.stage_id), stage.likely_bp, stage.category)
        for number, reading in enumerate(readings)
        for pipeline_id, pipeline in reading.pipelines.items()
        for stage in pipeline.stages
    ]
    return columns(rows) or [[], [], [], []]


def rate_columns(readings: Sequence[Reading], closed_in: Collection[str]) -> list[list[object]]:
    """What amounts are multiplied with at each reading: its number, currency, day and factor.

    `closed_in` are the currencies of closed deals: of all others only today counts. So who has
    rates of a hundred currencies pays for those in use.
    """
    rows = [
        (number, currency, day, factor)
        for number, reading in enumerate(readings)
        for currency, day, factor in _factors(reading, closed_in)
    ]
    return columns(rows) or [[], [], [], []]


def _factors(reading: Reading, closed_in: Collection[str]) -> Iterator[tuple[str, date, Decimal]]:
    for currency in _known(reading):
        shift = EXPONENTS[reading.currency] - EXPONENTS[currency]
        for day in _days(reading) if currency in closed_in else [reading.today]:
            try:
                rate = reading.rates.on(currency, reading.currency, day)
            except UnknownRate:
                continue
            yield currency, day, rate.scaleb(shift)


def _known(reading: Reading) -> list[str]:
    """The currencies that have a rate: who has none today had none before."""
    known = []
    for currency in EXPONENTS:
        if currency == reading.currency:
            continue
        try:
            reading.rates.on(currency, reading.currency, reading.today)
        except UnknownRate:
            continue
        known.append(currency)
    return known


def _days(reading: Reading) -> list[date]:
    """The days that count: of the periods those that have come, and today."""
    count = (reading.last_day - reading.first_day).days + 1
    days = [reading.first_day + _DAY * number for number in range(count)]
    return days if reading.today in days else [*days, reading.today]
