"""Random histories of deals, as their real rules let them happen: told in time or late.

What is refused is not told. Deals are few and moments are close to each other, so that much happens
to each of them, much of it at once and much of it out of order.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random

from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import strategies as st

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import (
    DealDetails,
    DeleteDealRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    MoveDealToPipelineRequest,
    OpenDealRequest,
    ReopenDealRequest,
    UndeleteDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from services.deals.deal import State, evolve
from services.deals.pipeline import STARTING, stage_name
from services.kernel.errors import RapportError
from services.kernel.log.recorded import utc
from tests.deals_reference import Fact
from tests.deals_world import STAGES, at, rules

BEGIN = datetime(2026, 1, 30, tzinfo=UTC)
HALF_DAY = timedelta(hours=12)
DEALS = "abc"
COMMANDS = 30
RENEWALS = tuple(stage_name("renewals", stage.stage_id) for stage in STARTING.stages[:3])
PIPELINES = {"sales": STARTING, "renewals": STARTING}
RECORDING = timedelta(seconds=1)
"""What is decided at a moment is recorded a little later."""

seeds = st.integers(0, 2**32)


def tell(seed):
    """The facts of one random history, in the order of their recording."""
    random, now = Random(seed), BEGIN
    states, facts = dict.fromkeys(DEALS, State()), []
    for _ in range(COMMANDS):
        now += random.choice((0, 0, 1, 2)) * HALF_DAY
        deal_id = random.choice(DEALS)
        state = states[deal_id]
        command = something(random) if state.stage else opening(random)
        if random.random() < 0.6 and "occur_time" in command.DESCRIPTOR.fields_by_name:
            command.occur_time.CopyFrom(at(now - random.randrange(8) * HALF_DAY))
        with suppress(RapportError):
            for event in rules(now, renewals=STARTING).decide(command, state):
                states[deal_id] = state = evolve(state, event)
                facts.append(Fact(deal_id, event, utc(event.occur_time), now + RECORDING))
    return facts


def opening(random):
    """Asks for a new deal."""
    return OpenDealRequest(
        display_name="Looms",
        stage=random.choice((*STAGES, *RENEWALS)),
        amount=amount(random),
        owner=random.choice(("", "members/kim", "members/lee")),
        expected_close_time=day(random),
        custom_fields=random.choice(({}, {"source": "fair"}, {"source": "web"})),
    )


def something(random):
    """Asks for something to happen to a deal."""
    stage = random.choice((*STAGES, *RENEWALS))
    make = random.choice(
        (
            lambda: MoveDealStageRequest(stage=stage),
            lambda: MoveDealStageRequest(stage=stage),
            lambda: MoveDealToPipelineRequest(stage=stage),
            lambda: WinDealRequest(),
            lambda: LoseDealRequest(reason=random.choice(("price", "silence"))),
            lambda: ReopenDealRequest(),
            lambda: DeleteDealRequest(),
            lambda: UndeleteDealRequest(),
            lambda: UndeleteDealRequest(),
            lambda: change(random),
            lambda: change(random),
            lambda: change(random),
            lambda: change(random),
        )
    )
    return make()


def change(random):
    """Asks for one thing about a deal to be another."""
    said = DealDetails(
        amount=amount(random),
        owner=random.choice(("", "members/kim", "members/lee")),
        expected_close_time=day(random),
    )
    path = random.choice(("amount", "owner", "expected_close_time", "expected_close_time"))
    return UpdateDealRequest(deal=said, update_mask=FieldMask(paths=[path]))


def amount(random):
    """An amount that nobody knows, or one of a few, in one of three currencies."""
    currency = random.choice(("", "EUR", "EUR", "USD", "JPY"))
    amount_minor = random.choice((0, 1, 250, 99_999, 10**12))
    return Money(amount_minor=amount_minor, currency=currency) if currency else None


def day(random):
    """A day that nobody knows, or one soon."""
    days = random.randrange(-1, 13)
    return None if days < 0 else at(BEGIN + 2 * days * HALF_DAY)
