"""An order as the customer events that name it leave it: a function of their set. Pure.

Of each kind of statement the last word counts, by when it happened, then when it was received,
then its event's id. What was refunded adds up. A refund may come before its order, an update
before the completion.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rapport.events.v1.orders_pb2 import OrderState
from services.events.commerce import PROBLEMS_KEPT_MAX, Line, Statement, lines_total
from services.events.commerce_values import Problem, ProblemReason
from services.events.money import Amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MINOR_MAX: Final = 2**63 - 1
"""What is refunded is shown up to what 64 bits hold."""

_WORTH: Final = ("total", "value", "revenue")


@dataclass(frozen=True, slots=True)
class Word:
    """A statement, with the key by which the last word is known."""

    key: bytes
    statement: Statement


@dataclass(frozen=True, slots=True)
class Refunds:
    """What was refunded of an order in all: how often, how much, and of which product how many."""

    count: int = 0
    whole_count: int = 0
    minor: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Words:
    """The last words on an order.

    `head` is the last completion or update, `lined` the last that has lines and `priced` the last
    that has amounts: an update need not repeat what it leaves alone. `parts` continue `lined`.
    """

    head: Word | None = None
    lined: Word | None = None
    priced: Word | None = None
    cancellation: Word | None = None
    refund: Word | None = None
    parts: Mapping[int, Word] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an order stands; `ordered` and `refunded` are units by product beyond those counted."""

    state: OrderState.ValueType
    said: Statement
    amounts: Mapping[str, Amount]
    lines: tuple[Line, ...]
    refunds: Refunds
    problems: tuple[Problem, ...]
    problem_count: int
    ordered: Mapping[str, int]
    refunded_besides: Mapping[str, int]


def standing_of(words: Words, refunds: Refunds) -> Standing:
    """Returns how an order stands by the last words on it, of which there is at least one."""
    head = words.head or words.cancellation or words.refund
    assert head is not None
    lined, priced = words.lined or words.cancellation, words.priced or words.cancellation
    parts = _parts(lined, words.parts)
    lines = tuple(line for each in parts for line in each.lines)
    is_one = priced is not None and lined is not None and priced.key == lined.key
    amounts = _amounts(priced, parts if is_one else ())
    state = _state(words, refunds, amounts, lines)
    counted = {word.key: word.statement for word in (head, lined, priced, words.refund) if word}
    told = [problem for statement in counted.values() for problem in statement.problems]
    count = sum(statement.problem_count for statement in counted.values())
    later = [problem for part in parts[1:] for problem in part.problems]
    own = list(_differences(amounts, lines)) + _missing(lined, parts)
    units = _units(lines)
    is_cancelled = state == OrderState.ORDER_STATE_CANCELLED
    besides = {
        product: max(0, count - refunds.units.get(product, 0)) for product, count in units.items()
    }
    return Standing(
        state=state,
        said=head.statement,
        amounts=amounts,
        lines=lines,
        refunds=refunds,
        problems=(*own, *told, *later)[:PROBLEMS_KEPT_MAX],
        problem_count=count + sum(part.problem_count for part in parts[1:]) + len(own),
        ordered={} if is_cancelled else units,
        refunded_besides=besides if refunds.whole_count and not is_cancelled else {},
    )


def amount_refunded(refund: Statement) -> Amount | None:
    """How much a refund gives back: what it says, or what its lines add up to."""
    for name in _WORTH:
        if name in refund.amounts:
            return Amount.of_text(refund.amounts[name])
    return lines_total(refund.lines)


def shown_minor(minor: int) -> int:
    """A sum as 64 bits can show it."""
    return min(minor, MINOR_MAX)


def _parts(lined: Word | None, parts: Mapping[int, Word]) -> Sequence[Statement]:
    """The statements that together have the lines, as far as they are there."""
    if lined is None:
        return ()
    numbers = range(2, lined.statement.parts + 1)
    return (lined.statement, *(parts[number].statement for number in numbers if number in parts))


def _missing(lined: Word | None, parts: Sequence[Statement]) -> list[Problem]:
    if lined is None or len(parts) == lined.statement.parts:
        return []
    detail = f"{len(parts)} of its {lined.statement.parts} parts are there"
    return [Problem(str(ProblemReason.PART_MISSING), "/parts", detail)]


def _amounts(priced: Word | None, parts: Sequence[Statement]) -> dict[str, Amount]:
    """The amounts of the last that has some; each part adds its own."""
    if priced is None:
        return {}
    sums: dict[str, Amount] = {}
    for statement in parts or (priced.statement,):
        for name, text in statement.amounts.items():
            amount, before = Amount.of_text(text), sums.get(name)
            if before is None:
                sums[name] = amount
            elif before.currency == amount.currency:
                sums[name] = Amount(before.minor + amount.minor, amount.currency)
    return sums


def _state(
    words: Words, refunds: Refunds, amounts: Mapping[str, Amount], lines: Sequence[Line]
) -> OrderState.ValueType:
    cancelled, head = words.cancellation, words.head
    if cancelled is not None and (head is None or head.key < cancelled.key):
        return OrderState.ORDER_STATE_CANCELLED
    if refunds.count:
        is_all = refunds.whole_count or head is None or _covers(refunds, amounts, lines)
        if is_all:
            return OrderState.ORDER_STATE_REFUNDED
        return OrderState.ORDER_STATE_PARTIALLY_REFUNDED
    if head is not None and head.statement.is_update:
        return OrderState.ORDER_STATE_UPDATED
    return OrderState.ORDER_STATE_COMPLETED


def _covers(refunds: Refunds, amounts: Mapping[str, Amount], lines: Sequence[Line]) -> bool:
    """Whether what was refunded is what the order is worth."""
    said = (amounts.get(name) for name in _WORTH)
    worth = next((amount for amount in said if amount is not None), None) or lines_total(lines)
    return worth is not None and refunds.minor.get(worth.currency, 0) >= worth.minor > 0


def _units(lines: Iterable[Line]) -> dict[str, int]:
    units: Counter[str] = Counter()
    for line in lines:
        if line.product and line.quantity:
            units[line.product] += line.quantity
    return {product: count for product, count in units.items() if count}


def _differences(amounts: Mapping[str, Amount], lines: Sequence[Line]) -> Iterable[Problem]:
    """Sums that a source gives and that are not what their parts add up to: told, not mended."""
    names = ("total", "subtotal", "shipping", "tax")
    found = [amounts[name] for name in names if name in amounts]
    total, *rest = found or [Amount(0, "")]
    if len(found) == len(names) and len({amount.currency for amount in found}) == 1:
        expected = sum(amount.minor for amount in rest)
        if expected != total.minor:
            detail = f"is {total.minor}; subtotal, shipping and tax add up to {expected}"
            yield Problem(str(ProblemReason.TOTAL_DIFFERS), "/total", detail)
    subtotal, of_lines = amounts.get("subtotal"), lines_total(lines)
    if subtotal is None or of_lines is None or subtotal.currency != of_lines.currency:
        return
    discount = amounts.get("discount", Amount(0, subtotal.currency))
    if of_lines.minor not in {subtotal.minor, subtotal.minor + discount.minor}:
        detail = f"is {subtotal.minor}; the products add up to {of_lines.minor}"
        yield Problem(str(ProblemReason.LINES_DIFFER), "/subtotal", detail)
