"""What a deal is worth: its lines say it while it has no primary quote, else whoever changes it."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import (
    DealAmountChanged,
    DealLineItemsChanged,
    DealOpened,
    DealQuoted,
    DealWon,
)
from rapport.deals.v1.lines_pb2 import (
    BILLING_MONTHLY,
    LineItem,
    LineItems,
    RecurringRevenue,
    Totals,
)
from rapport.deals.v1.service_pb2 import DealDetails, UpdateDealRequest, WinDealRequest
from services.deals.lines import Whole, priced, sums_of, totals_of
from services.kernel.errors import FailedPrecondition, InvalidArgument
from services.kernel.testing import Spec
from tests.deals_world import NOW, QUALIFICATION, WON_STAGE, ago, at, rules

LOOMS = "deals/looms"
OPENED = DealOpened(display_name="Looms", stage=QUALIFICATION, occur_time=ago(10))
LINES = LineItems(
    currency="EUR",
    items=[
        LineItem(display_name="Loom", unit_price="1000", product="products/loom"),
        LineItem(
            display_name="Care",
            unit_price="50",
            product="products/care",
            billing=BILLING_MONTHLY,
            term_months=12,
        ),
        LineItem(display_name="Another loom", unit_price="900", product="products/loom"),
    ],
)


def euros(minor):
    return Money(amount_minor=minor, currency="EUR")


def lined(lines=LINES):
    """The fact that a deal has these lines, told now."""
    kept, counted = priced(lines.items, lines.currency, "")
    items = LineItems(currency=lines.currency, items=kept)
    totals = totals_of(sums_of(counted, Whole()), lines.currency)
    return DealLineItemsChanged(line_items=items, totals=totals, occur_time=at(NOW))


def worth(minor, previous=None):
    return DealAmountChanged(amount=minor, previous_amount=previous, occur_time=at(NOW))


QUOTED = DealQuoted(
    quote="quotes/looms",
    products=["products/x"],
    totals=Totals(recurring=RecurringRevenue(monthly=euros(1), annual=euros(12))),
    occur_time=ago(5),
)


def update(*paths, **said):
    return UpdateDealRequest(
        name=LOOMS, deal=DealDetails(**said), update_mask=FieldMask(paths=paths)
    )


def deal(*events):
    return Spec(rules()).given(OPENED, *events)


def test_lines_say_what_a_deal_is_worth_sells_and_earns_again_and_again():
    state = deal().when(update(line_items=LINES)).then(lined(), worth(euros(250_000)))

    assert euros(250_000) == state.amount
    assert ("products/care", "products/loom") == state.products
    assert RecurringRevenue(monthly=euros(5_000), annual=euros(60_000)) == state.recurring


def test_the_same_lines_are_no_news():
    deal(lined(), worth(euros(250_000))).when(update(line_items=LINES)).then()
    deal(lined(), worth(euros(250_000))).when(update(line_items=lined().line_items)).then()


def test_without_lines_a_deal_is_worth_what_it_was_and_may_be_told_by_hand():
    gone = DealLineItemsChanged(line_items=LineItems(), occur_time=at(NOW))
    before = lined(), worth(euros(250_000))

    state = deal(*before).when(update("line_items")).then(gone)

    assert (euros(250_000), (), None) == (state.amount, state.products, state.recurring)
    both = update("line_items", "amount", amount=euros(7))
    deal(*before).when(both).then(worth(euros(7), euros(250_000)), gone)
    deal(*before, gone).when(update(amount=euros(7))).then(worth(euros(7), euros(250_000)))


@pytest.mark.parametrize(
    ("state", "before"),
    [("LINE_ITEMS", [lined(), worth(euros(250_000))]), ("PRIMARY_QUOTE", [QUOTED])],
)
def test_an_amount_that_lines_or_a_quote_say_is_not_told_by_hand(state, before):
    refused = deal(*before).when(update(amount=euros(7))).then_refused(FailedPrecondition)

    assert (LOOMS, state) == (refused.metadata["resource"], refused.metadata["state"])
    assert "change" in refused.message


def test_lines_and_another_amount_are_not_told_at_once():
    both = update(line_items=LINES, amount=euros(7))

    refused = deal().when(both).then_refused(FailedPrecondition)

    assert "LINE_ITEMS" == refused.metadata["state"]


def test_the_lines_of_a_quoted_deal_change_nothing_of_its_worth():
    state = deal(QUOTED, worth(euros(9))).when(update(line_items=LINES)).then(lined())

    assert (euros(9), ("products/x",)) == (state.amount, state.products)
    assert euros(1) == state.recurring.monthly


def test_lines_that_make_no_sense_are_refused_by_their_field():
    lines = LineItems(currency="EUR", items=[LineItem(display_name="x", unit_price="x")])

    refused = deal().when(update(line_items=lines)).then_refused(InvalidArgument)

    assert "deal.line_items.items[0].unit_price" == refused.violations[0].field


def test_the_lines_of_a_closed_deal_stay():
    won = DealWon(stage=QUALIFICATION, occur_time=ago(1))

    deal(won).when(update(line_items=LINES)).then_refused(FailedPrecondition)


def test_a_won_deal_tells_what_was_sold_and_what_it_earns_again_and_again():
    deal(lined(), worth(euros(250_000))).when(WinDealRequest(name=LOOMS)).then(
        DealWon(
            stage=QUALIFICATION,
            closing_stage=WON_STAGE,
            amount=euros(250_000),
            occur_time=at(NOW),
            products=["products/care", "products/loom"],
            recurring=RecurringRevenue(monthly=euros(5_000), annual=euros(60_000)),
        )
    )
