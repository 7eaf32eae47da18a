"""What lines come to: reference vectors, and the edges of every limit."""

from decimal import Decimal

import pytest

from rapport.deals.v1.lines_pb2 import (
    BILLING_MONTHLY,
    BILLING_ONE_TIME,
    BILLING_QUARTERLY,
    BILLING_YEARLY,
    LineItem,
)
from services.deals.lines import (
    AMOUNT_MINOR_MAX,
    LINES_MAX,
    Line,
    Whole,
    priced,
    read_line,
    sums_of,
    totals_of,
)
from services.kernel.errors import InvalidArgument, ResourceExhausted

BILLED = {"display_name": "Support", "unit_price": "100"}


def line(unit_price, currency="EUR", **said):
    return read_line(LineItem(display_name="x", unit_price=unit_price, **said), currency, "line")


@pytest.mark.parametrize(
    ("minor", "unit_price", "said"),
    [
        (100_000, "1000", {}),
        (2_500, "10", {"quantity": "2.5"}),
        # Half a minor unit goes up.
        (1, "0.005", {}),
        (0, "0.004999", {}),
        (333, "1.11", {"quantity": "3"}),
        # 3 * 0.3333 = 0.9999: a price may be finer than a cent, the line is not.
        (100, "0.3333", {"quantity": "3"}),
        (9_000, "100", {"discount_percent": "10"}),
        # 9.99 less 12.5 % is 8.74125.
        (874, "9.99", {"discount_percent": "12.5"}),
        (9_950, "100", {"discount_minor": 50}),
        (0, "100", {"discount_percent": "100"}),
    ],
)
def test_a_line_is_rounded_half_up_to_the_minor_unit(minor, unit_price, said):
    assert minor == line(unit_price, **said).minor


@pytest.mark.parametrize(
    ("currency", "minor"), [("JPY", 13), ("EUR", 1_250), ("KWD", 12_500), ("CLF", 125_000)]
)
def test_a_line_has_the_digits_of_its_currency(currency, minor):
    assert minor == line("12.5", currency).minor


@pytest.mark.parametrize(
    ("billing", "months", "minor", "monthly", "annual"),
    [
        (BILLING_ONE_TIME, 0, 10_000, 0, 0),
        (BILLING_MONTHLY, 12, 120_000, 10_000, 120_000),
        (BILLING_MONTHLY, 1, 10_000, 10_000, 120_000),
        (BILLING_QUARTERLY, 24, 80_000, 3_333, 40_000),
        (BILLING_YEARLY, 36, 30_000, 833, 10_000),
    ],
)
def test_what_is_paid_again_and_again_is_told_by_month_by_year_and_over_its_term(
    billing, months, minor, monthly, annual
):
    sums = sums_of([line("100", billing=billing, term_months=months)], Whole())

    assert (minor, monthly, annual) == (sums.contract_value, sums.monthly, sums.annual)


def test_a_period_is_rounded_before_the_term_is_paid():
    # 3 * 3.335 = 10.005 a month: twelve invoices of 10.01.
    monthly = line("3.335", quantity="3", billing=BILLING_MONTHLY, term_months=12)

    assert (1_001, 12_012) == (monthly.period_minor, monthly.minor)


def test_the_sums_of_a_document_follow_the_european_standard():
    """Its lines, a discount on the whole, shipping and two rates, counted by hand."""
    lines = [Line(10_000, tax_percent=Decimal(19)), Line(5_000, tax_percent=Decimal(7))]
    whole = Whole(
        discount_percent=Decimal(10), shipping_minor=1_000, shipping_tax_percent=Decimal(19)
    )

    sums = sums_of(lines, whole)

    # The discount of 15.00 lowers 100.00 by 10.00 and 50.00 by 5.00; shipping is taxed at 19 %.
    assert {Decimal(7): (4_500, 315), Decimal(19): (10_000, 1_900)} == dict(sums.taxes)
    assert (15_000, 1_500, 1_000, 2_215, 16_715) == (
        sums.subtotal,
        sums.discount,
        sums.shipping,
        sums.tax,
        sums.total,
    )


def test_tax_is_rounded_per_rate_and_not_per_line():
    # 3 * 0.13 at 7 % is 0.0273, one cent each by line but 3 cents together.
    lines = [Line(13, tax_percent=Decimal(7))] * 3

    assert 3 == sums_of(lines, Whole()).tax


def test_the_shares_of_a_discount_add_up_to_it():
    lines = [Line(100, tax_percent=Decimal(rate)) for rate in (0, 7, 19)]

    sums = sums_of(lines, Whole(discount_minor=100))

    assert [66, 67, 67] == [taxable for taxable, _ in sums.taxes.values()]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("quantity", {"quantity": "0"}),
        ("quantity", {"quantity": "-1"}),
        ("quantity", {"quantity": "1e3"}),
        ("quantity", {"quantity": "1234567890"}),
        ("quantity", {"quantity": "1.1234567"}),
        ("unit_price", {"unit_price": "1,50"}),
        ("unit_price", {"unit_price": "1234567890123"}),
        ("unit_price", {"unit_price": "0.1234567"}),
        ("discount_percent", {"discount_percent": "100.1"}),
        ("discount_percent", {"discount_percent": "1.23456"}),
        ("discount_minor", {"discount_minor": 10_001}),
        ("discount_minor", {"discount_minor": 1, "discount_percent": "1"}),
        ("tax_percent", {"tax_percent": "101"}),
        ("term_months", {"term_months": 12}),
        ("term_months", {"billing": BILLING_MONTHLY}),
        ("term_months", {"billing": BILLING_QUARTERLY, "term_months": 4}),
        ("term_months", {"billing": BILLING_YEARLY, "term_months": 18}),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(field, said):
    with pytest.raises(InvalidArgument) as refused:
        priced([LineItem(**BILLED | said)], "EUR", "items")

    assert [f"items[0].{field}"] == [violation.field for violation in refused.value.violations]


def test_the_largest_digits_that_are_allowed_are_exact():
    finest = line("999999.999999", quantity="999999.999999", discount_percent="0.0001")

    exact = 999_999_999_999 * 999_999_999_999 * 999_999
    assert (2 * exact + 10**16) // (2 * 10**16) == finest.minor


def test_what_is_larger_than_can_be_added_up_is_refused():
    assert AMOUNT_MINOR_MAX == line("100000000000", quantity="100").minor
    with pytest.raises(InvalidArgument):
        line("100000000000.01", quantity="100")
    assert AMOUNT_MINOR_MAX == sums_of([Line(AMOUNT_MINOR_MAX)], Whole()).total
    with pytest.raises(InvalidArgument):
        sums_of([Line(AMOUNT_MINOR_MAX), Line(1)], Whole())


def test_more_cannot_be_given_away_than_the_lines_come_to():
    assert 0 == sums_of([Line(100)], Whole(discount_minor=100)).total
    with pytest.raises(InvalidArgument):
        sums_of([Line(100)], Whole(discount_minor=101))


def test_lines_are_numbered_where_they_have_no_id_of_their_own():
    items = [LineItem(**BILLED, line_id=line_id) for line_id in ("", "1", "b", "")]

    kept, _ = priced(items, "EUR", "items")

    assert ["2", "1", "b", "3"] == [item.line_id for item in kept]
    assert kept == priced(kept, "EUR", "items")[0]


def test_no_two_lines_have_one_id():
    with pytest.raises(InvalidArgument) as refused:
        priced([LineItem(**BILLED, line_id="a")] * 2, "EUR", "items")

    assert "items[1].line_id" == refused.value.violations[0].field


def test_there_are_at_most_so_many_lines():
    assert LINES_MAX == len(priced([LineItem(**BILLED)] * LINES_MAX, "EUR", "items")[0])
    with pytest.raises(ResourceExhausted):
        priced([LineItem(**BILLED)] * (LINES_MAX + 1), "EUR", "items")


def test_totals_are_told_in_the_currency_of_the_lines():
    totals = totals_of(sums_of([Line(1_200, payments_a_year=12)], Whole()), "EUR")

    assert ("EUR", 1_200, 14_400) == (
        totals.total.currency,
        totals.recurring.monthly.amount_minor,
        totals.recurring.annual.amount_minor,
    )
