"""The rules of a quote, one sentence each: alone, with its deal and with its other revisions."""

from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import quotes_pb2 as pb
from rapport.deals.v1.events_pb2 import (
    DealAmountChanged,
    DealOpened,
    DealQuoted,
    DealWon,
    QuoteAccepted,
    QuoteApproved,
    QuoteCreated,
    QuoteDeclined,
    QuoteDrafted,
    QuoteNumberAssigned,
    QuoteRejected,
    QuoteRevised,
    QuoteSent,
    QuoteSubmitted,
    QuoteSuperseded,
)
from rapport.deals.v1.lines_pb2 import LineItem, LineItems, QuoteDetails
from services.deals import deal as deals
from services.deals.deciders import deal, quote, quote_numbers, quoting
from services.deals.quote import State, offered
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from services.kernel.testing import Spec
from tests.deals_world import NOW, QUALIFICATION, ago, at

NAME, DEAL = "quotes/looms", "deals/looms"
TODAY = NOW.date().isoformat()
OPENED = DealOpened(display_name="Looms", stage=QUALIFICATION, contact="contacts/ada")
OPEN = deal.DECIDER.fold([OPENED])
WON = deal.DECIDER.fold([OPENED, DealWon(stage=QUALIFICATION, occur_time=ago(1))])
NONE, NUMBERS = State(), quote_numbers.State()
SENT = QuoteSent(occur_time=ago(2))
ACCEPTED = QuoteAccepted(accepted_by="Ada", occur_time=ago(1))
REVISED = QuoteRevised(next_revision="quotes/x")
STEPS = [QuoteSubmitted(), QuoteApproved(approver="api_keys/boss"), SENT]


def details(price="100", **said):
    items = [LineItem(display_name="Loom", unit_price=price, product="products/loom")]
    return QuoteDetails(line_items=LineItems(currency="EUR", items=items), **said)


def created(price="100", number=1, revision=1, earlier=(), **said):
    kept, totals = offered(details(price, **said))
    return QuoteCreated(
        number=number,
        revision=revision,
        deal=DEAL,
        earlier_revisions=earlier,
        details=kept,
        totals=totals,
    )


def folded(*events):
    return quote.DECIDER.fold(events)


def quoted(name=NAME, price="100", previous=""):
    kept, totals = offered(details(price))
    return DealQuoted(
        quote=name,
        previous_quote=previous,
        products=[item.product for item in kept.line_items.items],
        totals=totals,
        occur_time=at(NOW),
    )


def amount_changed(minor, previous=None):
    return DealAmountChanged(
        amount=Money(amount_minor=minor, currency="EUR"),
        previous_amount=previous and Money(amount_minor=previous, currency="EUR"),
        occur_time=at(NOW),
    )


def with_primary(name, price="100"):
    return deal.DECIDER.fold([OPENED, quoted(name, price), amount_changed(int(price) * 100)])


def spec(*events):
    return Spec(quote.decider_at(NOW, "api_keys/boss")).given(*events)


def create(of=OPEN, own=NONE, numbers=NUMBERS, **said):
    request = pb.CreateQuoteRequest(deal=DEAL, details=said.pop("details", details()), **said)
    return quoting.create(NOW, request, NAME, own, of, numbers)


def test_the_first_quote_of_a_deal_says_what_it_is_worth():
    own, worth, numbers = create(numbers=quote_numbers.State(last=6))

    assert [created(number=7, contact="contacts/ada")] == own
    assert [quoted(), amount_changed(10_000)] == worth
    assert [QuoteNumberAssigned(number=7, quote=NAME)] == numbers
    assert "Q-000007" == folded(*own).number_text


def test_a_later_quote_leaves_its_deal_alone():
    assert [] == create(of=with_primary("quotes/other"))[1]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (NotFound, {"of": deals.State()}),
        (FailedPrecondition, {"of": WON}),
        (AlreadyExists, {"own": folded(created())}),
        (InvalidArgument, {"details": QuoteDetails()}),
        (InvalidArgument, {"details": details(valid_until="2026-02-30")}),
        (InvalidArgument, {"details": details(valid_until="20260228")}),
        (InvalidArgument, {"details": details(discount_minor=10_001)}),
        (InvalidArgument, {"details": details(discount_minor=1, discount_percent="1")}),
        (
            InvalidArgument,
            {"details": QuoteDetails(line_items=LineItems(currency="XAU", items=[LineItem()]))},
        ),
    ],
)
def test_a_quote_that_could_not_be_offered_is_not_created(refusal, said):
    with pytest.raises(refusal):
        create(**said)


def test_a_quote_goes_step_by_step_to_the_customer_and_each_step_once():
    spec(created()).when(pb.SubmitQuoteRequest(name=NAME)).then(QuoteSubmitted())
    waiting = spec(created(), QuoteSubmitted())
    waiting.when(pb.SubmitQuoteRequest(name=NAME)).then()
    waiting.when(pb.ApproveQuoteRequest(name=NAME)).then(QuoteApproved(approver="api_keys/boss"))
    approved = spec(created(), *STEPS[:2])
    approved.when(pb.SendQuoteRequest(name=NAME)).then(QuoteSent(occur_time=at(NOW)))
    sent = spec(created(), *STEPS)
    sent.when(pb.SendQuoteRequest(name=NAME)).then()
    accept = pb.AcceptQuoteRequest(name=NAME, accepted_by="Ada")
    sent.when(accept).then(QuoteAccepted(accepted_by="Ada", occur_time=at(NOW)))


@pytest.mark.parametrize(
    ("steps", "command", "state"),
    [
        ([], pb.ApproveQuoteRequest(name=NAME), "DRAFT"),
        ([], pb.SendQuoteRequest(name=NAME), "DRAFT"),
        ([], pb.RejectQuoteRequest(name=NAME, reason="x"), "DRAFT"),
        (STEPS[:1], pb.UpdateQuoteRequest(name=NAME, details=details()), "PENDING_APPROVAL"),
        (STEPS[:2], pb.SubmitQuoteRequest(name=NAME), "APPROVED"),
        (STEPS[:2], pb.AcceptQuoteRequest(name=NAME, accepted_by="Ada"), "APPROVED"),
        (STEPS, pb.UpdateQuoteRequest(name=NAME, details=details()), "SENT"),
        ([*STEPS, QuoteDeclined(reason="x")], pb.AcceptQuoteRequest(name=NAME), "DECLINED"),
        (
            [*STEPS, QuoteAccepted(accepted_by="Ada", occur_time=ago(1))],
            pb.DeclineQuoteRequest(name=NAME, reason="x"),
            "ACCEPTED",
        ),
        ([*STEPS, QuoteSuperseded(by="x")], pb.AcceptQuoteRequest(name=NAME), "SUPERSEDED"),
    ],
)
def test_no_step_is_left_out_and_what_was_approved_stays_as_it_is(steps, command, state):
    refused = spec(created(), *steps).when(command).then_refused(FailedPrecondition)

    assert state == refused.metadata["state"]


def test_what_is_rejected_is_a_draft_that_says_why_until_it_is_submitted_again():
    reject = pb.RejectQuoteRequest(name=NAME, reason="too cheap")
    rejected = QuoteRejected(reason="too cheap")

    state = spec(created(), QuoteSubmitted()).when(reject).then(rejected)

    assert (pb.QUOTE_STATE_DRAFT, "too cheap") == (state.state, state.rejected_reason)
    again = folded(created(), QuoteSubmitted(), rejected, QuoteSubmitted())
    assert "" == again.rejected_reason


def test_a_quote_is_valid_on_its_last_day_and_has_expired_on_the_next():
    state = folded(created(valid_until=TODAY), *STEPS)

    assert pb.QUOTE_STATE_SENT == state.state_on(NOW.date())
    assert pb.QUOTE_STATE_EXPIRED == state.state_on(NOW.date() + timedelta(days=1))
    assert pb.QUOTE_STATE_DRAFT == folded(created(valid_until="2000-01-01")).state_on(NOW.date())


def test_what_has_expired_cannot_be_sent_or_accepted_but_declined():
    yesterday = (NOW - timedelta(days=1)).date().isoformat()
    start = created(valid_until=yesterday)
    send, accept = (
        pb.SendQuoteRequest(name=NAME),
        pb.AcceptQuoteRequest(name=NAME, accepted_by="Ada"),
    )

    for steps, command in ((STEPS[:2], send), (STEPS, accept)):
        refused = spec(start, *steps).when(command).then_refused(FailedPrecondition)
        assert "EXPIRED" == refused.metadata["state"]
    told_late = pb.AcceptQuoteRequest(name=NAME, accepted_by="Ada", accept_time=ago(1))
    spec(start, *STEPS).when(told_late).then(QuoteAccepted(accepted_by="Ada", occur_time=ago(1)))
    decline = pb.DeclineQuoteRequest(name=NAME, reason="late")
    spec(start, *STEPS).when(decline).then(QuoteDeclined(reason="late"))


@pytest.mark.parametrize("days", [-1, 3])
def test_nothing_is_accepted_in_the_future_or_before_it_was_sent(days):
    accept = pb.AcceptQuoteRequest(name=NAME, accepted_by="Ada", accept_time=ago(days))

    refused = spec(created(), *STEPS).when(accept).then_refused(InvalidArgument)

    assert "accept_time" == refused.violations[0].field


def test_a_draft_is_changed_in_the_fields_that_are_meant():
    before = created(terms="30 days", discount_minor=5)
    given = QuoteDetails(terms="", discount_percent="10", display_name="x")
    mask = FieldMask(paths=["terms", "discount_percent", "discount_minor"])
    kept, totals = offered(details(discount_percent="10"))

    command = pb.UpdateQuoteRequest(name=NAME, details=given, update_mask=mask)
    spec(before).when(command).then(QuoteDrafted(details=kept, totals=totals))
    same = pb.UpdateQuoteRequest(name=NAME, details=QuoteDetails(terms="30 days"))
    spec(before).when(same).then()
    unknown = pb.UpdateQuoteRequest(name=NAME, update_mask=FieldMask(paths=["number"]))
    spec(before).when(unknown).then_refused(InvalidArgument)


def change(own, of, **said):
    request = pb.UpdateQuoteRequest(name=NAME, details=QuoteDetails(**said))
    return quoting.change(NOW, "", NAME, request, own, of)


def test_a_primary_quote_tells_its_deal_when_it_comes_to_something_else():
    own, of = folded(created()), with_primary(NAME)

    assert [] == change(own, of, terms="30 days")[1]
    dearer = details("250").line_items
    assert [quoted(price="250", previous=NAME), amount_changed(25_000, 10_000)] == change(
        own, of, line_items=dearer
    )[1]
    assert [] == change(own, with_primary("quotes/other"), line_items=dearer)[1]


def test_a_closed_deal_is_worth_what_it_was():
    closed = deal.DECIDER.fold([OPENED, quoted(), DealWon(stage=QUALIFICATION)])

    with pytest.raises(FailedPrecondition) as refused:
        change(folded(created()), closed, line_items=details("250").line_items)
    assert "WON" == refused.value.metadata["state"]
    assert [] == change(folded(created()), closed, terms="30 days")[1]


def test_tax_and_shipping_are_no_part_of_what_a_deal_is_worth():
    said = details(shipping_minor=500, discount_percent="10")
    said.line_items.items[0].tax_percent = "19"

    worth = create(details=said)[1]

    assert Money(amount_minor=9_000, currency="EUR") == worth[1].amount


def test_a_quote_is_made_primary_once():
    own, other = folded(created()), with_primary("quotes/other", "900")
    request = pb.MakeQuotePrimaryRequest(name=NAME)

    assert [[], [quoted(previous="quotes/other"), amount_changed(10_000, 90_000)]] == (
        quoting.make_primary(NOW, request, own, other)
    )
    assert [[], []] == quoting.make_primary(NOW, request, own, with_primary(NAME))
    over = folded(created(), *STEPS, QuoteDeclined(reason="x"))
    with pytest.raises(FailedPrecondition):
        quoting.make_primary(NOW, request, over, other)


def test_a_revision_says_what_the_newest_one_says_under_the_same_number():
    own = folded(created(number=7, valid_until=TODAY), *STEPS)

    old, worth, new = quoting.revise(NAME, "quotes/second", own, OPEN, NONE)

    assert [QuoteRevised(next_revision="quotes/second")] == old
    assert [] == worth
    assert [created(number=7, revision=2, earlier=[NAME], valid_until=TODAY)] == new


@pytest.mark.parametrize(
    ("refusal", "own", "of", "new"),
    [
        (NotFound, NONE, OPEN, NONE),
        (FailedPrecondition, folded(created()), OPEN, NONE),
        (FailedPrecondition, folded(created(), QuoteSubmitted()), OPEN, NONE),
        (
            FailedPrecondition,
            folded(created(), *STEPS, REVISED),
            OPEN,
            NONE,
        ),
        (FailedPrecondition, folded(created(), *STEPS), WON, NONE),
        (AlreadyExists, folded(created(), *STEPS), OPEN, folded(created())),
        (
            ResourceExhausted,
            folded(created(revision=quoting.REVISIONS_MAX), *STEPS),
            OPEN,
            NONE,
        ),
    ],
)
def test_what_cannot_be_revised_is_refused(refusal, own, of, new):
    with pytest.raises(refusal):
        quoting.revise(NAME, "quotes/second", own, of, new)


def test_the_last_revision_that_is_allowed_is_made():
    own = folded(created(revision=quoting.REVISIONS_MAX - 1), *STEPS)

    assert quoting.REVISIONS_MAX == quoting.revise(NAME, "quotes/x", own, OPEN, NONE)[2][0].revision


SUPERSEDED = QuoteSuperseded(by=NAME)
SEND = pb.SendQuoteRequest(name=NAME)
ACCEPT = pb.AcceptQuoteRequest(name=NAME, accepted_by="Ada")


@pytest.mark.parametrize(
    ("command", "before", "superseded", "moves"),
    [
        (SEND, STEPS, [SUPERSEDED], True),
        (SEND, STEPS[:2], [SUPERSEDED], True),
        (SEND, [*STEPS, QuoteDeclined(reason="x")], [], True),
        (SEND, [*STEPS, ACCEPTED], [], False),
        (ACCEPT, [*STEPS, ACCEPTED], [SUPERSEDED], True),
    ],
)
def test_a_revision_takes_the_place_of_those_before_it(command, before, superseded, moves):
    """Once it is sent; of one that was accepted, once it is accepted itself."""
    first = {"quotes/first": folded(created("900"), *before)}
    steps = STEPS[:2] if command is SEND else STEPS
    own = folded(created(revision=2, earlier=["quotes/first"]), *steps)

    facts = quoting.conclude(NOW, NAME, command, own, with_primary("quotes/first", "900"), first)

    assert superseded == facts[2]
    moved = [quoted(previous="quotes/first"), amount_changed(10_000, 90_000)]
    assert (moved if moves else []) == facts[1]
    other = quoting.conclude(NOW, NAME, command, own, with_primary("quotes/other", "900"), first)
    assert [] == other[1]


def test_what_was_sent_already_changes_nobody():
    first = {"quotes/first": folded(created(), *STEPS)}

    assert [[], [], []] == quoting.conclude(NOW, NAME, SEND, folded(created(), *STEPS), OPEN, first)
    with pytest.raises(NotFound):
        quoting.conclude(NOW, NAME, SEND, NONE, OPEN, first)
