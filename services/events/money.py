"""Money as sources write it, read exactly or not at all: minor units of an ISO 4217 currency. Pure.

A number is taken as the digits of its JSON text, never as a float. What a source computed in
floats and wrote with more digits than the currency has is rounded to the nearest minor unit, half
to even, and told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from services.kernel.iso4217 import EXPONENTS

AMOUNT_MINOR_MAX: Final = 10**15
"""Small enough that the sums of thousands of such amounts are exact in 64 bits."""

_DIGITS_MAX: Final = 40
_PLAIN: Final = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
_EXACT: Final = Context(prec=_DIGITS_MAX, rounding=ROUND_HALF_EVEN)


class MoneyProblem(StrEnum):
    """Why something is no exact amount: stable words that a program can match on."""

    CURRENCY_MISSING = "CURRENCY_MISSING"
    CURRENCY_UNKNOWN = "CURRENCY_UNKNOWN"
    AMOUNT_INVALID = "AMOUNT_INVALID"
    AMOUNT_TOO_LARGE = "AMOUNT_TOO_LARGE"
    AMOUNT_ROUNDED = "AMOUNT_ROUNDED"


@dataclass(frozen=True, slots=True)
class Amount:
    """So many minor units of a currency."""

    minor: int
    currency: str

    @property
    def text(self) -> str:
        """As it is kept among texts: `GBP 255`."""
        return f"{self.currency} {self.minor}"

    @classmethod
    def of_text(cls, text: str) -> Amount:
        """The amount that a text keeps."""
        currency, _, minor = text.partition(" ")
        return cls(int(minor), currency)


def number_of(text: str) -> Decimal | str:
    """Reads a JSON number exactly; one that no decimal can hold stays its text."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def read_amount(written: Any, currency: str) -> tuple[Amount | None, MoneyProblem | None]:
    """Reads an amount in a currency's major unit: a number, or a text that is a plain number."""
    if not currency:
        return None, MoneyProblem.CURRENCY_MISSING
    exponent = EXPONENTS.get(currency)
    if exponent is None:
        return None, MoneyProblem.CURRENCY_UNKNOWN
    number = _decimal(written)
    if number is None:
        return None, MoneyProblem.AMOUNT_INVALID
    if number and number.adjusted() + exponent >= _DIGITS_MAX // 2:
        return None, MoneyProblem.AMOUNT_TOO_LARGE
    nearest = number.quantize(Decimal(1).scaleb(-exponent), context=_EXACT)
    minor = int(nearest.scaleb(exponent, context=_EXACT))
    if abs(minor) > AMOUNT_MINOR_MAX:
        return None, MoneyProblem.AMOUNT_TOO_LARGE
    problem = None if nearest == number else MoneyProblem.AMOUNT_ROUNDED
    return Amount(minor, currency), problem


def read_minor_amount(written: Any, currency: str) -> tuple[Amount | None, MoneyProblem | None]:
    """Reads an amount in a currency's minor unit, which must be whole."""
    if not currency:
        return None, MoneyProblem.CURRENCY_MISSING
    if currency not in EXPONENTS:
        return None, MoneyProblem.CURRENCY_UNKNOWN
    minor = whole_of(written)
    if minor is None:
        return None, MoneyProblem.AMOUNT_INVALID
    if abs(minor) > AMOUNT_MINOR_MAX:
        return None, MoneyProblem.AMOUNT_TOO_LARGE
    return Amount(minor, currency), None


def whole_of(written: Any) -> int | None:
    """Reads a whole number; None when it is none, or has more digits than anything counted."""
    number = _decimal(written)
    if number is None or (number and number.adjusted() >= _DIGITS_MAX // 2):
        return None
    whole = number.to_integral_value(context=_EXACT)
    return int(whole) if whole == number else None


def decimal_text(amount: Amount) -> str:
    """An amount in its currency's major unit, as a person or a source writes it: `2.55`."""
    return format(Decimal(amount.minor).scaleb(-EXPONENTS[amount.currency], context=_EXACT), "f")


def _decimal(written: Any) -> Decimal | None:
    if isinstance(written, Decimal):
        return written
    if isinstance(written, str) and _PLAIN.fullmatch(written.strip()):
        return Decimal(written.strip())
    return None
