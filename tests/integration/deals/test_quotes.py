"""Quotes with their numbers, their deals and their revisions: all that follows, or nothing."""

import asyncio
import io
import uuid

import pytest
from pypdf import PdfReader

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import quotes_pb2 as pb
from rapport.deals.v1.lines_pb2 import LineItem, LineItems, QuoteDetails
from rapport.deals.v1.quotes_pb2_grpc import QuotesServiceStub
from rapport.deals.v1.service_pb2 import DealDetails, GetDealRequest, UpdateDealRequest
from services.deals.projections.deals import DealsView
from services.deals.projections.quote_rows import QuotesView
from services.kernel.errors import Aborted, FailedPrecondition, NotFound
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.rebuild import Rebuild

PRICE = "1000.00"
LONG_AGO = "2020-02-29"


@pytest.fixture
def quotes(asked):
    """The quotes as the workspace `acme` sees them."""
    return asked.stub(QuotesServiceStub)


@pytest.fixture
def create(quotes):
    """Creates a quote of a deal: `await create("deals/looms", price="10")`."""

    async def create(deal, price=PRICE, quote_id="", **said):
        details = QuoteDetails(line_items=lines(price), **said)
        request = pb.CreateQuoteRequest(deal=deal, quote_id=quote_id, details=details)
        return (await quotes.CreateQuote(request)).quote

    return create


@pytest.fixture
def send(quotes):
    """Brings a draft to the customer."""

    async def send(name):
        await quotes.SubmitQuote(pb.SubmitQuoteRequest(name=name))
        await quotes.ApproveQuote(pb.ApproveQuoteRequest(name=name))
        return (await quotes.SendQuote(pb.SendQuoteRequest(name=name))).quote

    return send


@pytest.fixture
def get(quotes):
    async def get(name, **said):
        return (await quotes.GetQuote(pb.GetQuoteRequest(name=name, **said))).quote

    return get


@pytest.fixture
def amount(deals):
    """What a deal is worth."""

    async def amount(name):
        return (await deals.GetDeal(GetDealRequest(name=name))).deal.amount

    return amount


def lines(price, **said):
    item = LineItem(display_name="Loom", unit_price=price, **{"tax_percent": "19"} | said)
    return LineItems(currency="EUR", items=[item])


async def test_numbers_have_no_gaps_however_many_ask_at_once_or_again(open_deal, create, quotes):
    deals = [await open_deal(f"deal-{number}") for number in range(3)]
    asked = [create(deal.name) for deal in deals * 6]
    asked += [create("deals/none"), create(deals[0].name, price="-1")]

    answered = await asyncio.gather(*asked, return_exceptions=True)

    numbers = sorted(each.number for each in answered if isinstance(each, pb.Quote))
    assert [f"Q-{number:06d}" for number in range(1, 19)] == numbers
    request = pb.CreateQuoteRequest(
        deal=deals[0].name,
        details=QuoteDetails(line_items=lines(PRICE)),
        request_id=str(uuid.uuid4()),
    )
    first, second = [await quotes.CreateQuote(request) for _ in range(2)]
    assert first == second
    assert "Q-000019" == first.quote.number


async def test_the_primary_quote_says_what_its_deal_is_worth(
    open_deal, create, quotes, deals, amount
):
    await open_deal("looms", amount=Money(amount_minor=7, currency="USD"))

    first = await create("deals/looms")
    assert first.primary
    assert Money(amount_minor=100_000, currency="EUR") == await amount("deals/looms")
    assert 119_000 == first.totals.total.amount_minor

    other = await create("deals/looms", price="5")
    assert not other.primary
    assert 100_000 == (await amount("deals/looms")).amount_minor

    details = QuoteDetails(line_items=lines("1500"))
    await quotes.UpdateQuote(pb.UpdateQuoteRequest(name=first.name, details=details))
    assert 150_000 == (await amount("deals/looms")).amount_minor

    made = await quotes.MakeQuotePrimary(pb.MakeQuotePrimaryRequest(name=other.name))
    assert made.quote.primary
    assert 500 == (await amount("deals/looms")).amount_minor
    by_hand = DealDetails(amount=Money(amount_minor=1, currency="EUR"))
    with pytest.raises(FailedPrecondition) as refused:
        await deals.UpdateDeal(UpdateDealRequest(name="deals/looms", deal=by_hand))
    assert "PRIMARY_QUOTE" == refused.value.metadata["state"]
    stale = pb.UpdateQuoteRequest(name=other.name, details=details, etag='"99"')
    with pytest.raises(Aborted):
        await quotes.UpdateQuote(stale)
    assert 500 == (await amount("deals/looms")).amount_minor


async def test_a_revision_takes_the_place_of_the_one_before_once_it_is_sent(
    open_deal, create, send, quotes, get, amount
):
    await open_deal("looms")
    first = await create("deals/looms")
    await send(first.name)

    second = (await quotes.ReviseQuote(pb.ReviseQuoteRequest(name=first.name))).quote
    assert (first.number, 2, first.name) == (
        second.number,
        second.revision,
        second.previous_revision,
    )
    details = QuoteDetails(line_items=lines("900"))
    await quotes.UpdateQuote(pb.UpdateQuoteRequest(name=second.name, details=details))
    assert pb.QUOTE_STATE_SENT == (await get(first.name)).state
    assert 100_000 == (await amount("deals/looms")).amount_minor

    sent = await send(second.name)

    before = await get(first.name)
    assert (pb.QUOTE_STATE_SUPERSEDED, False) == (before.state, before.primary)
    assert (sent, True) == (await get(second.name), sent.primary)
    assert 90_000 == (await amount("deals/looms")).amount_minor
    with pytest.raises(FailedPrecondition):
        await quotes.AcceptQuote(pb.AcceptQuoteRequest(name=first.name, accepted_by="Ada"))
    accept = pb.AcceptQuoteRequest(name=second.name, accepted_by="Ada")
    accepted = (await quotes.AcceptQuote(accept)).quote
    assert accepted == await get(second.name)
    printed = await quotes.RenderQuote(pb.RenderQuoteRequest(name=second.name))
    text = PdfReader(io.BytesIO(printed.content)).pages[0].extract_text()
    assert ("application/pdf", "Q-000001-2.pdf") == (printed.content_type, printed.file_name)
    assert all(part in text for part in ("Q-000001, revision 2", "1,071.00 EUR", "by Ada"))


async def test_a_filter_finds_what_is_shown_now_and_as_of_a_moment(
    asked, open_deal, create, quotes, get, send
):
    await open_deal("looms")
    first = await create("deals/looms", valid_until=LONG_AGO)
    moment = timestamp_of(asked.kernel.clock.now())
    await quotes.SubmitQuote(pb.SubmitQuoteRequest(name=first.name))
    await quotes.ApproveQuote(pb.ApproveQuoteRequest(name=first.name))
    second = await send((await create("deals/looms")).name)
    await quotes.MakeQuotePrimary(pb.MakeQuotePrimaryRequest(name=second.name))

    async def listed(wanted, **said):
        found = await quotes.ListQuotes(pb.ListQuotesRequest(filter=wanted, **said))
        return [(quote.name, quote.state, quote.primary) for quote in found.quotes]

    expired = (first.name, pb.QUOTE_STATE_EXPIRED, False)
    assert [expired] == await listed("state = EXPIRED")
    assert [] == await listed("state = APPROVED")
    assert [(second.name, pb.QUOTE_STATE_SENT, True)] == await listed("primary = true")
    assert pb.QUOTE_STATE_EXPIRED == (await get(first.name)).state
    then = (first.name, pb.QUOTE_STATE_DRAFT, True)
    assert [then] == await listed("primary = true", read_time=moment)
    assert first == await get(first.name, read_time=moment)
    with pytest.raises(NotFound):
        await get(second.name, read_time=moment)
    with pytest.raises(FailedPrecondition) as refused:
        await quotes.SendQuote(pb.SendQuoteRequest(name=first.name))
    assert "EXPIRED" == refused.value.metadata["state"]


async def test_rebuilt_views_equal_the_live_ones(asked, open_deal, create, send, quotes):
    await open_deal("looms")
    first = await create("deals/looms", display_name="Looms")
    await send(first.name)
    second = (await quotes.ReviseQuote(pb.ReviseQuoteRequest(name=first.name))).quote
    await send(second.name)
    third = await create("deals/looms")
    await quotes.MakeQuotePrimary(pb.MakeQuotePrimaryRequest(name=third.name))
    kernel = asked.kernel

    for view in (QuotesView(), DealsView()):
        rebuild = Rebuild(kernel.pool, kernel.log, view, kernel.event_types, {})
        async for _ in rebuild.build():
            pass
        comparison = await rebuild.compare()
        assert comparison.equal
        if view.name == "quotes":
            assert 3 == comparison.live["primaries"][0]
