"""Deals for tests: a moment, the pipeline every workspace begins with, and what was told."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from services.deals.deciders.deal import decider_at
from services.deals.pipeline import STARTING, STARTING_ID, stage_name

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
