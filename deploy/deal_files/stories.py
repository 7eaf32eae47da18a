"""A deal as a file tells it, moment by moment, and the import that it becomes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from deploy.deal_files.details import set_detail
from deploy.deal_files.stages import DEFAULT, Stages, kind_of, pipeline_of
from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.imports_pb2 import ImportedDeal, ImportedDealChange
from rapport.deals.v1.service_pb2 import DealDetails
from rapport.deals.v1.values_pb2 import STAGE_KIND_LOST, STAGE_KIND_OPEN
from services.deals.deal_cells import minor_of
from services.kernel.log.recorded import timestamp_of

REASON_UNKNOWN: Final = "not recorded in the source"
"""Why a deal was lost of which the file does not say it."""

T = TypeVar("T")


class BadCell(ValueError):
    """When a cell cannot be read: of which line and column it is, and what to do."""

    def __init__(self, line: int, column: str, detail: str) -> None:
        super().__init__(detail)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Telling:
    """What a file says of a deal at one moment: texts by field, those that it cleared empty."""

    line: int
    moment: datetime
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read: into which stages, in which currency and times where it says none."""

    stages: Stages
    currency: str = ""
    date_format: str = ""


def read_cell(line: int, column: str, parse: Callable[..., T], *said: Any) -> T:
    """What a cell says; raises BadCell."""
    try:
        return parse(*said)
    except ValueError as error:
        raise BadCell(line, column, str(error)) from error


def imported_deal(deal_id: str, tellings: Sequence[Telling], reading: Reading) -> ImportedDeal:
    """The import of a deal that was opened by the first telling; raises BadCell."""
    story = _Story(reading)
    opening = tellings[0]
    details, _ = story.details(opening)
    details.display_name = details.display_name or deal_id
    closed = story.moved(opening)
    deal = ImportedDeal(
        row=opening.line,
        deal_id=deal_id,
        details=details,
        stage=story.started(),
        open_time=timestamp_of(opening.moment),
    )
    if closed and reading.stages.kind(closed) != STAGE_KIND_OPEN:
        deal.changes.append(story.ended(opening, closed))
    for telling in tellings[1:]:
        details, paths = story.details(telling)
        change = ImportedDealChange(occur_time=timestamp_of(telling.moment))
        if paths:
            change.details.CopyFrom(details)
            change.update_mask.paths.extend(paths)
        stage = story.moved(telling)
        if stage:
            change.MergeFrom(story.ended(telling, stage))
        if paths or stage:
            deal.changes.append(change)
        story.explain(deal.changes)
    return deal


@dataclass(slots=True)
class _Story:
    """Where a deal stands in its telling."""

    reading: Reading
    pipeline: str = DEFAULT
    stage: str = ""
    open_stage: str = ""
    amount: str = ""
    currency: str = ""
    lost: dict[str, str] = field(default_factory=dict)

    def details(self, telling: Telling) -> tuple[DealDetails, list[str]]:
        """What a telling says that is no stage, and the paths of it."""
        details, paths = DealDetails(), []
        date_format = self.reading.date_format
        for name, text in telling.fields.items():
            path = read_cell(telling.line, name, set_detail, details, name, text, date_format)
            if path and path not in paths:
                paths.append(path)
        self.amount = telling.fields.get("amount", self.amount).strip()
        self.currency = telling.fields.get("currency", self.currency).strip()
        if {"amount", "currency"} & telling.fields.keys():
            read_cell(telling.line, "amount", self._value, details)
            paths.append("amount")
        return details, paths

    def _value(self, details: DealDetails) -> None:
        """Sets the amount, if there is one."""
        if self.amount:
            currency = (self.currency or self.reading.currency).upper()
            if not currency:
                raise ValueError("an amount needs a currency: add a column, or say CURRENCY=EUR")
            minor = minor_of(self.amount, currency)
            details.amount.CopyFrom(Money(amount_minor=minor, currency=currency))

    def started(self) -> str:
        """The open stage that it was opened in, once the first telling was read."""
        first = self.reading.stages.first(STAGE_KIND_OPEN, self.pipeline)
        self.open_stage = self.open_stage or first
        self.stage = self.stage or self.open_stage
        return self.open_stage

    def moved(self, telling: Telling) -> str:
        """The stage that a telling leads to, or nothing when it is none or the same."""
        fields, stages, before = telling.fields, self.reading.stages, self.stage
        if fields.get("pipeline"):
            said = fields["pipeline"]
            self.pipeline = read_cell(telling.line, "pipeline", stages.pipeline, said)
        stage = before if pipeline_of(before) == self.pipeline else ""
        if fields.get("stage"):
            said = fields["stage"]
            stage = read_cell(telling.line, "stage", stages.stage, said, self.pipeline)
            self.pipeline = pipeline_of(stage)
        if fields.get("state"):
            kind = read_cell(telling.line, "state", kind_of, fields["state"])
            if not stage or stages.kind(stage) != kind:
                is_known = kind == STAGE_KIND_OPEN and self.open_stage
                stage = self.open_stage if is_known else stages.first(kind, self.pipeline)
        if not stage and before:
            stage = stages.first(STAGE_KIND_OPEN, self.pipeline)
        self.stage = stage
        if stage and stages.kind(stage) == STAGE_KIND_OPEN:
            self.open_stage = stage
            self.lost = {}
        self.lost |= {
            name: text
            for name, text in fields.items()
            if name in {"lost_reason", "lost_note"} and text
        }
        return stage if stage != before else ""

    def ended(self, telling: Telling, stage: str) -> ImportedDealChange:
        """The change to another stage, with what is said of a loss."""
        change = ImportedDealChange(occur_time=timestamp_of(telling.moment), stage=stage)
        if self.reading.stages.kind(stage) == STAGE_KIND_LOST:
            change.lost_reason = self.lost.get("lost_reason", REASON_UNKNOWN)
            change.lost_note = self.lost.get("lost_note", "")
        return change

    def explain(self, changes: Sequence[ImportedDealChange]) -> None:
        """Says of the last loss what was said of it only afterwards."""
        last = next((each for each in reversed(changes) if each.stage), None)
        if last is not None and last.lost_reason:
            last.lost_reason = self.lost.get("lost_reason", REASON_UNKNOWN)
            last.lost_note = self.lost.get("lost_note", "")


def tellings_of(
    line: int, moments: Mapping[str, datetime], fields: Mapping[str, str], reading: Reading
) -> Iterable[Telling]:
    """What a row of a file of deals says: how it was opened and, if it was, closed.

    `moments` are those of its `open_time` and, if it says one, of its `close_time`.
    """
    stages = reading.stages
    about = {name: text for name, text in fields.items() if name not in _STANDING}
    stage = ""
    pipeline = read_cell(line, "pipeline", stages.pipeline, fields.get("pipeline", ""))
    if "stage" in fields:
        stage = read_cell(line, "stage", stages.stage, fields["stage"], pipeline)
    kind = stages.kind(stage) if stage else STAGE_KIND_OPEN
    if "state" in fields:
        kind = read_cell(line, "state", kind_of, fields["state"])
        if stage and stages.kind(stage) not in {STAGE_KIND_OPEN, kind}:
            raise BadCell(line, "state", f"{fields['state']!r} is no state to be in {stage} with")
    if kind == STAGE_KIND_OPEN:
        expected = fields.get("close_date")
        about |= {"expected_close_time": expected} if expected else {}
        yield Telling(line, moments["open_time"], about | {"stage": stage})
        return
    is_still = stage and stages.kind(stage) == STAGE_KIND_OPEN
    opened_in = fields.get("closed_from") or (stage if is_still else "")
    yield Telling(line, moments["open_time"], about | {"stage": opened_in})
    if "close_time" not in moments:
        raise BadCell(line, "close_time", "it is closed: say when, in a column close_time")
    said = {name: fields[name] for name in ("lost_reason", "lost_note") if name in fields}
    ending = {"stage": "" if is_still else stage, **said}
    if is_still or not stage:
        ending["stage"] = stages.first(kind, pipeline_of(stage) or pipeline)
    yield Telling(line, moments["close_time"], ending)


_STANDING: Final = {
    *("deal_id", "open_time", "close_time", "close_date", "closed_from"),
    *("stage", "state", "lost_reason", "lost_note"),
}
