"""How a deal moves: from stage to stage, to another pipeline, to its end and back.

A stage may require fields of the deals that enter it. A move may be told late, but not before an
earlier one: a deal's visits to stages follow each other in one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rapport.deals.v1.events_pb2 import (
    DealLost,
    DealMovedToPipeline,
    DealReopened,
    DealStageChanged,
    DealWon,
)
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    DealState,
    LoseDealRequest,
    MoveDealStageRequest,
    MoveDealToPipelineRequest,
    ReopenDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import (
    STAGE_KIND_LOST,
    STAGE_KIND_OPEN,
    STAGE_KIND_WON,
    StageKind,
)
from services.deals.moments import known_moment
from services.deals.pipeline import split_stage, stage_name
from services.kernel.errors import FailedPrecondition, FieldViolation, InvalidArgument
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from services.deals.deal import State
    from services.deals.pipeline import Pipeline, Stage

Command = (
    MoveDealStageRequest
    | MoveDealToPipelineRequest
    | WinDealRequest
    | LoseDealRequest
    | ReopenDealRequest
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A stage that a deal may enter."""

    pipeline_id: str
    stage: Stage

    @property
    def name(self) -> str:
        """The stage's name."""
        return stage_name(self.pipeline_id, self.stage.stage_id)

    @classmethod
    def named(
        cls, pipelines: Mapping[str, Pipeline], name: str, kind: StageKind.ValueType, own: str = ""
    ) -> Self:
        """The stage with this name; refuses one that is unknown, of another kind or archived.

        An archived pipeline is closed to all deals but those whose `own` it is.
        """
        ids = split_stage(name)
        pipeline = pipelines.get(ids[0]) if ids else None
        stage = pipeline.stage(ids[1]) if ids and pipeline else None
        if ids is None or pipeline is None or stage is None:
            raise InvalidArgument.of("stage", f"{name} is no stage of a pipeline")
        if stage.kind != kind:
            wanted = StageKind.Name(kind).removeprefix("STAGE_KIND_")
            found = StageKind.Name(stage.kind).removeprefix("STAGE_KIND_")
            raise InvalidArgument.of("stage", f"{name} is of kind {found}, not {wanted}")
        for resource, is_archived in (
            (f"pipelines/{ids[0]}", pipeline.is_archived and own != f"pipelines/{ids[0]}"),
            (name, stage.is_archived),
        ):
            if is_archived:
                raise FailedPrecondition(
                    f"{resource} is archived", resource=resource, state="ARCHIVED"
                )
        return cls(ids[0], stage)

    @classmethod
    def first(
        cls, pipelines: Mapping[str, Pipeline], pipeline_id: str, kind: StageKind.ValueType
    ) -> Self:
        """The first stage of a kind in a pipeline."""
        stage = pipelines[pipeline_id].first(kind)
        assert stage is not None  # a pipeline always has one of each kind
        return cls.named(pipelines, stage_name(pipeline_id, stage.stage_id), kind)


def decide(
    now: datetime, pipelines: Mapping[str, Pipeline], command: Command, state: State
) -> Sequence[Message]:
    """Returns the facts that follow from a move, or refuses it."""
    match command:
        case MoveDealStageRequest():
            return move(now, pipelines, command, state)
        case MoveDealToPipelineRequest():
            return move_to_pipeline(now, pipelines, command, state)
        case WinDealRequest():
            return win(now, pipelines, command, state)
        case LoseDealRequest():
            return lose(now, pipelines, command, state)
        case ReopenDealRequest():
            return reopen(now, pipelines, command, state)


def move(
    now: datetime,
    pipelines: Mapping[str, Pipeline],
    command: MoveDealStageRequest,
    state: State,
) -> Sequence[Message]:
    """A deal moves while it is open; the stage it is in already is no news."""
    placed = Placed.named(pipelines, command.stage, STAGE_KIND_OPEN, state.pipeline)
    still_open(command.name, state)
    if placed.name == state.stage:
        return []
    with_required_fields(placed, state, own_pipeline=True)
    occur_time = told_time(now, command, state.stage_time)
    return [DealStageChanged(stage=placed.name, previous_stage=state.stage, occur_time=occur_time)]


def move_to_pipeline(
    now: datetime,
    pipelines: Mapping[str, Pipeline],
    command: MoveDealToPipelineRequest,
    state: State,
) -> Sequence[Message]:
    """An open deal goes to another pipeline; the stage it is in already is no news."""
    placed = Placed.named(pipelines, command.stage, STAGE_KIND_OPEN)
    still_open(command.name, state)
    if placed.name == state.stage:
        return []
    if f"pipelines/{placed.pipeline_id}" == state.pipeline:
        raise InvalidArgument.of("stage", "is a stage of the deal's own pipeline: move its stage")
    with_required_fields(placed, state)
    occur_time = told_time(now, command, state.stage_time)
    return [
        DealMovedToPipeline(stage=placed.name, previous_stage=state.stage, occur_time=occur_time)
    ]


def win(
    now: datetime, pipelines: Mapping[str, Pipeline], command: WinDealRequest, state: State
) -> Sequence[Message]:
    """Winning twice is winning once; what was lost stays lost until it is reopened."""
    if state.state == DEAL_STATE_WON:
        return []
    still_open(command.name, state)
    placed = _ending(pipelines, command.stage, state, STAGE_KIND_WON)
    won = DealWon(
        stage=state.stage,
        amount=state.amount,
        contact=state.contact,
        closing_stage=placed.name,
        occur_time=told_time(now, command, state.stage_time),
        company=state.company,
        owner=state.owner,
        products=state.products,
        recurring=state.recurring,
        primary_quote=state.primary_quote,
    )
    return [won]


def lose(
    now: datetime, pipelines: Mapping[str, Pipeline], command: LoseDealRequest, state: State
) -> Sequence[Message]:
    """Losing twice is losing once, for the first reason; what was won stays won until reopened."""
    if state.state == DEAL_STATE_LOST:
        return []
    still_open(command.name, state)
    placed = _ending(pipelines, command.stage, state, STAGE_KIND_LOST)
    lost = DealLost(
        stage=state.stage,
        reason=command.reason,
        note=command.note,
        amount=state.amount,
        contact=state.contact,
        closing_stage=placed.name,
        occur_time=told_time(now, command, state.stage_time),
        company=state.company,
        owner=state.owner,
    )
    return [lost]


def reopen(
    now: datetime, pipelines: Mapping[str, Pipeline], command: ReopenDealRequest, state: State
) -> Sequence[Message]:
    """A closed deal goes back to the stage it was closed from, or to one that is named.

    It goes back as it is: what its stage requires by now cannot be given to it while it is closed.
    """
    if state.state == DEAL_STATE_OPEN:
        return []
    stage = command.stage or state.closed_from
    placed = Placed.named(pipelines, stage, STAGE_KIND_OPEN, state.pipeline)
    if placed.name != state.closed_from:
        with_required_fields(placed, state, own_pipeline=True)
    occur_time = told_time(now, command, state.stage_time)
    return [DealReopened(stage=placed.name, previous_stage=state.stage, occur_time=occur_time)]


def still_open(name: str, state: State) -> None:
    """Refuses what only an open deal can do, and says how it ended."""
    if state.state != DEAL_STATE_OPEN:
        ending = DealState.Name(state.state).removeprefix("DEAL_STATE_")
        raise FailedPrecondition(f"{name} is {ending.lower()}", resource=name, state=ending)


def with_required_fields(placed: Placed, state: State, *, own_pipeline: bool = False) -> None:
    """Refuses a stage that requires what the deal lacks, or that is not of its pipeline."""
    if own_pipeline and f"pipelines/{placed.pipeline_id}" != state.pipeline:
        raise InvalidArgument.of("stage", "is of another pipeline: move the deal to the pipeline")
    missing = [name for name in placed.stage.required_fields if not _has(state, name)]
    if missing:
        raise FailedPrecondition(
            f"{placed.name} requires {', '.join(missing)}",
            resource=placed.name,
            state="FIELDS_MISSING",
            violations=[FieldViolation(name, "is required in the stage") for name in missing],
        )


def told_time(now: datetime, command: Any, earliest: datetime | None) -> Timestamp:
    """When what is told occurred: now, or the command's `occur_time`, which fits in its order.

    Raises InvalidArgument for what lies in the future or before `earliest`.
    """
    if not command.HasField("occur_time"):
        return timestamp_of(max(now, earliest or now))
    moment = known_moment("occur_time", command.occur_time)
    if moment > now:
        raise InvalidArgument.of("occur_time", "lies in the future")
    if earliest is not None and moment < earliest:
        told = earliest.isoformat()
        raise InvalidArgument.of("occur_time", f"lies before {told}, of which was told already")
    return timestamp_of(moment)


def _ending(
    pipelines: Mapping[str, Pipeline], stage: str, state: State, kind: StageKind.ValueType
) -> Placed:
    """The closing stage of a deal's own pipeline that is asked for, else the first of its kind."""
    pipeline_id = state.pipeline.partition("/")[2]
    if stage:
        placed = Placed.named(pipelines, stage, kind, state.pipeline)
    else:
        first = pipelines[pipeline_id].first(kind)
        assert first is not None  # a pipeline always has one of each kind
        placed = Placed(pipeline_id, first)
    with_required_fields(placed, state, own_pipeline=True)
    return placed


def _has(state: State, name: str) -> bool:
    """Whether a deal has what a stage requires."""
    match name.split(".", 1):
        case ["custom_fields", key]:
            return bool(state.custom_fields.get(key))
        case ["amount"]:
            return bool(state.currency)
    return bool(getattr(state, name))
