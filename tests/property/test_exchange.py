"""Laws of exchange: exact to half a minor unit, in order, and by the newest rate of the day."""

from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.deals.exchange import (
    CONVERTED_MINOR_MAX,
    ConvertedTooLarge,
    Rate,
    Rates,
    UnknownRate,
    rate_text,
    read_rate,
)
from services.kernel.iso4217 import EXPONENTS

DAY = date(2026, 3, 1)

currencies = st.sampled_from(sorted(EXPONENTS))
few_currencies = st.sampled_from(["EUR", "USD", "JPY", "KWD"])
amounts = st.integers(0, CONVERTED_MINOR_MAX)
rate_texts = st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,12})?", fullmatch=True).filter(read_rate)
days = st.integers(0, 20).map(lambda number: DAY + timedelta(days=number))


def converted(amount_minor, source, target, rate):
    """The amount, or None when it is too large."""
    rates = Rates([Rate(source, target, DAY, read_rate(rate))])
    try:
        return rates.convert(amount_minor, source, target, DAY)
    except ConvertedTooLarge:
        return None


@given(amounts, currencies, currencies, rate_texts)
def test_what_is_converted_is_within_half_a_minor_unit_and_half_is_rounded_up(
    amount_minor, source, target, rate
):
    exact = Fraction(amount_minor) * Fraction(rate)
    exact *= Fraction(10) ** (EXPONENTS[target] - EXPONENTS[source])
    if source == target:
        exact = Fraction(amount_minor)

    told = converted(amount_minor, source, target, rate)

    if told is None:
        assert exact + Fraction(1, 2) >= CONVERTED_MINOR_MAX + 1
    else:
        assert -Fraction(1, 2) < told - exact <= Fraction(1, 2) or told == exact


@given(amounts, amounts, currencies, currencies, rate_texts)
def test_more_of_a_currency_is_never_less_of_another(one, other, source, target, rate):
    less, more = sorted([one, other])
    told_less = converted(less, source, target, rate)
    told_more = converted(more, source, target, rate)

    assert told_more is None or told_less <= told_more


@given(amounts, currencies, days)
def test_a_currency_is_worth_itself_on_any_day(amount_minor, currency, day):
    assert amount_minor == Rates().convert(amount_minor, currency, currency, day)


@given(rate_texts)
def test_a_rate_survives_being_written_and_read(text):
    written = rate_text(read_rate(text))

    assert Decimal(text) == read_rate(written)
    assert written == rate_text(read_rate(written))


@given(
    st.dictionaries(st.tuples(few_currencies, few_currencies, days), rate_texts, max_size=30),
    few_currencies,
    few_currencies,
    days,
)
def test_the_rate_that_counts_is_the_newest_up_to_the_day(said, source, target, day):
    known = Rates(
        Rate(from_currency, to_currency, effective_date, Decimal(rate))
        for (from_currency, to_currency, effective_date), rate in said.items()
    )
    before = [
        (effective_date, Decimal(rate))
        for (from_currency, to_currency, effective_date), rate in said.items()
        if (from_currency, to_currency) == (source, target) and effective_date <= day
    ]

    if before:
        assert max(before)[1] == known.on(source, target, day)
    else:
        with pytest.raises(UnknownRate):
            known.on(source, target, day)
