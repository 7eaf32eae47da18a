"""Deals for tests: a moment, the pipeline every workspace begins with, and what was told."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from deploy.deal_files.stages import Stages
from rapport.deals.v1 import pipelines_pb2 as pb
from services.deals.deciders.deal import decider_at
from services.deals.deciders.deal_import import telling
from services.deals.pipeline import STARTING, STARTING_ID, settings_of, stage_name

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
STAGES = tuple(stage_name(STARTING_ID, stage.stage_id) for stage in STARTING.stages[:3])
QUALIFICATION, PROPOSAL, NEGOTIATION = STAGES
WON_STAGE, LOST_STAGE = (stage_name(STARTING_ID, stage.stage_id) for stage in STARTING.stages[3:])

# Moments of the calendar that no column keeps.
FIRST = Timestamp(seconds=-62_135_596_800)
LAST = Timestamp(seconds=253_402_300_799, nanos=999_999_999)


def rules(now=NOW, **pipelines):
    """The rules of a deal at a moment, beside these other pipelines."""
    return decider_at(now, {STARTING_ID: STARTING, **pipelines})


def at(moment):
    """A moment as facts and requests tell it."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def ago(days):
    """So many days before now, as facts and requests tell it."""
    return at(NOW - days * DAY)


def tell(now, pipelines, imported):
    """What an imported deal leads to, told in one go."""
    steps = telling(now, pipelines, imported)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def told_stages(pipelines):
    """The stages of these pipelines, by their ids, as a reader of files knows them."""
    return Stages(
        pb.Pipeline(
            name=f"pipelines/{pipeline_id}",
            display_name=pipeline.display_name,
            stages=[
                pb.Stage(
                    name=stage_name(pipeline_id, stage.stage_id),
                    settings=settings_of(stage),
                    state=pb.PIPELINE_STATE_ACTIVE,
                )
                for stage in pipeline.stages
            ],
        )
        for pipeline_id, pipeline in pipelines.items()
    )
