"""What a customer event says of products and orders, whatever source it comes from. Pure.

The events are those of the e-commerce spec (version 2, and the names of version 1), told by their
names in any case and with any signs between the words. What cannot be read is told as a problem;
the rest counts all the same. An order too large for one customer event goes on in `Order
Continued`, with `part` (from 2) and, on the first, `parts`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from services.events.commerce_names import ROLES, Role
from services.events.commerce_values import Problem, ProblemReason, Reading, opened
from services.events.money import Amount, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PARTS_MAX: Final = 50
"""An order has at most so many parts, each a customer event."""

PROBLEMS_KEPT_MAX: Final = 20
"""Of the problems of one customer event so many are kept; all are counted."""

AMOUNTS: Final = ("total", "subtotal", "revenue", "shipping", "tax", "discount", "value")
TEXTS: Final = ("sku", "name", "brand", "category", "variant", "url", "image_url")

_SIGNS: Final = re.compile(r"[\W_]+")
# Made once: that takes as long as reading a customer event.
_JSON: Final = json.JSONDecoder(parse_float=number_of, parse_int=number_of)


class Slot(IntEnum):
    """Which part of an order a statement is about; parts beyond the first are their number."""

    CANCELLATION = -1
    REFUND = 0
    WHOLE = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order or a refund; an amount is a text such as `GBP 255`."""

    product: str = ""
    name: str = ""
    sku: str = ""
    variant: str = ""
    quantity: int | None = None
    price: str | None = None
    coupon: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """What one customer event says of one order."""

    order: str
    slot: int
    is_update: bool = False
    parts: int = 1
    is_whole_refund: bool = False
    user_id: str = ""
    anonymous_id: str = ""
    checkout_id: str = ""
    affiliation: str = ""
    coupon: str = ""
    amounts: dict[str, str] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0


@dataclass(frozen=True, slots=True)
class Mention:
    """What one customer event says of one product, and how much it adds to its counts."""

    product: str
    said: dict[str, str]
    views: int = 0
    adds: int = 0
    refunded: int = 0
    problems: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Commerce:
    """All that one customer event says of products and orders, each product once."""

    role: Role
    mentions: tuple[Mention, ...] = ()
    statement: Statement | None = None


@lru_cache(maxsize=1024)
def role_of(name: str) -> Role | None:
    """Which event of the e-commerce spec a name means, if any."""
    return ROLES.get(_SIGNS.sub("", name.casefold()))


def read_commerce(
    name: str, properties: str, *, user_id: str = "", anonymous_id: str = ""
) -> Commerce | None:
    """Reads a track call; None when its name is none of the spec's."""
    role = role_of(name)
    if role is None:
        return None
    said = opened(_JSON.decode(properties) if properties else {})
    reading = Reading()
    currency = reading.currency(said, "")
    products = list(_products(reading, said, role, currency))
    statement = None
    if role.is_of_an_order:
        lines = tuple(line for line, _ in products)
        statement = _statement(reading, said, role, lines, currency)
    if statement is not None:
        statement = replace(
            statement,
            user_id=user_id,
            anonymous_id=anonymous_id,
            problems=tuple(reading.problems[:PROBLEMS_KEPT_MAX]),
            problem_count=len(reading.problems),
        )
    # What is wrong with neither a product nor a known order is told at the products beside it.
    reading.blame("")
    is_orderless = statement is None
    mentions = tuple(_mentions(reading, role, products, and_nobodys=is_orderless))
    return Commerce(role, mentions, statement)


def lines_total(lines: Sequence[Line]) -> Amount | None:
    """What lines add up to, if each says price and quantity, all in one currency."""
    amounts = [(Amount.of_text(line.price), line.quantity) for line in lines if line.price]
    if not lines or len(amounts) < len(lines):
        return None
    minor = 0
    for amount, quantity in amounts:
        if quantity is None or amount.currency != amounts[0][0].currency:
            return None
        minor += amount.minor * quantity
    return Amount(minor, amounts[0][0].currency)


def _products(
    reading: Reading, said: Mapping[str, Any], role: Role, currency: str
) -> Iterator[tuple[Line, dict[str, str]]]:
    """The products named: those of a list, or the one that the whole is about."""
    listed = said.get("products")
    if listed is None:
        if role.is_of_a_product:
            yield _product(reading, said, "", currency)
        return
    if not isinstance(listed, list):
        reading.tell(ProblemReason.PRODUCT_INVALID, "/products", "must be a list")
        return
    for place, each in enumerate(listed):
        path = f"/products/{place}"
        if isinstance(each, dict):
            product = opened(each)
            yield _product(reading, product, path, reading.currency(product, path) or currency)
        else:
            reading.tell(ProblemReason.PRODUCT_INVALID, path, "must be an object")


def _product(
    reading: Reading, said: Mapping[str, Any], path: str, currency: str
) -> tuple[Line, dict[str, str]]:
    facts = {
        name: text for name in TEXTS if name in said and (text := reading.text(said, path, name))
    }
    product = reading.id(said, path, "product_id") or reading.id(said, path, "id")
    product = product or reading.id(said, path, "sku")
    if not product:
        detail = "neither a product_id nor a sku that is an id"
        reading.tell(ProblemReason.PRODUCT_ID_MISSING, path, detail)
    price = reading.amount(said, path, "price", currency)
    if price is not None:
        facts["price"] = price.text
    line = Line(
        product=product,
        name=facts.get("name", ""),
        sku=facts.get("sku", ""),
        variant=facts.get("variant", ""),
        quantity=reading.quantity(said, path),
        price=None if price is None else price.text,
        coupon=reading.text(said, path, "coupon"),
    )
    reading.blame(product)
    return line, facts


def _mentions(
    reading: Reading,
    role: Role,
    products: Sequence[tuple[Line, dict[str, str]]],
    *,
    and_nobodys: bool,
) -> Iterator[Mention]:
    """Each product once; of one that is named twice the later word counts."""
    facts: dict[str, dict[str, str]] = {}
    units: Counter[str] = Counter()
    for line, said in products:
        if line.product:
            facts.setdefault(line.product, {}).update(said)
            units[line.product] += abs(line.quantity or 0)
    for product, said in facts.items():
        yield Mention(
            product=product,
            said=said,
            views=int(role is Role.VIEW),
            adds=int(role is Role.ADD),
            refunded=units[product] if role is Role.REFUND else 0,
            problems=reading.problems_of(product, and_nobodys=and_nobodys),
        )


def _statement(
    reading: Reading, said: Mapping[str, Any], role: Role, lines: tuple[Line, ...], currency: str
) -> Statement | None:
    order = reading.id(said, "", "order_id")
    if not order:
        reading.tell(ProblemReason.ORDER_ID_MISSING, "/order_id", "which order is not said")
    slot, parts = _part(reading, said, role)
    known = {
        name: amount
        for name in AMOUNTS
        if reading.has(said, name)
        and (amount := reading.amount(said, "", name, currency)) is not None
    }
    if role is Role.REFUND:
        # Some sources write what they give back as negative: what counts is how much it is.
        known = {name: replace(amount, minor=abs(amount.minor)) for name, amount in known.items()}
        lines = tuple(
            line if line.quantity is None else replace(line, quantity=abs(line.quantity))
            for line in lines
        )
    is_silent = not any(reading.has(said, name) for name in (*AMOUNTS, "products"))
    if not order or slot is None:
        return None
    return Statement(
        order=order,
        slot=slot,
        is_update=role is Role.UPDATE,
        parts=parts,
        is_whole_refund=role is Role.REFUND and is_silent,
        checkout_id=reading.text(said, "", "checkout_id"),
        affiliation=reading.text(said, "", "affiliation"),
        coupon=reading.text(said, "", "coupon"),
        amounts={name: amount.text for name, amount in known.items()},
        lines=lines,
    )


def _part(reading: Reading, said: Mapping[str, Any], role: Role) -> tuple[int | None, int]:
    """The slot of a statement, and how many parts its order has."""
    if role is Role.CANCEL:
        return Slot.CANCELLATION, 1
    if role is Role.REFUND:
        return Slot.REFUND, 1
    least, name = (2, "part") if role is Role.CONTINUE else (1, "parts")
    number = reading.whole(said, name)
    if number is None and role is not Role.CONTINUE:
        number = 1
    if number is None or not least <= number <= PARTS_MAX:
        detail = f"must be a whole number from {least} to {PARTS_MAX}"
        reading.tell(ProblemReason.PART_INVALID, f"/{name}", detail)
        return (None, 1) if role is Role.CONTINUE else (Slot.WHOLE, 1)
    return (number, 1) if role is Role.CONTINUE else (Slot.WHOLE, number)
