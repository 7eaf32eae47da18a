"""The stages of the workspace, found by what a file calls them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from deploy.deal_files.columns import plain
from rapport.deals.v1.pipelines_pb2 import PIPELINE_STATE_ACTIVE, Pipeline, Stage
from rapport.deals.v1.values_pb2 import (
    STAGE_KIND_LOST,
    STAGE_KIND_OPEN,
    STAGE_KIND_WON,
    StageKind,
)

DEFAULT: Final = "pipelines/sales"

_KINDS: Final = {
    "open": STAGE_KIND_OPEN,
    "won": STAGE_KIND_WON,
    "closedwon": STAGE_KIND_WON,
    "lost": STAGE_KIND_LOST,
    "closedlost": STAGE_KIND_LOST,
}


class Stages:
    """All stages of all pipelines."""

    def __init__(self, pipelines: Iterable[Pipeline]) -> None:
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._stages = {
            stage.name: stage for each in self._pipelines.values() for stage in each.stages
        }

    def pipeline(self, text: str) -> str:
        """The pipeline with this id or name; the default one for nothing."""
        if not text.strip():
            return DEFAULT
        for name, pipeline in self._pipelines.items():
            called = (name, name.partition("/")[2], pipeline.display_name)
            if plain(text) in map(plain, called):
                return name
        raise ValueError(f"{text!r} is no pipeline: there are {', '.join(self._pipelines)}")

    def stage(self, text: str, pipeline: str) -> str:
        """The stage with this name, or called so in a pipeline, or of a kind so called."""
        if text in self._stages:
            return text
        stages = self._pipelines[pipeline].stages
        for stage in stages:
            called = (stage.name.rpartition("/")[2], stage.settings.display_name)
            if plain(text) in map(plain, called):
                return stage.name
        if plain(text) in _KINDS:
            return self.first(_KINDS[plain(text)], pipeline)
        known = ", ".join(stage.name.rpartition("/")[2] for stage in stages)
        raise ValueError(
            f"{text!r} is no stage of {pipeline}: add it (AddStage), or call it one of {known}"
        )

    def kind(self, name: str) -> StageKind.ValueType:
        """What it means to be in a stage."""
        return self._stages[name].settings.kind

    def first(self, kind: StageKind.ValueType, pipeline: str) -> str:
        """The first stage of a kind that is in use."""
        return next(
            stage.name
            for stage in self._pipelines[pipeline].stages
            if stage.settings.kind == kind and _is_used(stage)
        )


def kind_of(text: str) -> StageKind.ValueType:
    """What a state means: `Closed won`, `OPEN`."""
    try:
        return _KINDS[plain(text)]
    except KeyError:
        raise ValueError(f"{text!r} is none of open, won and lost") from None


def pipeline_of(stage: str) -> str:
    """The pipeline of a stage."""
    return stage.partition("/stages/")[0]


def _is_used(stage: Stage) -> bool:
    return stage.state == PIPELINE_STATE_ACTIVE
