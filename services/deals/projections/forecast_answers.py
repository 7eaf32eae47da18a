"""Forecasts as the API shows them: what deals come to, beside what it is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import forecasts_pb2 as pb
from services.deals.exchange import ConvertedTooLarge, Unconvertible, day_of
from services.deals.forecast import CATEGORIES, Forecast, Tally, forecast_error
from services.deals.projections.forecast_settings import (
    Reading,
    existing_pipeline,
    read_settings,
)
from services.deals.projections.forecast_targets import Targets, read_targets
from services.deals.projections.forecasts import (
    ERRORS_MAX,
    GROUPS_MAX,
    UNDATED,
    Asked,
    Counted,
    count_deals,
    source_of,
)
from services.deals.sums import sum_told
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rapport.deals.v1.values_pb2 import ForecastCategory
    from services.deals.forecast_periods import Period
    from services.kernel.log.sql import Tx

    Tallies = Mapping[ForecastCategory.ValueType, Tally]

_UNKNOWN = pb.ForecastErrorReason.FORECAST_ERROR_REASON_RATE_UNKNOWN
_TOO_LARGE = pb.ForecastErrorReason.FORECAST_ERROR_REASON_AMOUNT_TOO_LARGE


async def get_forecast(
    connection: Tx,
    asked: Asked,
    moment: datetime | None,
    now: datetime,
    basis: pb.ForecastTimeBasis.ValueType,
) -> pb.GetForecastResponse:
    """Returns what deals come to, by group and period, now or at a moment."""
    source = source_of(basis, moment)
    reading = await read_settings(connection, asked, moment, now, is_told_late=source.is_told_late)
    existing_pipeline(asked.pipeline, reading.pipelines)
    [counted], error_count = await count_deals(connection, asked, source, [reading])
    targets = await read_targets(connection, asked, set(counted.groups) - {""}, moment)
    shown = _Shown(asked, reading, counted, targets)
    names = shown.names()
    groups = [shown.group(name) for name in names[:GROUPS_MAX]]
    errors, left_out = shown.errors(error_count)
    return pb.GetForecastResponse(
        groups=groups,
        is_complete=len(names) <= GROUPS_MAX,
        errors=errors,
        errors_left_out=left_out,
        currency=asked.currency,
    )


async def get_accuracy(
    connection: Tx,
    asked: Asked,
    made_at: Sequence[datetime],
    moment: datetime | None,
    now: datetime,
) -> pb.GetForecastAccuracyResponse:
    """Returns forecasts of one period as they were made, beside what came true by a moment."""
    [period] = asked.periods
    source = source_of(pb.ForecastTimeBasis.FORECAST_TIME_BASIS_RECORD, moment)
    reading = await read_settings(connection, asked, moment, now, is_told_late=source.is_told_late)
    existing_pipeline(asked.pipeline, reading.pipelines)
    [counted], error_count = await count_deals(connection, asked, source, [reading])
    actual = _Shown(asked, reading, counted, Targets())
    closed_minor = actual.forecast("", 1, None).closed_minor
    is_over = period.end_time <= reading.moment
    actual_minor = closed_minor if is_over else 0
    then = await _then(connection, asked, made_at)
    made = [shown.made(actual_minor) for shown in then]
    actual.wrong += [error for shown in then for error in shown.wrong]
    errors, left_out = actual.errors(error_count)
    return pb.GetForecastAccuracyResponse(
        actual=sum_told(closed_minor, asked.currency),
        is_over=is_over,
        made=made,
        errors=errors,
        errors_left_out=left_out,
    )


async def _then(connection: Tx, asked: Asked, made_at: Sequence[datetime]) -> list[_Shown]:
    """What each moment saw."""
    if not made_at:
        return []
    source = source_of(pb.ForecastTimeBasis.FORECAST_TIME_BASIS_RECORD, made_at[0])
    readings = [
        await read_settings(connection, asked, time, time, is_told_late=source.is_told_late)
        for time in made_at
    ]
    counted, _ = await count_deals(connection, asked, source, readings)
    return [
        _Shown(asked, reading, then, await read_targets(connection, asked, set(), reading.moment))
        for reading, then in zip(readings, counted, strict=True)
    ]


@dataclass(slots=True)
class _Shown:
    """What one moment's counts come to, told in one currency."""

    asked: Asked
    reading: Reading
    counted: Counted
    targets: Targets
    wrong: list[pb.ForecastError] = field(default_factory=list)

    def names(self) -> list[str]:
        """The names of all groups, or of more than can be shown."""
        if self.asked.group_by <= pb.ForecastGroupBy.FORECAST_GROUP_BY_NONE:
            return [""]
        return sorted({*self.counted.groups, *self.targets.groups})

    def errors(self, error_count: int) -> tuple[list[pb.ForecastError], int]:
        """What is in no sum, quotas first, and how many more there are."""
        found = self.wrong + [
            pb.ForecastError(
                reason=error.reason,
                period=self.asked.periods[error.place - 1].name if error.place else "",
                from_currency=error.currency,
                to_currency=self.asked.currency,
                date=error.day.isoformat(),
                deal_count=error.deal_count,
                amount=sum_told(error.amount_minor, error.currency),
            )
            for error in self.counted.errors
        ]
        count = len(self.wrong) + error_count
        return found[:ERRORS_MAX], count - len(found[:ERRORS_MAX])

    def forecast(self, group: str, place: int, quota_minor: int | None) -> Forecast:
        """What the deals of a group and a period come to."""
        return Forecast(self.counted.groups.get(group, {}).get(place, {}), quota_minor)

    def made(self, actual_minor: int) -> pb.ForecastMade:
        """The forecast of the first period as it was made, beside what came true."""
        forecast, currency = self.forecast("", 1, None), self.asked.currency
        made = pb.ForecastMade(
            made_at=timestamp_of(self.reading.moment),
            expected=sum_told(forecast.expected_minor, currency),
            expected_error=forecast_error(forecast.expected_minor, actual_minor),
            commit=sum_told(forecast.commit_minor, currency),
            commit_error=forecast_error(forecast.commit_minor, actual_minor),
            left_out_count=sum(tally.left_out_count for tally in forecast.tallies.values()),
        )
        [period] = self.asked.periods
        submission = self.targets.submissions.get(("", period.name))
        if submission is None:
            return made
        made.submission.CopyFrom(submission)
        if submission.call.HasField("commit"):
            submitted = self._said(submission.call.commit, period, submission.name)
            if submitted is not None:
                made.submitted.CopyFrom(sum_told(submitted, currency))
                made.submitted_error = forecast_error(submitted, actual_minor)
        return made

    def group(self, name: str) -> pb.ForecastGroup:
        undated = self.counted.groups.get(name, {}).get(UNDATED, {})
        return pb.ForecastGroup(
            group=name,
            forecasts=[
                self._period(name, place, period)
                for place, period in enumerate(self.asked.periods, start=1)
            ],
            undated=self._tallies(undated),
        )

    def _period(self, group: str, place: int, period: Period) -> pb.Forecast:
        currency = self.asked.currency
        forecast = self.forecast(group, place, self._quota_minor(group, period))
        shown = pb.Forecast(
            period=period.name,
            tallies=self._tallies(forecast.tallies),
            closed=sum_told(forecast.closed_minor, currency),
            commit=sum_told(forecast.commit_minor, currency),
            most_likely=sum_told(forecast.most_likely_minor, currency),
            best_case=sum_told(forecast.best_case_minor, currency),
            pipeline=sum_told(forecast.pipeline_minor, currency),
            weighted=sum_told(forecast.weighted_minor, currency),
            expected=sum_told(forecast.expected_minor, currency),
            coverage=forecast.coverage,
            attainment=forecast.attainment,
            submission=self.targets.submissions.get((group, period.name)),
        )
        if forecast.quota_minor is not None:
            shown.quota.CopyFrom(sum_told(forecast.quota_minor, currency))
        return shown

    def _tallies(self, tallies: Tallies) -> list[pb.ForecastTally]:
        currency = self.asked.currency
        return [
            pb.ForecastTally(
                category=category,
                deal_count=tally.deal_count,
                amount=sum_told(tally.amount_minor, currency),
                unpriced_count=tally.unpriced_count,
                left_out_count=tally.left_out_count,
            )
            for category in CATEGORIES
            if (tally := tallies.get(category)) is not None
        ]

    def _quota_minor(self, group: str, period: Period) -> int | None:
        quota = self.targets.quotas.get((group, period.name))
        return None if quota is None else self._said(quota.amount, period, quota.name)

    def _said(self, amount: Money, period: Period, resource: str) -> int | None:
        """What was said of a period, by the rate of the day it begins, or of today before it does.

        None when no rate tells: then it is among the errors.
        """
        day = min(day_of(period.begin_time), self.reading.today)
        try:
            return self.reading.rates.convert(
                amount.amount_minor, amount.currency, self.asked.currency, day
            )
        except Unconvertible as error:
            self.wrong.append(
                pb.ForecastError(
                    reason=_TOO_LARGE if isinstance(error, ConvertedTooLarge) else _UNKNOWN,
                    period=period.name,
                    from_currency=amount.currency,
                    to_currency=self.asked.currency,
                    date=day.isoformat(),
                    amount=amount,
                    resource=resource,
                )
            )
            return None
