"""A pipeline: stages in an order, and what being in one of them means for a deal. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.duration_pb2 import Duration

from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_BEST_CASE,
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_COMMIT,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
    STAGE_KIND_LOST,
    STAGE_KIND_OPEN,
    STAGE_KIND_WON,
    ForecastCategory,
    PipelineStage,
    StageKind,
    StageSettings,
)

CERTAIN_BP: Final = 10_000
"""The probability of what is won, in hundredths of a percent."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. `rot_after_s` is 0 when no deal rots in it."""

    stage_id: str
    display_name: str
    kind: StageKind.ValueType
    probability_bp: int = 0
    forecast_category: ForecastCategory.ValueType = FORECAST_CATEGORY_PIPELINE
    rot_after_s: int = 0
    required_fields: tuple[str, ...] = ()
    is_archived: bool = False

    @property
    def likely_bp(self) -> int:
        """How likely a deal in it is won: what is closed is certain, either way."""
        if self.kind == STAGE_KIND_OPEN:
            return self.probability_bp
        return CERTAIN_BP if self.kind == STAGE_KIND_WON else 0

    @property
    def category(self) -> ForecastCategory.ValueType:
        """The forecast category of a deal in it that has none of its own."""
        if self.kind == STAGE_KIND_OPEN:
            return self.forecast_category
        won = self.kind == STAGE_KIND_WON
        return FORECAST_CATEGORY_CLOSED if won else FORECAST_CATEGORY_OMITTED


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline as its events leave it; before the first of them it does not exist."""

    exists: bool = False
    display_name: str = ""
    stages: tuple[Stage, ...] = ()
    is_archived: bool = False

    def stage(self, stage_id: str) -> Stage | None:
        """The stage with this id, archived or not."""
        return next((stage for stage in self.stages if stage.stage_id == stage_id), None)

    def first(self, kind: StageKind.ValueType) -> Stage | None:
        """The first stage of a kind that is in use; there is one of each."""
        return next(
            (stage for stage in self.stages if stage.kind == kind and not stage.is_archived), None
        )


STARTING_ID: Final = "sales"
"""Every workspace begins with this pipeline."""

STARTING: Final = Pipeline(
    exists=True,
    display_name="Sales",
    stages=(
        Stage("qualification", "Qualification", STAGE_KIND_OPEN, 2_000),
        Stage("proposal", "Proposal", STAGE_KIND_OPEN, 5_000, FORECAST_CATEGORY_BEST_CASE),
        Stage("negotiation", "Negotiation", STAGE_KIND_OPEN, 8_000, FORECAST_CATEGORY_COMMIT),
        Stage("won", "Won", STAGE_KIND_WON),
        Stage("lost", "Lost", STAGE_KIND_LOST),
    ),
)
"""What it is before anybody changed it. Released: it never changes, since the past shows it."""


def stage_of(said: PipelineStage) -> Stage:
    """A stage as it was said: of a closing one neither odds nor time, which it cannot have."""
    settings = said.settings
    is_open = settings.kind == STAGE_KIND_OPEN
    return Stage(
        stage_id=said.stage_id,
        display_name=settings.display_name.strip(),
        kind=settings.kind,
        probability_bp=settings.probability_bp if is_open else 0,
        forecast_category=(is_open and settings.forecast_category) or FORECAST_CATEGORY_PIPELINE,
        rot_after_s=settings.rot_after.seconds if is_open else 0,
        required_fields=tuple(settings.required_fields),
    )


def settings_of(stage: Stage) -> StageSettings:
    """How a stage is configured, with what being in it means for a deal."""
    rot_after = Duration(seconds=stage.rot_after_s) if stage.rot_after_s else None
    return StageSettings(
        display_name=stage.display_name,
        kind=stage.kind,
        probability_bp=stage.likely_bp,
        forecast_category=stage.category,
        rot_after=rot_after,
        required_fields=stage.required_fields,
    )


def told(stage: Stage) -> PipelineStage:
    """A stage as facts tell it: `stage_of` makes the same stage of it."""
    return PipelineStage(stage_id=stage.stage_id, settings=settings_of(stage))


def stage_name(pipeline_id: str, stage_id: str) -> str:
    """`pipelines/{pipeline}/stages/{stage}`."""
    return f"pipelines/{pipeline_id}/stages/{stage_id}"


def split_stage(name: str) -> tuple[str, str] | None:
    """The ids of pipeline and stage in a stage's name; None when it is no such name."""
    match name.split("/"):
        case ["pipelines", pipeline_id, "stages", stage_id] if pipeline_id and stage_id:
            return pipeline_id, stage_id
    return None
