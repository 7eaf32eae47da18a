"""Laws of lines, whatever they are: the identity holds to the minor unit, in any order."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from rapport.deals.v1.lines_pb2 import (
    BILLING_MONTHLY,
    BILLING_ONE_TIME,
    BILLING_QUARTERLY,
    BILLING_YEARLY,
    LineItem,
)
from services.deals.lines import Whole, priced, read_percent, sums_of, totals_of
from services.kernel.iso4217 import EXPONENTS

MONTHS = {BILLING_MONTHLY: 1, BILLING_QUARTERLY: 3, BILLING_YEARLY: 12}


def decimals(largest, digits):
    return st.decimals(0, largest, places=digits, allow_nan=False).map(lambda each: f"{each:f}")


percents = st.one_of(st.just(""), st.sampled_from(["7", "19"]), decimals(100, 4))
currencies = st.sampled_from(["EUR", "JPY", "KWD", "CLF"])


@st.composite
def items(draw):
    billing = draw(st.sampled_from([BILLING_ONE_TIME, *MONTHS]))
    return LineItem(
        display_name="x",
        quantity=draw(decimals(10_000, 6).filter(Decimal)),
        unit_price=draw(decimals(1_000_000, 6)),
        discount_percent=draw(percents),
        tax_percent=draw(percents),
        billing=billing,
        term_months=draw(st.integers(1, 5)) * MONTHS[billing] if billing in MONTHS else 0,
    )


wholes = st.builds(
    Whole,
    discount_percent=percents.map(lambda text: read_percent(text, "")),
    shipping_minor=st.integers(0, 10**6),
    shipping_tax_percent=percents.map(lambda text: read_percent(text, "")),
)
several = st.lists(items(), min_size=1, max_size=8)


@given(several, wholes, currencies)
def test_the_total_is_the_lines_less_the_discount_and_shipping_and_tax(said, whole, currency):
    kept, lines = priced(said, currency, "items")
    sums = sums_of(lines, whole)
    totals = totals_of(sums, currency)

    subtotal = sum(item.amount.amount_minor for item in kept)
    taxes = sum(each.tax.amount_minor for each in totals.taxes)
    assert subtotal == totals.subtotal.amount_minor
    assert taxes == totals.tax.amount_minor
    assert totals.total.amount_minor == (
        subtotal - totals.discount.amount_minor + whole.shipping_minor + taxes
    )
    assert subtotal - totals.discount.amount_minor == totals.contract_value.amount_minor


@given(several, wholes, currencies, st.randoms(use_true_random=False))
def test_the_order_of_lines_changes_nothing(said, whole, currency, random):
    other = random.sample(said, len(said))

    assert sums_of(priced(said, currency, "")[1], whole) == sums_of(
        priced(other, currency, "")[1], whole
    )


@given(several, wholes, currencies)
def test_what_is_taxed_adds_up_to_what_is_sold(said, whole, currency):
    sums = sums_of(priced(said, currency, "")[1], whole)

    assert sums.contract_value + sums.shipping == sum(taxed for taxed, _ in sums.taxes.values())
    for rate, (taxed, tax) in sums.taxes.items():
        assert taxed >= 0
        assert abs(tax - Fraction(taxed) * Fraction(rate) / 100) <= Fraction(1, 2)


@given(items(), currencies)
def test_a_line_is_within_half_a_minor_unit_of_its_exact_price(item, currency):
    [line] = priced([item], currency, "")[1]
    percent = Fraction(item.discount_percent or 0)
    exact = Fraction(item.quantity) * Fraction(item.unit_price) * (100 - percent) / 100
    difference = line.period_minor - exact * 10 ** EXPONENTS[currency]

    assert Fraction(-1, 2) < difference <= Fraction(1, 2)


@given(several, currencies)
def test_a_month_is_a_twelfth_of_a_year_and_a_year_what_is_paid_in_it(said, currency):
    kept, lines = priced(said, currency, "")
    sums = sums_of(lines, Whole())
    exact = sum(
        Fraction(item.period_amount.amount_minor * 12, MONTHS[item.billing])
        for item in kept
        if item.billing in MONTHS
    )

    assert exact == sums.annual
    assert Fraction(-1, 2) < sums.monthly - exact / 12 <= Fraction(1, 2)


@given(items(), currencies)
def test_lines_that_are_kept_come_to_the_same_again(item, currency):
    kept, lines = priced([item], currency, "")

    assert (kept, lines) == priced(kept, currency, "")
