"""What a read answers about a moment is what it answered then, whatever happened since."""

import random
import uuid
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.pipelines_pb2 import ChangeStageRequest
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_WON,
    DealDetails,
    DeleteDealRequest,
    GetDealBoardRequest,
    GetDealRequest,
    ListDealChangesRequest,
    ListDealsRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    ReopenDealRequest,
    UndeleteDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN, StageSettings
from services.deals.deal import evolve
from services.deals.deciders.deal import DECIDER
from services.deals.projections.deals import DealsView
from services.kernel.errors import InvalidArgument, NotFound, RapportError
from services.kernel.log.log import read_partition
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.rebuild import Rebuild
from tests.deals_world import STAGES

NAMES = ["deals/a", "deals/b", "deals/c"]
ORDERS = ["", "amount_minor desc", "update_time", "display_name"]

PERIODS = """
select deal_id, place, state, stage, amount_minor, owner, is_deleted, from_time, to_time
from deals.deal_periods where workspace = $1 order by deal_id, place
"""

EUROS = Money(amount_minor=3, currency="EUR")
DOLLARS = Money(amount_minor=7, currency="USD")
MAKERS = [
    *(partial(MoveDealStageRequest, stage=stage) for stage in STAGES),
    WinDealRequest,
    partial(LoseDealRequest, reason="price"),
    ReopenDealRequest,
    DeleteDealRequest,
    UndeleteDealRequest,
    partial(UpdateDealRequest, deal=DealDetails(amount=DOLLARS)),
    partial(UpdateDealRequest, deal=DealDetails(owner="members/kim")),
    lambda name: OpenDealRequest(deal_id=name[-1], display_name=name, amount=EUROS),
]

# What is asked, of which deal, and how many hours late it is told.
tellings = st.tuples(st.sampled_from(MAKERS), st.sampled_from(NAMES), st.none() | st.integers(0, 3))


async def tell(asked, stub, make, name, hours_late):
    """Executes a command, refused or not."""
    command = make(name=name)
    if hours_late is not None and "occur_time" in command.DESCRIPTOR.fields_by_name:
        moment = asked.kernel.clock.now() - timedelta(hours=hours_late)
        command.occur_time.CopyFrom(timestamp_of(moment))
    with suppress(RapportError):
        await getattr(stub, type(command).__name__.removesuffix("Request"))(command)


async def answers(stub, read_time=None):
    """All that reads say of a workspace, now or as of a moment."""
    at = {} if read_time is None else {"read_time": read_time}
    board = await stub.GetDealBoard(GetDealBoardRequest(**at))
    listed = []
    for order in ORDERS:
        request = ListDealsRequest(order_by=order, page_size=2, show_deleted=not order, **at)
        while True:
            page = await stub.ListDeals(request)
            listed.append(list(page.deals))
            request.page_token = page.next_page_token
            if not request.page_token:
                break
    found = []
    for name in NAMES:
        try:
            found.append((await stub.GetDeal(GetDealRequest(name=name, **at))).deal)
        except NotFound:
            found.append(None)
    return board, listed, found


@given(st.lists(tellings, min_size=1, max_size=12))
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
async def test_as_of_a_moment_everything_is_what_was_live_then(asked, told):
    stub = asked.stub(DealsServiceStub, workspace=uuid.uuid4().hex)
    live = []
    for each in told:
        await tell(asked, stub, *each)
        live.append((await now(asked), await answers(stub)))

    for moment, answered in live:
        assert answered == await answers(stub, moment)


async def now(asked):
    """A moment that nothing recorded later is recorded at."""
    moment = timestamp_of(asked.kernel.clock.now())
    await asked.stub(DealsServiceStub).GetDealBoard(GetDealBoardRequest(read_time=moment))
    return moment


@pytest.mark.parametrize(
    ("method", "request_type", "said"),
    [
        ("GetDeal", GetDealRequest, {"name": "deals/a"}),
        ("ListDeals", ListDealsRequest, {}),
        ("GetDealBoard", GetDealBoardRequest, {}),
    ],
)
async def test_nobody_reads_the_future(asked, deals, open_deal, method, request_type, said):
    await open_deal("a")
    tomorrow = timestamp_of(asked.kernel.clock.now() + timedelta(days=1))

    for moment in (tomorrow, Timestamp(seconds=2**60)):
        with pytest.raises(InvalidArgument) as refused:
            await getattr(deals, method)(request_type(read_time=moment, **said))
        assert ["read_time"] == [violation.field for violation in refused.value.violations]


async def test_the_changes_of_a_deal_say_what_it_was_and_what_it_became(asked, deals, open_deal):
    yesterday = timestamp_of(asked.kernel.clock.now() - timedelta(days=1))
    await open_deal("a", amount=Money(amount_minor=333, currency="EUR"), occur_time=yesterday)
    await deals.MoveDealStage(
        MoveDealStageRequest(name="deals/a", stage=STAGES[1], occur_time=yesterday)
    )
    await deals.WinDeal(WinDealRequest(name="deals/a"))

    changes, token = [], ""
    while token or not changes:
        page = await deals.ListDealChanges(
            ListDealChangesRequest(name="deals/a", page_size=1, page_token=token)
        )
        changes += page.changes
        token = page.next_page_token
    whole = (await deals.ListDealChanges(ListDealChangesRequest(name="deals/a"))).changes

    assert list(whole) == changes
    won, moved, opened = changes
    assert ["DealWon", "DealStageChanged", "DealOpened"] == [each.type for each in changes]
    assert (won.before, moved.before) == (moved.after, opened.after)
    assert not opened.HasField("before")
    assert [333, 167, 67] == [each.after.expected_revenue.amount_minor for each in changes]
    assert (yesterday, DEAL_STATE_WON) == (moved.occur_time, won.after.state)
    assert moved.record_time != yesterday


async def test_a_change_shows_what_its_stage_was_in_the_end_of_one_transaction(
    asked, deals, open_deal
):
    """The first change of a pipeline records two facts at one time, the last of which counts."""
    settings = StageSettings(display_name="New", kind=STAGE_KIND_OPEN, probability_bp=777)
    await open_deal("a")
    await asked.stub(PipelinesServiceStub).ChangeStage(
        ChangeStageRequest(name=STAGES[0], settings=settings)
    )
    await deals.UpdateDeal(UpdateDealRequest(name="deals/a", deal=DealDetails(next_step="call")))

    response = await deals.ListDealChanges(ListDealChangesRequest(name="deals/a"))

    assert [777, 2_000] == [change.after.probability_bp for change in response.changes]


async def test_a_deal_that_nobody_opened_has_no_changes(deals):
    with pytest.raises(NotFound):
        await deals.ListDealChanges(ListDealChangesRequest(name="deals/a"))


async def test_periods_are_the_facts_in_the_order_in_which_they_occurred(asked, deals):
    pool = asked.kernel.pool
    await tell_at_random(asked, deals, 7)
    events = [asked.kernel.event_types.decode(e) for e in await read_partition(pool, 0, after=0)]
    expected = []
    for name in NAMES:
        own = [event for event in events if DECIDER.name(DECIDER.id_of(event.stream)) == name]
        own.sort(key=lambda event: event.occur_time)
        state = DECIDER.initial
        for place, event in enumerate(own, start=1):
            state = evolve(state, event.event)
            expected.append(
                (
                    DECIDER.id_of(event.stream),
                    place,
                    state.state,
                    state.stage,
                    state.amount_minor,
                    state.owner or None,
                    state.delete_time is not None,
                    event.occur_time,
                )
            )

    found = [tuple(row) for row in await pool.fetch(PERIODS, "acme")]

    assert expected == [row[:-1] for row in found]
    for row, following in pairwise(found):
        if row[0] == following[0]:
            assert row[-1] == following[-2]


async def tell_at_random(asked, stub, seed):
    chance = random.Random(seed)
    for _ in range(120):
        late = chance.choice([None, 0, 1, 2, 3])
        await tell(asked, stub, chance.choice(MAKERS), chance.choice(NAMES), late)


async def test_a_view_built_anew_has_the_same_versions_and_periods(asked, deals):
    await tell_at_random(asked, deals, 11)
    kernel = asked.kernel
    rebuild = Rebuild(kernel.pool, kernel.log, DealsView(), kernel.event_types, {})

    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert comparison.equal
    assert {"deals", "deals_versions", "deal_periods"} == set(comparison.live)
