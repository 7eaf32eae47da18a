"""What is printed is what is recorded, read back from the document."""

import io
from datetime import UTC, datetime

import pytest
from pypdf import PdfReader

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.lines_pb2 import (
    BILLING_QUARTERLY,
    LineItem,
    LineItems,
    QuoteDetails,
)
from rapport.deals.v1.quotes_pb2 import QUOTE_STATE_DRAFT, QUOTE_STATE_SENT
from services.deals.lines import serialised
from services.deals.quote import State, offered
from services.deals.quote_pdf import file_name, money_text, rendered

SENT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def state(items, currency="EUR", number=7, **said):
    known = {"state": QUOTE_STATE_SENT, "send_time": SENT, "revision": 1} | {
        name: said.pop(name) for name in ("state", "send_time", "revision") if name in said
    }
    lines = LineItems(currency=currency, items=items)
    details, totals = offered(QuoteDetails(line_items=lines, **said))
    return State(
        number=number,
        deal="deals/x",
        details=serialised(details),
        totals=serialised(totals),
        valid_until=details.valid_until,
        **known,
    )


def pages(quote):
    return [page.extract_text() for page in PdfReader(io.BytesIO(rendered(quote))).pages]


def item(**said):
    return LineItem(**{"display_name": "Loom", "unit_price": "1234.5"} | said)


def test_the_sums_are_those_of_the_quote():
    quote = state(
        [item(quantity="2", tax_percent="19"), item(tax_percent="7", discount_percent="10")],
        discount_minor=1_000,
        shipping_minor=500,
        valid_until="2026-03-31",
    )

    [text] = pages(quote)

    expected = ["Quote Q-000007", "2026-03-01", "2026-03-31", "2,469.00", "1,111.05"]
    expected += ["3,580.05 EUR", "-10.00 EUR", "5.00 EUR", "4,120.41 EUR"]
    assert [] == [part for part in expected if part not in text]


def test_the_same_quote_is_the_same_bytes_dated_when_it_was_sent():
    quote = state([item()])

    assert rendered(quote) == rendered(quote)
    assert SENT == PdfReader(io.BytesIO(rendered(quote))).metadata.creation_date


def test_names_in_latin_greek_and_cyrillic_are_printed_and_nothing_is_markup():
    names = ["Žluťoučký kůň", "Ταχίστη αλώπηξ", "Съешь ещё", "<b>& co"]
    quote = state([item(display_name=name) for name in names], recipient="\n".join(names))

    [text] = pages(quote)

    assert [2] * 4 == [text.count(name) for name in names]


def test_what_the_fonts_lack_is_no_failure():
    assert 1 == len(pages(state([item(display_name="織機 \x07 \U0001f9f5")])))


def test_many_lines_go_over_pages_that_are_counted():
    found = pages(state([item(display_name=f"Loom {place}") for place in range(60)]))

    assert len(found) > 1
    for number, text in enumerate(found, start=1):
        assert f"Page {number} of {len(found)}" in text
    assert all("Unit price" in text for text in found[:2])
    assert 60 == sum(text.count("Loom ") for text in found)


def test_the_longest_texts_fit():
    long = item(display_name="W" * 200, description="W" * 1_000, quantity="999999.999999")

    assert pages(state([long] * 2, terms="W" * 10_000))


@pytest.mark.parametrize(
    "said",
    [
        {"display_name": "W\n" * 100},
        {"description": ("W" * 12 + " ") * 76},
        {"display_name": "‱" * 200, "description": "‱" * 1_000},
    ],
)
def test_a_line_that_is_longer_than_a_page_goes_over_pages(said):
    found = pages(state([item(**said), item(display_name="Shuttle")]))

    printed, [character] = "".join(found), {text[0] for text in said.values()}
    assert len(found) > 1
    assert sum(text.count(character) for text in said.values()) == printed.count(character)
    assert "Shuttle" in printed


def test_the_first_line_is_not_cut_however_long_the_head_is():
    line = item(display_name="Loom", description="Weaves " * 20)

    for rows in range(47, 54):
        [whole] = [text for text in pages(state([line], recipient="a\n" * rows)) if "Loom" in text]

        assert 20 == whole.count("Weaves")


def test_a_draft_says_so():
    [text] = pages(state([item()], state=QUOTE_STATE_DRAFT, send_time=None))

    assert "Draft: this is no offer yet" in text


def test_what_is_paid_again_and_again_is_told():
    quote = state([item(unit_price="30", billing=BILLING_QUARTERLY, term_months=24)], revision=2)

    [text] = pages(quote)

    told = ["30.00 EUR every 3 months, for 24 months", "240.00", "10.00 EUR a month"]
    assert [] == [part for part in told if part not in text]
    assert "Q-000007-2.pdf" == file_name(quote)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (123_450, "EUR", "1,234.50 EUR"),
        (1_234, "JPY", "1,234 JPY"),
        (5, "KWD", "0.005 KWD"),
        (10**15, "EUR", "10,000,000,000,000.00 EUR"),
    ],
)
def test_money_has_the_digits_of_its_currency(minor, currency, text):
    assert text == money_text(Money(amount_minor=minor, currency=currency))
