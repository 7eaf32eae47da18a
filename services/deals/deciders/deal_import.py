"""The rules of an import: a deal from its opening to where it stands, told in one go.

Its facts are decided one after the other by the rules of a deal, each at the time it occurred. What
a forecast is made of can be changed while a deal is open only, but other CRMs change it afterwards,
too: such a change is told before the ending, as it could have been, and occurs when it did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_OPEN,
    DEAL_STATE_UNSPECIFIED,
    DealDetails,
    LoseDealRequest,
    MoveDealStageRequest,
    MoveDealToPipelineRequest,
    OpenDealRequest,
    ReopenDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN, STAGE_KIND_WON
from services.deals.deal import State, evolve
from services.deals.deciders import deal
from services.deals.deciders.deal_changes import known_time, meant
from services.deals.pipeline import split_stage
from services.kernel.command.decider import Decider
from services.kernel.errors import Aborted, InvalidArgument, RapportError
from services.kernel.log.recorded import utc

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from rapport.deals.v1.imports_pb2 import ImportedDeal, ImportedDealChange
    from rapport.deals.v1.values_pb2 import StageKind
    from services.deals.pipeline import Pipeline

WORTH: Final = frozenset(
    {
        "amount",
        "expected_close_time",
        "forecast_category_override",
        "probability_bp_override",
        "line_items",
    }
)
"""The fields that a forecast is made of."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong with an imported deal."""

    reason: str
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class Told:
    """What an imported deal leads to: facts, and the state after each; or what is wrong with it."""

    facts: tuple[Message, ...] = ()
    states: tuple[State, ...] = ()
    wrong: tuple[Wrong, ...] = ()


@dataclass(frozen=True, slots=True)
class _Step:
    """One half of a change: its details, or its stage."""

    place: int
    is_move: bool


@dataclass(slots=True)
class _Story:
    """What was told so far."""

    now: datetime
    pipelines: Mapping[str, Pipeline]
    state: State = field(default_factory=State)
    facts: list[Message] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def go_on(self, commands: Iterable[deal.Command]) -> None:
        for command in commands:
            for fact in deal.decide(self.now, self.pipelines, command, self.state):
                self.state = evolve(self.state, fact)
                self.facts.append(fact)
                self.states.append(self.state)


def telling(
    now: datetime, pipelines: Mapping[str, Pipeline], imported: ImportedDeal
) -> Generator[None, None, Told]:
    """Returns the facts that an imported deal leads to, or what is wrong with it.

    Step by step: a thousand changes of hundreds of lines take seconds.
    """
    name = f"deals/{imported.deal_id}"
    story = _Story(now, pipelines)
    where: Callable[[str], str] = _of_opening
    try:
        story.go_on([_opening(imported), *_lines(name, imported)])
        for step in _steps(pipelines, imported.changes):
            yield
            change = imported.changes[step.place]
            where = _of_change(step.place)
            if step.is_move:
                story.go_on(_move(pipelines, name, change, story.state))
            else:
                story.go_on([_update(name, change)])
    except RapportError as error:
        return Told(wrong=told_wrong(error, where))
    return Told(tuple(story.facts), tuple(story.states))


def told_wrong(error: RapportError, where: Callable[[str], str] = str) -> tuple[Wrong, ...]:
    """What an error says is wrong, field by field; `where` leads from its fields to ours."""
    if not error.violations:
        return (Wrong(str(error.reason), where(""), error.message),)
    return tuple(
        Wrong(str(error.reason), where(violation.field), violation.description)
        for violation in error.violations
    )


def _opening(imported: ImportedDeal) -> OpenDealRequest:
    details = imported.details
    if not details.display_name:
        raise InvalidArgument.of("display_name", "a deal needs a name")
    opening = OpenDealRequest(
        deal_id=imported.deal_id,
        display_name=details.display_name,
        contacts=details.contacts,
        company=details.company,
        owner=details.owner,
        team=details.team,
        stage=imported.stage,
        next_step=details.next_step,
        custom_fields=details.custom_fields,
        forecast_category_override=details.forecast_category_override,
        occur_time=imported.open_time,
    )
    if details.HasField("amount"):
        opening.amount.CopyFrom(details.amount)
    if details.HasField("expected_close_time"):
        opening.expected_close_time.CopyFrom(details.expected_close_time)
    if details.HasField("probability_bp_override"):
        opening.probability_bp_override = details.probability_bp_override
    return opening


def _lines(name: str, imported: ImportedDeal) -> Iterator[UpdateDealRequest]:
    """What gives a deal the lines that it was opened with, which an opening does not tell."""
    if imported.details.HasField("line_items"):
        lines = DealDetails(line_items=imported.details.line_items)
        yield UpdateDealRequest(name=name, deal=lines, occur_time=imported.open_time)


def _steps(
    pipelines: Mapping[str, Pipeline], changes: Sequence[ImportedDealChange]
) -> Iterator[_Step]:
    """The halves of all changes in the order in which they are told.

    That is the order in which they occurred, details before the stage, but for two: a deal is
    opened again first; and what it was worth is told before the ending that came before it, with
    all details told since.
    """
    steps: list[_Step] = []
    ending: int | None = None
    for place in _in_order(changes):
        change = changes[place]
        is_moved = bool(change.stage)
        is_open = is_moved and _kind(pipelines, change.stage) == STAGE_KIND_OPEN
        if is_open and ending is not None:
            steps.append(_Step(place, is_move=True))
            is_moved, ending = False, None
        if change.HasField("details"):
            steps.append(_Step(place, is_move=False))
            if ending is not None and _is_worth(change):
                since = steps[ending:]
                details = [step for step in since if not step.is_move]
                steps[ending:] = [*details, *(step for step in since if step.is_move)]
                ending += len(details)
        if is_moved:
            steps.append(_Step(place, is_move=True))
            if ending is None and not is_open:
                ending = len(steps) - 1
        if not change.stage and not change.HasField("details"):
            raise InvalidArgument.of(f"changes[{place}]", "says nothing that changed")
    return iter(steps)


def _in_order(changes: Sequence[ImportedDealChange]) -> list[int]:
    """The places of changes in the order of their times, those of one moment as they were given."""
    moments = [
        utc(known_time(f"changes[{place}].occur_time", change.occur_time))
        for place, change in enumerate(changes)
    ]
    return sorted(range(len(changes)), key=moments.__getitem__)


def _is_worth(change: ImportedDealChange) -> bool:
    """Whether it changes what a forecast is made of; the rules refuse a mask that is none."""
    try:
        return bool(WORTH & meant(_update("", change)))
    except InvalidArgument:
        return False


def _update(name: str, change: ImportedDealChange) -> UpdateDealRequest:
    return UpdateDealRequest(
        name=name,
        deal=change.details,
        update_mask=change.update_mask,
        occur_time=change.occur_time,
    )


def _move(
    pipelines: Mapping[str, Pipeline], name: str, change: ImportedDealChange, state: State
) -> Iterator[deal.Command]:
    """What brings a deal to another stage; one that ends anew is opened again just before."""
    stage, occur_time = change.stage, change.occur_time
    kind = _kind(pipelines, stage)
    is_open = state.state == DEAL_STATE_OPEN
    if kind == STAGE_KIND_OPEN:
        moving = (
            ReopenDealRequest
            if not is_open
            else MoveDealStageRequest
            if stage.startswith(f"{state.pipeline}/")
            else MoveDealToPipelineRequest
        )
        yield moving(name=name, stage=stage, occur_time=occur_time)
        return
    if stage == state.stage:
        return
    if not is_open:
        yield ReopenDealRequest(name=name, occur_time=occur_time)
    if kind == STAGE_KIND_WON:
        yield WinDealRequest(name=name, stage=stage, occur_time=occur_time)
        return
    if not change.lost_reason:
        raise InvalidArgument.of("lost_reason", "says why it was lost")
    yield LoseDealRequest(
        name=name,
        reason=change.lost_reason,
        note=change.lost_note,
        stage=stage,
        occur_time=occur_time,
    )


def _kind(pipelines: Mapping[str, Pipeline], name: str) -> StageKind.ValueType:
    """What it means to be in a stage; the rules refuse one that nobody knows."""
    ids = split_stage(name)
    pipeline = pipelines.get(ids[0]) if ids else None
    stage = pipeline.stage(ids[1]) if ids and pipeline else None
    return stage.kind if stage else STAGE_KIND_OPEN


def _of_opening(field: str) -> str:
    """Where a field of `OpenDealRequest` stands in an imported deal."""
    if field == "occur_time":
        return "open_time"
    is_own = field in {"", "deal_id", "stage"} or field.startswith("changes[")
    return field if is_own else f"details.{field.removeprefix('deal.')}"


def _of_change(place: int) -> Callable[[str], str]:
    """Where the fields of the commands of a change stand."""

    def where(field: str) -> str:
        own = f"details{field.removeprefix('deal')}" if field.startswith("deal.") else field
        return f"changes[{place}].{own}".rstrip(".")

    return where


def recorder(told: Mapping[str, Told]) -> Decider[ImportedDeal, State]:
    """Records what was told of deals, by id, if they are still not there."""

    def decide(imported: ImportedDeal, state: State) -> Sequence[Message]:
        if state.state != DEAL_STATE_UNSPECIFIED:
            raise Aborted.conflict(f"deals/{imported.deal_id} was opened meanwhile; try again")
        return told[imported.deal_id].facts

    return Decider(
        category=deal.DECIDER.category,
        collection=deal.DECIDER.collection,
        initial=deal.DECIDER.initial,
        decide=decide,
        evolve=evolve,
        shape=deal.DECIDER.shape,
    )
