"""Currencies have codes of three capitals and minor units of so many digits."""

from services.kernel.iso4217 import EXPONENTS


def test_every_currency_is_three_capitals_with_its_digits():
    assert all(len(code) == 3 and code.isalpha() and code.isupper() for code in EXPONENTS)
    assert {0, 2, 3, 4} == set(EXPONENTS.values())
    assert (2, 0, 3, 4) == tuple(EXPONENTS[code] for code in ("EUR", "JPY", "KWD", "CLF"))
