"""Laws of quotes, whatever is asked of them in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from rapport.deals.v1 import quotes_pb2 as pb
from rapport.deals.v1.events_pb2 import DealOpened
from rapport.deals.v1.lines_pb2 import LineItem, LineItems, QuoteDetails, Totals
from services.deals.deciders import deal, quote, quote_numbers, quoting
from services.deals.quote import State
from services.kernel.errors import RapportError
from tests.deals_world import NOW, QUALIFICATION

DEAL = "deals/looms"
VERBS = ("Submit", "Approve", "Reject", "Send", "Accept", "Decline", "Update", "Revise", "Primary")
steps = st.lists(
    st.tuples(st.sampled_from([*VERBS, "Create"]), st.integers(0, 5), st.integers(1, 9)),
    max_size=60,
)


class World:
    """A deal with its quotes: commands are tried, and what is refused changes nothing."""

    def __init__(self):
        self.deal = deal.DECIDER.fold([DealOpened(display_name="x", stage=QUALIFICATION)])
        self.numbers = quote_numbers.DECIDER.initial
        self.quotes = {}

    def ask(self, verb, place, price):
        if verb == "Create":
            return self.create(f"quotes/{len(self.quotes)}", price)
        if place >= len(self.quotes):
            return None
        name = list(self.quotes)[place]
        own = self.quotes[name]
        if verb == "Revise":
            new = f"quotes/{len(self.quotes)}"
            parts = quoting.revise(name, new, own, self.deal, State())
            return self.record([name, DEAL, new], parts)
        if verb == "Primary":
            request = pb.MakeQuotePrimaryRequest(name=name)
            parts = quoting.make_primary(NOW, request, own, self.deal)
            return self.record([name, DEAL], parts)
        if verb in {"Send", "Accept"}:
            earlier = {each: self.quotes[each] for each in own.earlier_revisions}
            request = getattr(pb, f"{verb}QuoteRequest")(name=name)
            parts = quoting.conclude(NOW, name, request, own, self.deal, earlier)
            return self.record([name, DEAL, *earlier], parts)
        request = getattr(pb, f"{verb}QuoteRequest")(name=name)
        if verb == "Update":
            request.details.CopyFrom(offer(price))
        parts = quoting.change(NOW, "", name, request, own, self.deal)
        return self.record([name, DEAL], parts)

    def create(self, name, price):
        request = pb.CreateQuoteRequest(deal=DEAL, details=offer(price))
        parts = quoting.create(NOW, request, name, State(), self.deal, self.numbers)
        self.numbers = quote_numbers.DECIDER.fold(parts[2], self.numbers)
        return self.record([name, DEAL], parts[:2])

    def record(self, names, parts):
        for name, facts in zip(names, parts, strict=True):
            if name == DEAL:
                self.deal = deal.DECIDER.fold(facts, self.deal)
            else:
                self.quotes[name] = quote.DECIDER.fold(facts, self.quotes.get(name, State()))

    def of_number(self, number):
        return [each for each in self.quotes.values() if each.number == number]


def offer(price):
    item = LineItem(display_name="x", unit_price=str(price), tax_percent="19")
    return QuoteDetails(line_items=LineItems(currency="EUR", items=[item]))


def worlds(asked):
    """The world after each command."""
    world = World()
    for step in asked:
        try:
            world.ask(*step)
        except RapportError:
            continue
        yield world


@given(steps)
def test_a_deal_is_always_worth_what_its_primary_quote_comes_to(asked):
    for world in worlds(asked):
        primary = world.quotes.get(world.deal.primary_quote)
        assert bool(world.quotes) == (primary is not None)
        if primary is not None:
            assert Totals.FromString(primary.totals).contract_value == world.deal.amount


@given(steps)
def test_of_one_number_the_customer_holds_one_offer_and_accepted_one_at_the_most(asked):
    for world in worlds(asked):
        for number in range(1, world.numbers.last + 1):
            states = [each.state for each in world.of_number(number)]
            assert states.count(pb.QUOTE_STATE_SENT) <= 1
            assert states.count(pb.QUOTE_STATE_ACCEPTED) <= 1


@given(steps)
def test_numbers_and_revisions_are_counted_without_gaps(asked):
    for world in worlds(asked):
        for number in range(1, world.numbers.last + 1):
            revisions = [each.revision for each in world.of_number(number)]
            assert list(range(1, len(revisions) + 1)) == revisions
        assert len(world.quotes) == sum(
            len(world.of_number(number)) for number in range(1, world.numbers.last + 1)
        )


@given(steps)
def test_what_was_approved_says_the_same_for_ever(asked):
    approved = {}
    for world in worlds(asked):
        for name, each in world.quotes.items():
            if name in approved:
                assert approved[name] == (each.details, each.totals, each.number, each.revision)
            elif each.approver or each.state not in {
                pb.QUOTE_STATE_DRAFT,
                pb.QUOTE_STATE_PENDING_APPROVAL,
            }:
                approved[name] = (each.details, each.totals, each.number, each.revision)
