"""What sources write for money is read exactly, and what cannot be read has a reason."""

from decimal import Decimal

import pytest

from services.events.money import (
    AMOUNT_MINOR_MAX,
    Amount,
    MoneyProblem,
    decimal_text,
    read_amount,
    read_minor_amount,
    whole_of,
)


@pytest.mark.parametrize(
    ("written", "currency", "minor"),
    [
        (Decimal("18.99"), "USD", 1899),
        (Decimal(19), "USD", 1900),
        (Decimal("-27.5"), "GBP", -2750),
        (Decimal("1e2"), "EUR", 10_000),
        ("18.99", "USD", 1899),
        (" +3 ", "USD", 300),
        (Decimal(1_000), "JPY", 1_000),
        (Decimal("1.234"), "KWD", 1_234),
        (Decimal("1.2345"), "CLF", 12_345),
        (Decimal(0), "XOF", 0),
    ],
)
def test_an_amount_is_read_to_the_minor_unit_of_its_currency(written, currency, minor):
    assert (Amount(minor, currency), None) == read_amount(written, currency)


@pytest.mark.parametrize(
    ("written", "minor"),
    [
        (Decimal("27.499999999999996"), 2750),
        (Decimal("0.30000000000000004"), 30),
        (Decimal("0.125"), 12),
        (Decimal("0.135"), 14),
        ("0.005", 0),
    ],
)
def test_more_digits_than_the_currency_has_are_rounded_and_told(written, minor):
    assert (Amount(minor, "EUR"), MoneyProblem.AMOUNT_ROUNDED) == read_amount(written, "EUR")


@pytest.mark.parametrize(
    ("written", "currency", "problem"),
    [
        (Decimal(1), "", MoneyProblem.CURRENCY_MISSING),
        (Decimal(1), "XYZ", MoneyProblem.CURRENCY_UNKNOWN),
        (Decimal(1), "XAU", MoneyProblem.CURRENCY_UNKNOWN),
        ("$18.99", "USD", MoneyProblem.AMOUNT_INVALID),
        ("18,99", "EUR", MoneyProblem.AMOUNT_INVALID),
        ("1,234.56", "USD", MoneyProblem.AMOUNT_INVALID),
        ("1e5", "USD", MoneyProblem.AMOUNT_INVALID),
        ("NaN", "USD", MoneyProblem.AMOUNT_INVALID),
        ("", "USD", MoneyProblem.AMOUNT_INVALID),
        ("\uff19", "USD", MoneyProblem.AMOUNT_INVALID),
        (True, "USD", MoneyProblem.AMOUNT_INVALID),
        ([], "USD", MoneyProblem.AMOUNT_INVALID),
        (Decimal("1e300"), "USD", MoneyProblem.AMOUNT_TOO_LARGE),
        (Decimal("9" * 30_000), "USD", MoneyProblem.AMOUNT_TOO_LARGE),
    ],
)
def test_what_is_no_amount_is_told_with_its_reason(written, currency, problem):
    assert (None, problem) == read_amount(written, currency)


def test_the_largest_amount_is_read_and_the_next_is_not():
    largest = Amount(AMOUNT_MINOR_MAX, "USD")

    assert (largest, None) == read_amount(decimal_text(largest), "USD")
    beyond = decimal_text(Amount(AMOUNT_MINOR_MAX + 1, "USD"))
    assert (None, MoneyProblem.AMOUNT_TOO_LARGE) == read_amount(beyond, "USD")
    assert (largest, None) == read_minor_amount(Decimal(AMOUNT_MINOR_MAX), "USD")
    too_many = Decimal(AMOUNT_MINOR_MAX + 1)
    assert (None, MoneyProblem.AMOUNT_TOO_LARGE) == read_minor_amount(too_many, "USD")


def test_an_amount_in_minor_units_is_whole():
    assert (Amount(255, "GBP"), None) == read_minor_amount(Decimal("255.0"), "GBP")
    assert (None, MoneyProblem.AMOUNT_INVALID) == read_minor_amount(Decimal("2.55"), "GBP")
    assert (None, MoneyProblem.CURRENCY_MISSING) == read_minor_amount(Decimal(1), "")
    assert (None, MoneyProblem.CURRENCY_UNKNOWN) == read_minor_amount(Decimal(1), "gbp")


def test_a_whole_number_is_whole():
    assert 2 == whole_of(Decimal("2.0")) == whole_of("2")
    for odd in (Decimal("1.5"), "two", None, Decimal("1e50"), 7):
        assert whole_of(odd) is None
