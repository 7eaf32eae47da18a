"""A deal on looms for tests of its rules: what was told of it, and what is asked of it."""

from dataclasses import replace

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import DealLost, DealOpened, DealStageChanged, DealWon
from rapport.deals.v1.service_pb2 import LoseDealRequest, MoveDealStageRequest, WinDealRequest
from rapport.deals.v1.values_pb2 import DealContact
from services.deals.pipeline import STARTING
from services.kernel.testing import Spec
from tests.deals_world import LOST_STAGE, QUALIFICATION, WON_STAGE, ago, rules

LOOMS = "deals/looms"
AMOUNT = Money(amount_minor=120_000, currency="EUR")
ADA = DealContact(contact="contacts/ada")
OPENED = DealOpened(
    display_name="Looms",
    contact="contacts/ada",
    contacts=[ADA],
    amount=AMOUNT,
    stage=QUALIFICATION,
    occur_time=ago(10),
)
WON = DealWon(
    stage=QUALIFICATION,
    amount=AMOUNT,
    contact="contacts/ada",
    closing_stage=WON_STAGE,
    occur_time=ago(1),
)
LOST = DealLost(
    stage=QUALIFICATION,
    reason="price",
    amount=AMOUNT,
    contact="contacts/ada",
    closing_stage=LOST_STAGE,
    occur_time=ago(1),
)
WIN = WinDealRequest(name=LOOMS, occur_time=ago(1))
LOSE = LoseDealRequest(name=LOOMS, reason="price", occur_time=ago(1))
OTHER = replace(STARTING, display_name="Renewals")


def deal(**pipelines):
    return Spec(rules(**pipelines))


def move(stage, **said):
    return MoveDealStageRequest(name=LOOMS, stage=stage, **said)


def moved(stage, previous_stage, occur_time):
    return DealStageChanged(stage=stage, previous_stage=previous_stage, occur_time=occur_time)


def requiring(*fields):
    """The starting pipeline, with fields that its second stage and its ends require."""
    stages = [
        stage if place == 0 else replace(stage, required_fields=fields)
        for place, stage in enumerate(STARTING.stages)
    ]
    return replace(STARTING, stages=tuple(stages))


def fields_of(error):
    return [violation.field for violation in error.violations]
