"""The rules of a pipeline: which stages it may have, and what may become of them.

There is always one stage of each kind in use, and a stage keeps its kind for ever: what it meant to
be in it on an earlier day cannot change later. Stages may stand in any order. What is archived is
closed to deals that would enter it; everything else may be changed of it all the same.

Every workspace begins with a pipeline that nobody created. Its stream begins with the first change
to it: what it was until then is recorded before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from google.protobuf.message import Message

from rapport.deals.v1.events_pb2 import (
    PipelineArchived,
    PipelineCreated,
    PipelineRenamed,
    PipelineRestored,
    StageAdded,
    StageArchived,
    StageChanged,
    StageRestored,
    StagesArranged,
)
from rapport.deals.v1.pipelines_pb2 import (
    AddStageRequest,
    ArchivePipelineRequest,
    ArchiveStageRequest,
    ArrangeStagesRequest,
    ChangeStageRequest,
    CreatePipelineRequest,
    RenamePipelineRequest,
    RestorePipelineRequest,
    RestoreStageRequest,
)
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_CLOSED,
    STAGE_KIND_LOST,
    STAGE_KIND_OPEN,
    STAGE_KIND_WON,
    PipelineStage,
    StageKind,
    StageSettings,
)
from services.deals.pipeline import (
    STARTING,
    STARTING_ID,
    Pipeline,
    Stage,
    split_stage,
    stage_name,
    stage_of,
    told,
)
from services.kernel.command.decider import Decider
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

StageCommand = ChangeStageRequest | ArchiveStageRequest | RestoreStageRequest
Change = (
    RenamePipelineRequest
    | ArchivePipelineRequest
    | RestorePipelineRequest
    | AddStageRequest
    | ArrangeStagesRequest
    | StageCommand
)
Command = CreatePipelineRequest | Change

PIPELINES_MAX: Final = 100
"""Of a workspace, archived ones too; they are all at hand wherever deals are counted."""
STAGES_MAX: Final = 100
"""Of a pipeline, archived ones too."""

_KINDS: Final = (STAGE_KIND_OPEN, STAGE_KIND_WON, STAGE_KIND_LOST)


@dataclass(frozen=True, slots=True)
class Others:
    """What a workspace has when a command comes: its pipelines, and those of them in use."""

    pipelines: int = 1
    active: int = 1


def decide(others: Others, command: Command, state: Pipeline) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    if isinstance(command, CreatePipelineRequest):
        return create(others, command, state)
    if state.exists or pipeline_id_of(command) != STARTING_ID:
        return change(others, command, existing(command, state))
    facts = change(others, command, STARTING)
    return [created(STARTING), *facts] if facts else []


def create(others: Others, command: CreatePipelineRequest, state: Pipeline) -> Sequence[Message]:
    """A new pipeline needs a free id, a name, and stages of each kind with ids of their own."""
    if state.exists or command.pipeline_id == STARTING_ID:
        raise AlreadyExists(f"pipelines/{command.pipeline_id}", "pipeline_id")
    if others.pipelines >= PIPELINES_MAX:
        raise ResourceExhausted("PIPELINES_MAX", PIPELINES_MAX)
    if len(command.stages) > STAGES_MAX:
        raise ResourceExhausted("STAGES_MAX", STAGES_MAX)
    if found := [*unreadable("display_name", command.display_name), *wrong(command.stages)]:
        raise InvalidArgument(found)
    stages = tuple(map(stage_of, command.stages))
    return [created(Pipeline(display_name=command.display_name.strip(), stages=stages))]


def change(others: Others, command: Change, state: Pipeline) -> Sequence[Message]:
    """What follows from a command on a pipeline that is there; what it is already is no news."""
    match command:
        case RenamePipelineRequest():
            return rename(command, state)
        case ArchivePipelineRequest():
            return archive(others, command, state)
        case RestorePipelineRequest():
            return [PipelineRestored()] if state.is_archived else []
        case AddStageRequest():
            return add_stage(command, state)
        case ArrangeStagesRequest():
            return arrange(command, state)
        case ChangeStageRequest():
            return change_stage(command, existing_stage(command, state))
        case ArchiveStageRequest():
            return archive_stage(command, existing_stage(command, state), state)
        case RestoreStageRequest():
            stage = existing_stage(command, state)
            return [StageRestored(stage_id=stage.stage_id)] if stage.is_archived else []


def rename(command: RenamePipelineRequest, state: Pipeline) -> Sequence[Message]:
    """A name must be readable."""
    if found := [*unreadable("display_name", command.display_name)]:
        raise InvalidArgument(found)
    name = command.display_name.strip()
    if name == state.display_name:
        return []
    return [PipelineRenamed(display_name=name, previous_display_name=state.display_name)]


def archive(others: Others, command: ArchivePipelineRequest, state: Pipeline) -> Sequence[Message]:
    """One pipeline stays in use: deals must be able to begin somewhere."""
    if state.is_archived:
        return []
    if others.active <= 1:
        raise FailedPrecondition(
            f"{command.name} is the last pipeline in use", resource=command.name, state="LAST"
        )
    return [PipelineArchived()]


def add_stage(command: AddStageRequest, state: Pipeline) -> Sequence[Message]:
    """A new stage needs a free id and a place."""
    stage_id, after = command.stage.stage_id, command.after_stage_id
    if state.stage(stage_id) is not None:
        raise AlreadyExists(stage_name(pipeline_id_of(command), stage_id), "stage.stage_id")
    if len(state.stages) >= STAGES_MAX:
        raise ResourceExhausted("STAGES_MAX", STAGES_MAX)
    found = [*wrong_settings("stage.settings", command.stage.settings)]
    if after and state.stage(after) is None:
        found.append(FieldViolation("after_stage_id", f"is no stage of {command.name}"))
    if found:
        raise InvalidArgument(found)
    return [StageAdded(stage=told(stage_of(command.stage)), after_stage_id=after)]


def change_stage(command: ChangeStageRequest, stage: Stage) -> Sequence[Message]:
    """A stage keeps its kind: what was won in it stays won."""
    found = [*wrong_settings("settings", command.settings)]
    if command.settings.kind != stage.kind:
        kind = StageKind.Name(stage.kind).removeprefix("STAGE_KIND_")
        found.append(FieldViolation("settings.kind", f"is {kind} and never changes"))
    if found:
        raise InvalidArgument(found)
    changed = stage_of(PipelineStage(stage_id=stage.stage_id, settings=command.settings))
    if replace(changed, is_archived=stage.is_archived) == stage:
        return []
    return [StageChanged(stage=told(changed))]


def arrange(command: ArrangeStagesRequest, state: Pipeline) -> Sequence[Message]:
    """An order names every stage exactly once; any order will do."""
    stage_ids = [stage.stage_id for stage in state.stages]
    if sorted(command.stage_ids) != sorted(stage_ids):
        each = ", ".join(stage_ids)
        raise InvalidArgument.of("stage_ids", f"must name each of {each} exactly once")
    return [] if command.stage_ids == stage_ids else [StagesArranged(stage_ids=command.stage_ids)]


def archive_stage(command: ArchiveStageRequest, stage: Stage, state: Pipeline) -> Sequence[Message]:
    """One stage of each kind stays in use: deals must be able to begin and to end somewhere."""
    if stage.is_archived:
        return []
    used = [other for other in state.stages if not other.is_archived and other.kind == stage.kind]
    if used == [stage]:
        kind = StageKind.Name(stage.kind).removeprefix("STAGE_KIND_")
        raise FailedPrecondition(
            f"{command.name} is the last {kind} stage in use", resource=command.name, state="LAST"
        )
    return [StageArchived(stage_id=stage.stage_id)]


def existing(command: Change, state: Pipeline) -> Pipeline:
    """Refuses what is asked of a pipeline that nobody created."""
    if not state.exists:
        raise NotFound(command.name)
    return state


def existing_stage(command: StageCommand, state: Pipeline) -> Stage:
    """Refuses what is asked of a stage that nobody added."""
    stage = state.stage(stage_ids(command.name)[1])
    if stage is None:
        raise NotFound(command.name)
    return stage


def wrong(stages: Sequence[PipelineStage]) -> Iterator[FieldViolation]:
    """What stages could not be the beginning of a pipeline for."""
    for kind in set(_KINDS) - {stage.settings.kind for stage in stages}:
        name = StageKind.Name(kind).removeprefix("STAGE_KIND_")
        yield FieldViolation("stages", f"hold none of the kind {name}")
    times = Counter(stage.stage_id for stage in stages)
    for place, stage in enumerate(stages):
        if times[stage.stage_id] > 1:
            yield FieldViolation(f"stages[{place}].stage_id", f"{stage.stage_id} stands twice")
        yield from wrong_settings(f"stages[{place}].settings", stage.settings)


def wrong_settings(field: str, settings: StageSettings) -> Iterator[FieldViolation]:
    """What is wrong with the settings of a stage, beyond what the API's own rules say."""
    yield from unreadable(f"{field}.display_name", settings.display_name)
    if settings.kind not in _KINDS:
        yield FieldViolation(f"{field}.kind", "must be OPEN, WON or LOST")
    is_open = settings.kind == STAGE_KIND_OPEN
    if is_open and settings.forecast_category == FORECAST_CATEGORY_CLOSED:
        yield FieldViolation(
            f"{field}.forecast_category", "is for what is won, not for what is open"
        )
    if settings.rot_after.nanos:
        yield FieldViolation(f"{field}.rot_after", "is counted in whole seconds")


def unreadable(field: str, display_name: str) -> Iterator[FieldViolation]:
    """What is wrong with a name that nobody can read."""
    if not display_name.strip() or "\0" in display_name:
        yield FieldViolation(field, "must be a name that can be read")


def created(pipeline: Pipeline) -> PipelineCreated:
    """The fact that a pipeline is there."""
    return PipelineCreated(display_name=pipeline.display_name, stages=map(told, pipeline.stages))


def pipeline_id_of(command: Change) -> str:
    """The id of the pipeline that a command is about."""
    if isinstance(command, ChangeStageRequest | ArchiveStageRequest | RestoreStageRequest):
        return stage_ids(command.name)[0]
    return DECIDER.aggregate_id(command.name)


def stage_ids(name: str) -> tuple[str, str]:
    """The ids of pipeline and stage in a stage's name, else InvalidArgument."""
    found = split_stage(name)
    if found is None:
        raise InvalidArgument.of("name", f"must look like {stage_name('{id}', '{id}')}")
    return found


def evolve(state: Pipeline, event: Message) -> Pipeline:
    """Returns the pipeline after an event."""
    match event:
        case PipelineCreated():
            stages = tuple(map(stage_of, event.stages))
            return Pipeline(exists=True, display_name=event.display_name, stages=stages)
        case PipelineRenamed():
            return replace(state, display_name=event.display_name)
        case PipelineArchived():
            return replace(state, is_archived=True)
        case PipelineRestored():
            return replace(state, is_archived=False)
        case StageAdded():
            return replace(state, stages=added(state.stages, event))
        case StageChanged():
            changed = stage_of(event.stage)
            return with_stage(state, changed.stage_id, changed)
        case StagesArranged():
            places = {stage_id: place for place, stage_id in enumerate(event.stage_ids)}
            order = sorted(state.stages, key=lambda stage: places.get(stage.stage_id, STAGES_MAX))
            return replace(state, stages=tuple(order))
        case StageArchived():
            return with_stage(state, event.stage_id, is_archived=True)
        case StageRestored():
            return with_stage(state, event.stage_id, is_archived=False)
    return state


def added(stages: Sequence[Stage], event: StageAdded) -> tuple[Stage, ...]:
    """Stages with another one, after the one it was put after or before them all."""
    place = 0
    if event.after_stage_id:
        ids = [stage.stage_id for stage in stages]
        place = ids.index(event.after_stage_id) + 1 if event.after_stage_id in ids else len(ids)
    return (*stages[:place], stage_of(event.stage), *stages[place:])


def with_stage(
    state: Pipeline,
    stage_id: str,
    settings: Stage | None = None,
    *,
    is_archived: bool | None = None,
) -> Pipeline:
    """The pipeline with a stage configured anew, or put away, or taken back."""

    def after(stage: Stage) -> Stage:
        if stage.stage_id != stage_id:
            return stage
        put_away = stage.is_archived if is_archived is None else is_archived
        return replace(settings or stage, is_archived=put_away)

    return replace(state, stages=tuple(map(after, state.stages)))


def decider_with(others: Others) -> Decider[Command, Pipeline]:
    """The rules for a workspace that has these."""
    return Decider(
        category="pipeline",
        collection="pipelines",
        initial=Pipeline(),
        decide=partial(decide, others),
        evolve=evolve,
    )


DECIDER = decider_with(Others())
"""The rules for who creates and archives none."""
