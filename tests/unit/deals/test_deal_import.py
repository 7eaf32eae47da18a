"""What an imported deal leads to, or what is wrong with it."""

import asyncio

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import DealLost, DealOpened, DealReopened, DealWon
from rapport.deals.v1.imports_pb2 import ImportedDeal, ImportedDealChange
from rapport.deals.v1.lines_pb2 import LineItem, LineItems
from rapport.deals.v1.service_pb2 import DealDetails
from rapport.deals.v1.values_pb2 import FORECAST_CATEGORY_COMMIT, DealContact
from services.deals.deciders.deal_import import recorder
from services.deals.pipeline import STARTING, STARTING_ID
from services.deals.service import deal_imports
from services.kernel.errors import Aborted
from tests.deals_world import (
    LOST_STAGE,
    NEGOTIATION,
    NOW,
    PROPOSAL,
    QUALIFICATION,
    WON_STAGE,
    ago,
    tell,
)

PIPELINES = {STARTING_ID: STARTING, "renewals": STARTING}
RENEWAL = "pipelines/renewals/stages/proposal"


def euros(amount_minor):
    return Money(amount_minor=amount_minor, currency="EUR")


def deal(*changes, **said):
    """Looms, opened a hundred days ago."""
    details = DealDetails(display_name="Looms", amount=euros(100), owner="members/kim")
    usual = {"deal_id": "looms", "details": details, "open_time": ago(100)}
    return ImportedDeal(changes=changes, **usual | said)


def moved(days, stage, **said):
    return ImportedDealChange(occur_time=ago(days), stage=stage, **said)


def changed(days, paths=(), **said):
    change = ImportedDealChange(occur_time=ago(days), details=DealDetails(**said))
    change.update_mask.paths.extend(paths)
    return change


def told(*changes, **said):
    """The facts of looms, by their types without `Deal`."""
    found = tell(NOW, PIPELINES, deal(*changes, **said))
    assert () == found.wrong
    assert len(found.facts) == len(found.states)
    return [type(fact).__name__.removeprefix("Deal") for fact in found.facts]


def test_a_deal_is_told_from_its_opening_to_its_end():
    found = tell(
        NOW,
        PIPELINES,
        deal(moved(90, PROPOSAL), changed(80, amount=euros(70)), moved(70, WON_STAGE)),
    )

    opened, *_, won = found.facts
    assert isinstance(opened, DealOpened)
    assert (QUALIFICATION, ago(100)) == (opened.stage, opened.occur_time)
    assert won == DealWon(
        stage=PROPOSAL,
        amount=euros(70),
        closing_stage=WON_STAGE,
        occur_time=ago(70),
        owner="members/kim",
    )


def test_every_detail_may_be_there_from_the_opening_as_if_it_changed_then():
    lines = LineItems(currency="EUR", items=[LineItem(display_name="Loom", unit_price="1")])
    full = DealDetails(
        display_name="Looms",
        contacts=[DealContact(contact="contacts/ada", role="buyer")],
        company="companies/acme",
        owner="members/kim",
        team="teams/north",
        amount=euros(100),
        expected_close_time=ago(1),
        next_step="call",
        custom_fields={"size": "xl"},
        forecast_category_override=FORECAST_CATEGORY_COMMIT,
        probability_bp_override=0,
        line_items=lines,
    )
    assert len(DealDetails.DESCRIPTOR.fields) == len(full.ListFields())

    opened = tell(NOW, PIPELINES, deal(details=full))
    changed_at_once = tell(
        NOW,
        PIPELINES,
        deal(ImportedDealChange(occur_time=ago(100), details=full)),
    )

    assert ((), ()) == (opened.wrong, changed_at_once.wrong)
    assert opened.states[-1] == changed_at_once.states[-1]
    full.line_items.items[0].unit_price = "x"
    (wrong,) = tell(NOW, PIPELINES, deal(details=full)).wrong
    assert "details.line_items.items[0].unit_price" == wrong.field


def test_changes_may_come_in_any_order():
    in_order = [moved(90, PROPOSAL), changed(80, next_step="call"), moved(70, NEGOTIATION)]

    assert told(*in_order) == told(*reversed(in_order))


def test_what_changes_at_one_moment_is_told_details_first():
    change = moved(90, WON_STAGE, details=DealDetails(amount=euros(7)))

    assert ["Opened", "AmountChanged", "Won"] == told(change)


def test_an_amount_that_changed_after_the_ending_is_told_before_it_with_what_came_between():
    changes = [
        moved(90, WON_STAGE),
        changed(80, owner="members/lee"),
        changed(70, amount=euros(7)),
        changed(60, owner="members/mo"),
    ]

    types = told(*changes)
    facts = tell(NOW, PIPELINES, deal(*changes)).facts

    assert ["Opened", "Assigned", "AmountChanged", "Won", "Assigned"] == types
    assert (7, ago(70)) == (facts[3].amount.amount_minor, facts[2].occur_time)


def test_an_amount_that_changed_after_two_endings_belongs_to_the_second():
    assert ["Opened", "Won", "Reopened", "AmountChanged", "Lost"] == told(
        moved(90, WON_STAGE),
        moved(80, PROPOSAL),
        moved(70, LOST_STAGE, lost_reason="price"),
        changed(60, amount=euros(7)),
    )


def test_a_deal_that_ends_anew_is_opened_again_just_before():
    facts = tell(
        NOW, PIPELINES, deal(moved(90, LOST_STAGE, lost_reason="price"), moved(80, WON_STAGE))
    ).facts

    _, lost, reopened, won = facts
    assert isinstance(lost, DealLost)
    assert isinstance(reopened, DealReopened)
    assert (QUALIFICATION, ago(80)) == (reopened.stage, reopened.occur_time)
    assert (WON_STAGE, ago(80)) == (won.closing_stage, won.occur_time)


def test_a_deal_goes_to_another_pipeline_and_stays_where_it_is():
    assert ["Opened", "MovedToPipeline"] == told(moved(90, RENEWAL), moved(80, RENEWAL))
    assert ["Opened", "Won"] == told(moved(90, WON_STAGE), moved(80, WON_STAGE))


def test_a_field_that_is_masked_and_empty_is_cleared():
    state = tell(NOW, PIPELINES, deal(changed(90, ["amount", "owner"]))).states[-1]

    assert ("", None) == (state.owner, state.amount)


@pytest.mark.parametrize(
    ("imported", "field", "detail"),
    [
        (deal(details=DealDetails(owner="members/kim")), "details.display_name", "needs a name"),
        (deal(open_time=ago(-1)), "open_time", "in the future"),
        (deal(stage=WON_STAGE), "stage", "of kind WON"),
        (
            deal(details=DealDetails(display_name="x", amount=euros(-1))),
            "details.amount.amount_minor",
            "lies between",
        ),
        (deal(moved(90, "pipelines/sales/stages/x")), "changes[0].stage", "is no stage"),
        (deal(moved(101, PROPOSAL)), "changes[0].occur_time", "lies before"),
        (deal(moved(-1, PROPOSAL)), "changes[0].occur_time", "in the future"),
        (deal(moved(9, PROPOSAL), moved(8, LOST_STAGE)), "changes[1].lost_reason", "why"),
        (deal(changed(90, amount=euros(-1))), "changes[0].details.amount.amount_minor", "lies"),
        (deal(changed(90, ["stage"])), "changes[0].update_mask", "is no field"),
        (deal(ImportedDealChange(occur_time=ago(9))), "changes[0]", "says nothing"),
    ],
)
def test_what_is_wrong_is_told_with_its_field(imported, field, detail):
    (wrong,) = tell(NOW, PIPELINES, imported).wrong

    assert ("FIELD_INVALID", field) == (wrong.reason, wrong.field)
    assert detail in wrong.detail


def test_a_time_outside_the_calendar_is_wrong():
    imported = deal(moved(9, PROPOSAL))
    imported.changes[0].occur_time.seconds = 2**60

    (wrong,) = tell(NOW, PIPELINES, imported).wrong

    assert "changes[0].occur_time" == wrong.field


def test_a_deal_that_came_to_be_meanwhile_is_not_recorded_again():
    found = tell(NOW, PIPELINES, deal())
    rules = recorder({"looms": found})

    assert found.facts == rules.decide(deal(), rules.initial)
    with pytest.raises(Aborted):
        rules.decide(deal(), found.states[-1])


async def test_others_are_served_while_a_batch_is_judged(monkeypatch):
    """A batch may have hundreds of deals with a thousand changes each."""
    monkeypatch.setattr(deal_imports, "JUDGING_S_MAX", 0)
    stages = [PROPOSAL, NEGOTIATION] * 5
    batch = [deal(*[moved(9, stage) for stage in stages], deal_id=f"d-{n}") for n in range(3)]
    steps, turns = [], set()

    def judging():
        for each in deal_imports.judged(NOW, PIPELINES, batch):
            steps.append(each)
            yield each

    def other():
        turns.add(len(steps))
        if len(steps) < len(batch) * (len(stages) + 1):
            asyncio.get_running_loop().call_soon(other)

    other()
    found = await deal_imports.in_turns(judging())

    assert [11, 11, 11] == [len(each.facts) for each in found]
    assert set(range(3 * 11 + 1)) == turns
