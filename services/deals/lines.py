"""Line items: what each comes to, and what all come to together, to the minor unit. Pure.

Each line is rounded half up to the currency's minor unit, once for a period, and what is paid over
its term is so many times that: it is what the invoices will add up to. Then everything is a sum
of whole numbers, so no order of lines changes anything:

    total = sum of lines - discount on the whole + shipping + tax

Tax is counted per rate, not per line, as EN 16931-1 has it (BR-CO-10, -13, -15 and -17): the rate
of what is taxed at it, rounded half up once. The discount on the whole lowers what is taxed at each
rate by its share, and the shares add up to the discount.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact
from typing import TYPE_CHECKING, Final

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.lines_pb2 import (
    BILLING_MONTHLY,
    BILLING_ONE_TIME,
    BILLING_QUARTERLY,
    BILLING_UNSPECIFIED,
    BILLING_YEARLY,
    LineItem,
    LineItems,
    RecurringRevenue,
    TaxTotal,
    Totals,
)
from services.kernel.errors import InvalidArgument, ResourceExhausted
from services.kernel.iso4217 import EXPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.message import Message

LINES_MAX: Final = 200
AMOUNT_MINOR_MAX: Final = 10**15
"""Of anything that is added up; small enough that thousands of them are exact in 64 bits."""
QUANTITY_DIGITS: Final = 9
PRICE_DIGITS: Final = 12
FRACTION_DIGITS: Final = 6
PERCENT_FRACTION_DIGITS: Final = 4

_TOO_MUCH: Final = f"comes to more than {AMOUNT_MINOR_MAX} minor units"
_PERCENT_MAX: Final = 100
_MONTHS: Final = {BILLING_MONTHLY: 1, BILLING_QUARTERLY: 3, BILLING_YEARLY: 12}
_MONTHS_OF_YEAR: Final = 12
# The digits of a quantity, a price and a percentage together, and of minor units.
_EXACT: Final = Context(prec=64, traps=[Inexact])
_HALF_UP: Final = Context(prec=64, rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Line:
    """What a line comes to: `period_minor` each time it is paid, `periods` times."""

    period_minor: int
    periods: int = 1
    payments_a_year: int = 0
    tax_percent: Decimal = Decimal(0)

    @property
    def minor(self) -> int:
        """What is paid over the term."""
        return self.period_minor * self.periods

    @property
    def annual_minor(self) -> int:
        """What is paid again and again, in a year."""
        return self.period_minor * self.payments_a_year


@dataclass(frozen=True, slots=True)
class Whole:
    """What is said of all lines together; errors name the fields of it under `path`."""

    path: str = ""
    discount_percent: Decimal = Decimal(0)
    discount_minor: int = 0
    shipping_minor: int = 0
    shipping_tax_percent: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Sums:
    """What lines come to together, in minor units; by rate what is taxed, and the tax."""

    subtotal: int
    discount: int
    shipping: int
    taxes: Mapping[Decimal, tuple[int, int]] = field(default_factory=dict)
    annual: int = 0

    @property
    def tax(self) -> int:
        """All tax."""
        return sum(tax for _, tax in self.taxes.values())

    @property
    def contract_value(self) -> int:
        """What is earned over all terms."""
        return self.subtotal - self.discount

    @property
    def total(self) -> int:
        """What is to be paid in all."""
        return self.subtotal - self.discount + self.shipping + self.tax

    @property
    def monthly(self) -> int:
        """A twelfth of what is earned again and again in a year."""
        return rounded(_HALF_UP.divide(Decimal(self.annual), Decimal(_MONTHS_OF_YEAR)))


def sums_of(lines: Sequence[Line], whole: Whole) -> Sums:
    """Adds lines up. InvalidArgument when more is given away than they come to."""
    subtotal = sum(line.minor for line in lines)
    discount = whole.discount_minor or rounded(_share(Decimal(subtotal), whole.discount_percent))
    if discount > subtotal:
        raise InvalidArgument.of(f"{whole.path}discount_minor", "is more than the lines come to")
    taxable = _taxable(lines, discount)
    if whole.shipping_minor:
        taxable[whole.shipping_tax_percent] += whole.shipping_minor
    taxes = {
        rate: (taxed, rounded(_share(Decimal(taxed), rate)))
        for rate, taxed in sorted(taxable.items())
    }
    annual = sum(line.annual_minor for line in lines)
    sums = Sums(subtotal, discount, whole.shipping_minor, taxes, annual)
    if max(subtotal, sums.total, annual) > AMOUNT_MINOR_MAX:
        raise InvalidArgument.of(f"{whole.path}line_items", _TOO_MUCH)
    return sums


def _taxable(lines: Iterable[Line], discount: int) -> defaultdict[Decimal, int]:
    """By rate what its lines come to, less their share of the discount on the whole.

    Shares are rounded down; the minor units that are left go to the largest remainders, of equal
    ones to the lowest rate.
    """
    by_rate: defaultdict[Decimal, int] = defaultdict(int)
    for line in lines:
        by_rate[line.tax_percent] += line.minor
    subtotal = sum(by_rate.values())
    if not discount:
        return by_rate
    shares = {rate: divmod(amount * discount, subtotal) for rate, amount in by_rate.items()}
    left = discount - sum(share for share, _ in shares.values())
    by_remainder = sorted(shares, key=lambda rate: (-shares[rate][1], rate))
    for place, rate in enumerate(by_remainder):
        by_rate[rate] -= shares[rate][0] + (place < left)
    return by_rate


def _share(amount: Decimal, percent: Decimal) -> Decimal:
    return _EXACT.multiply(amount, percent.scaleb(-2, context=_EXACT))


def rounded(minor: Decimal) -> int:
    """The nearest whole minor unit, half of one up."""
    return int(minor.to_integral_value(context=_HALF_UP))


def read_line(item: LineItem, currency: str, path: str) -> Line:
    """Reads a line; InvalidArgument on the field that is wrong, under `path`."""
    quantity = _decimal(item.quantity or "1", f"{path}.quantity", QUANTITY_DIGITS, FRACTION_DIGITS)
    price = _decimal(item.unit_price, f"{path}.unit_price", PRICE_DIGITS, FRACTION_DIGITS)
    if not quantity:
        raise InvalidArgument.of(f"{path}.quantity", "lies above 0")
    percent = read_percent(item.discount_percent, f"{path}.discount_percent")
    if percent and item.discount_minor:
        raise InvalidArgument.of(f"{path}.discount_minor", "stands instead of discount_percent")
    gross = _EXACT.multiply(quantity, price).scaleb(EXPONENTS[currency], context=_EXACT)
    net = _share(gross, _PERCENT_MAX - percent)
    period_minor = rounded(net) - item.discount_minor
    if period_minor < 0:
        raise InvalidArgument.of(f"{path}.discount_minor", "is more than the price")
    line = Line(
        period_minor,
        _periods(item, path),
        payments_a_year=_MONTHS_OF_YEAR // _MONTHS[item.billing] if item.billing in _MONTHS else 0,
        tax_percent=read_percent(item.tax_percent, f"{path}.tax_percent"),
    )
    if line.minor > AMOUNT_MINOR_MAX:
        raise InvalidArgument.of(f"{path}.unit_price", _TOO_MUCH)
    return line


def _periods(item: LineItem, path: str) -> int:
    """How often a line is paid."""
    if item.billing in {BILLING_UNSPECIFIED, BILLING_ONE_TIME}:
        if item.term_months:
            raise InvalidArgument.of(f"{path}.term_months", "what is paid once has no term")
        return 1
    months = _MONTHS[item.billing]
    if not item.term_months or item.term_months % months:
        raise InvalidArgument.of(f"{path}.term_months", f"must be whole periods of {months} months")
    return item.term_months // months


def read_percent(text: str, path: str) -> Decimal:
    """Reads a rate in percent, none when empty; else InvalidArgument on the field."""
    percent = _decimal(text or "0", path, 3, PERCENT_FRACTION_DIGITS)
    if percent > _PERCENT_MAX:
        raise InvalidArgument.of(path, f"lies between 0 and {_PERCENT_MAX}")
    return percent


def _decimal(text: str, path: str, digits: int, fraction_digits: int) -> Decimal:
    if not re.fullmatch(rf"[0-9]{{1,{digits}}}(\.[0-9]{{1,{fraction_digits}}})?", text):
        message = f"has at most {digits} digits before and {fraction_digits} behind the point"
        raise InvalidArgument.of(path, f"must be a decimal such as 12.5 that {message}")
    return Decimal(text)


def decimal_text(number: Decimal) -> str:
    """The one way to write a decimal: without zeros in front, or at its end behind the point."""
    return format(number.normalize(), "f")


def priced(
    items: Sequence[LineItem], currency: str, path: str
) -> tuple[list[LineItem], list[Line]]:
    """Lines as they are kept, each with its id and what it comes to, and what is added up."""
    if len(items) > LINES_MAX:
        raise ResourceExhausted("LINES_MAX", LINES_MAX)
    taken = {item.line_id for item in items}
    free = (str(number) for number in range(1, 2 * LINES_MAX + 1) if str(number) not in taken)
    kept, lines, seen = [], [], set[str]()
    for place, item in enumerate(items):
        line = read_line(item, currency, f"{path}[{place}]")
        full = LineItem()
        full.CopyFrom(item)
        full.line_id = item.line_id or next(free)
        if full.line_id in seen:
            raise InvalidArgument.of(f"{path}[{place}].line_id", "stands twice")
        seen.add(full.line_id)
        full.quantity = item.quantity or "1"
        full.billing = item.billing or BILLING_ONE_TIME
        full.period_amount.CopyFrom(Money(amount_minor=line.period_minor, currency=currency))
        full.amount.CopyFrom(Money(amount_minor=line.minor, currency=currency))
        kept.append(full)
        lines.append(line)
    return kept, lines


def totals_of(sums: Sums, currency: str) -> Totals:
    """Sums as the API and the facts show them."""

    def money(minor: int) -> Money:
        return Money(amount_minor=minor, currency=currency)

    return Totals(
        subtotal=money(sums.subtotal),
        discount=money(sums.discount),
        shipping=money(sums.shipping),
        tax=money(sums.tax),
        total=money(sums.total),
        taxes=[
            TaxTotal(tax_percent=decimal_text(rate), taxable=money(taxed), tax=money(tax))
            for rate, (taxed, tax) in sums.taxes.items()
        ],
        contract_value=money(sums.contract_value),
        recurring=RecurringRevenue(monthly=money(sums.monthly), annual=money(sums.annual)),
    )


def products_of(items: LineItems) -> tuple[str, ...]:
    """The products that lines name, each once, in the order of their names."""
    return tuple(sorted({item.product for item in items.items if item.product}))


def serialised(message: Message) -> bytes:
    """The one form of messages that say the same."""
    return message.SerializeToString(deterministic=True)
