"""Values of the e-commerce spec, read one by one; what is wrong with them is collected. Pure.

They are read from objects that were `opened`: a property is found under its name of the spec, and
under that in camel case; null, an empty text and nothing are the same.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from services.events.money import (
    Amount,
    MoneyProblem,
    read_amount,
    read_minor_amount,
    whole_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ID_CHARACTERS_MAX: Final = 255
QUANTITY_MAX: Final = 10**6
_NUMBER_DIGITS_MAX: Final = 40
_CAPITAL: Final = re.compile(r"(?<!^)[A-Z]")


class ProblemReason(StrEnum):
    """What may be wrong with what is said of products and orders: stable words for programs."""

    CURRENCY_MISSING = MoneyProblem.CURRENCY_MISSING
    CURRENCY_UNKNOWN = MoneyProblem.CURRENCY_UNKNOWN
    AMOUNT_INVALID = MoneyProblem.AMOUNT_INVALID
    AMOUNT_TOO_LARGE = MoneyProblem.AMOUNT_TOO_LARGE
    AMOUNT_ROUNDED = MoneyProblem.AMOUNT_ROUNDED
    QUANTITY_INVALID = "QUANTITY_INVALID"
    TEXT_INVALID = "TEXT_INVALID"
    ID_INVALID = "ID_INVALID"
    PRODUCT_INVALID = "PRODUCT_INVALID"
    PRODUCT_ID_MISSING = "PRODUCT_ID_MISSING"
    ORDER_ID_MISSING = "ORDER_ID_MISSING"
    PART_INVALID = "PART_INVALID"
    PART_MISSING = "PART_MISSING"
    TOTAL_DIFFERS = "TOTAL_DIFFERS"
    LINES_DIFFER = "LINES_DIFFER"


_MONEY_DETAILS: Final = {
    MoneyProblem.CURRENCY_MISSING: "no currency is said, so it is no amount",
    MoneyProblem.CURRENCY_UNKNOWN: "the currency is no ISO 4217 code with a minor unit",
    MoneyProblem.AMOUNT_INVALID: "is neither a number nor a text that is a plain number",
    MoneyProblem.AMOUNT_TOO_LARGE: "is larger than any amount that is counted",
    MoneyProblem.AMOUNT_ROUNDED: "has more digits than its currency, and was rounded",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where as a JSON pointer into the properties, and the same for people."""

    reason: str
    path: str
    detail: str


@dataclass(slots=True)
class Reading:
    """The problems met while values are read; those since the last blame have no product yet."""

    problems: list[Problem] = field(default_factory=list)
    _blamed: int = 0
    _of_products: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def tell(self, reason: ProblemReason, path: str, detail: str) -> None:
        """Adds a problem."""
        self.problems.append(Problem(str(reason), path, detail))

    def blame(self, product: str) -> None:
        """Says that the problems met since the last time are those of a product."""
        if self._blamed == len(self.problems):
            return
        for problem in self.problems[self._blamed :]:
            self._of_products[product][problem.reason] += 1
        self._blamed = len(self.problems)

    def problems_of(self, product: str, *, and_nobodys: bool) -> dict[str, int]:
        """Which problems a product has; a customer event counts once for each."""
        if not self._of_products:
            return {}
        found = set(self._of_products.get(product, ()))
        if and_nobodys:
            found |= set(self._of_products.get("", ()))
        return dict.fromkeys(sorted(found), 1)

    def has(self, said: Mapping[str, Any], name: str) -> bool:
        """Whether something is said, in its major or its minor unit."""
        return name in said or f"{name}_minor" in said

    def text(self, said: Mapping[str, Any], path: str, name: str) -> str:
        """A text; a number is taken as it is written."""
        written = said.get(name)
        if written is None:
            return ""
        text = _text_of(written)
        if text is None:
            self.tell(ProblemReason.TEXT_INVALID, f"{path}/{name}", "is no text")
            return ""
        return text

    def id(self, said: Mapping[str, Any], path: str, name: str) -> str:
        """A text that names something: short, and without blanks around it."""
        written = said.get(name)
        text = "" if written is None else _text_of(written)
        if text is None or len(text.strip()) > ID_CHARACTERS_MAX:
            detail = f"must be a text of at most {ID_CHARACTERS_MAX} characters, or a number"
            self.tell(ProblemReason.ID_INVALID, f"{path}/{name}", detail)
            return ""
        return text.strip()

    def currency(self, said: Mapping[str, Any], path: str) -> str:
        """A currency's code in capitals; one that is not known is told where an amount needs it."""
        return self.text(said, path, "currency").strip().upper()

    def amount(self, said: Mapping[str, Any], path: str, name: str, currency: str) -> Amount | None:
        """An amount, in the minor unit if it is said so."""
        read, key = read_minor_amount, f"{name}_minor"
        written = said.get(key)
        if written is None:
            read, key = read_amount, name
            written = said.get(name)
        if written is None:
            return None
        amount, problem = read(written, currency)
        if problem is not None:
            self.tell(ProblemReason(problem), f"{path}/{key}", _MONEY_DETAILS[problem])
        return amount

    def quantity(self, said: Mapping[str, Any], path: str) -> int | None:
        """How many; None when that is not said or not a whole number."""
        written = said.get("quantity")
        if written is None:
            return None
        whole = whole_of(written)
        if whole is None or abs(whole) > QUANTITY_MAX:
            detail = f"must be a whole number of at most {QUANTITY_MAX}"
            self.tell(ProblemReason.QUANTITY_INVALID, f"{path}/quantity", detail)
            return None
        return whole

    def whole(self, said: Mapping[str, Any], name: str) -> int | None:
        """A whole number, if one is said."""
        return whole_of(said.get(name))


def opened(said: Mapping[str, Any]) -> dict[str, Any]:
    """An object by the spec's names, without what says nothing; the spec's own spelling wins."""
    found = {}
    for name, written in said.items():
        if written is None or written == "":
            continue
        if name.islower() or (spelt := _spelt(name)) == name:
            found[name] = written
        else:
            found.setdefault(spelt, written)
    return found


@lru_cache(maxsize=1024)
def _spelt(name: str) -> str:
    """`productId` → `product_id`."""
    return _CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)


def _text_of(written: Any) -> str | None:
    if isinstance(written, str):
        return written
    if isinstance(written, Decimal) and abs(written.adjusted()) <= _NUMBER_DIGITS_MAX:
        return format(written, "f")
    return None
