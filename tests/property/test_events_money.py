"""Money is exact in minor units, whatever a source writes, or it is told why it is not."""

import json
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.events.money import (
    AMOUNT_MINOR_MAX,
    Amount,
    MoneyProblem,
    decimal_text,
    number_of,
    read_amount,
    read_minor_amount,
)
from services.kernel.iso4217 import EXPONENTS

currencies = st.sampled_from(sorted(EXPONENTS))
minors = st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX)
amounts = st.builds(Amount, minors, currencies)
json_numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


def read_json(text):
    """A JSON number as commerce reads it."""
    return json.loads(text, parse_float=number_of, parse_int=number_of)


@given(amounts)
def test_minor_units_survive_being_written_and_read(amount):
    written = decimal_text(amount)

    assert (amount, None) == read_amount(written, amount.currency)
    assert (amount, None) == read_amount(read_json(written), amount.currency)
    assert (amount, None) == read_minor_amount(read_json(str(amount.minor)), amount.currency)
    assert amount == Amount.of_text(amount.text)


@given(amounts, st.integers(0, 12))
def test_zeros_at_the_end_say_nothing(amount, zeros):
    written = decimal_text(amount)
    longer = written + ("" if "." in written else ".0") + "0" * zeros

    assert (amount, None) == read_amount(longer, amount.currency)


@given(json_numbers, currencies)
def test_every_number_is_an_amount_within_half_a_unit_or_told(text, currency):
    amount, problem = read_amount(read_json(text), currency)

    if amount is None:
        assert problem in {MoneyProblem.AMOUNT_TOO_LARGE, MoneyProblem.AMOUNT_INVALID}
        return
    exact = Fraction(text) * 10 ** EXPONENTS[currency]
    assert abs(amount.minor - exact) <= Fraction(1, 2)
    is_exact = amount.minor == exact
    assert (None if is_exact else MoneyProblem.AMOUNT_ROUNDED) == problem


@given(amounts)
def test_what_a_program_computes_in_floats_is_the_nearest_unit(amount):
    as_float = float(decimal_text(amount))
    if abs(amount.minor) > 10**12:
        return

    read, _ = read_amount(read_json(json.dumps(as_float)), amount.currency)

    assert amount == read
