"""An order stands as the last words on it say; refunds add up; sums that differ are told."""

import itertools
from dataclasses import replace

from rapport.events.v1.orders_pb2 import OrderState
from services.events.commerce import Line, Slot, Statement
from services.events.orders import (
    MINOR_MAX,
    Refunds,
    Word,
    Words,
    amount_refunded,
    shown_minor,
    standing_of,
)

COMPLETED = OrderState.ORDER_STATE_COMPLETED
UPDATED = OrderState.ORDER_STATE_UPDATED
REFUNDED = OrderState.ORDER_STATE_REFUNDED
PARTIALLY = OrderState.ORDER_STATE_PARTIALLY_REFUNDED
CANCELLED = OrderState.ORDER_STATE_CANCELLED

LAMPS = Line(product="lamp", quantity=2, price="EUR 500")
DESK = Line(product="desk", quantity=1, price="EUR 9000")

_keys = itertools.count(1)


def word(slot=Slot.WHOLE, **said):
    """A word later than the one before."""
    return Word(next(_keys).to_bytes(32, "big"), Statement(order="1", slot=slot, **said))


def completed(**said):
    found = word(**said)
    # Read three times from a table, it is not one object.
    return {role: replace(found) for role in ("head", "lined", "priced")}


def standing(refunds=None, **words):
    return standing_of(Words(**words), refunds or Refunds())


def reasons(found):
    return [problem.reason for problem in found.problems]


def test_an_order_is_completed_then_updated():
    assert COMPLETED == standing(**completed()).state
    assert UPDATED == standing(head=word(is_update=True)).state


def test_what_an_update_leaves_alone_stays():
    first = word(lines=(LAMPS,), amounts={"total": "EUR 1000"})
    update = word(is_update=True, coupon="MAY")

    found = standing(head=update, lined=first, priced=first)

    assert ("MAY", (LAMPS,)) == (found.said.coupon, found.lines)
    assert 1000 == found.amounts["total"].minor


def test_a_cancellation_counts_unless_a_later_word_follows():
    first, cancellation, later = word(), word(Slot.CANCELLATION), word()

    assert CANCELLED == standing(head=first, cancellation=cancellation).state
    assert COMPLETED == standing(head=later, cancellation=cancellation).state
    assert CANCELLED == standing(cancellation=cancellation).state


def test_what_is_cancelled_was_not_ordered():
    order = completed(lines=(LAMPS,))
    cancellation = word(Slot.CANCELLATION)

    assert {"lamp": 2} == standing(**order).ordered
    found = standing(Refunds(1, 1), **order, cancellation=cancellation)
    assert ({}, {}, CANCELLED) == (found.ordered, found.refunded_besides, found.state)


def test_refunds_are_compared_with_what_the_order_is_worth():
    by_total = completed(amounts={"total": "EUR 1000"})
    by_lines = completed(lines=(LAMPS,))

    for order in (by_total, by_lines):
        assert PARTIALLY == standing(Refunds(1, 0, {"EUR": 999}), **order).state
        assert REFUNDED == standing(Refunds(2, 0, {"EUR": 1000}), **order).state
        assert PARTIALLY == standing(Refunds(1, 0, {"USD": 1000}), **order).state
        assert REFUNDED == standing(Refunds(1, 1), **order).state


def test_an_order_that_only_its_refund_names_is_refunded():
    refund = word(Slot.REFUND, user_id="u-1")

    found = standing(Refunds(1, 0, {"EUR": 5}), refund=refund)

    assert (REFUNDED, "u-1") == (found.state, found.said.user_id)


def test_of_a_whole_refund_what_was_not_refunded_before_is_refunded_besides():
    order = completed(lines=(LAMPS, DESK))

    assert {} == standing(Refunds(1, 0, units={"lamp": 1}), **order).refunded_besides
    found = standing(Refunds(2, 1, units={"lamp": 1}), **order)
    assert {"lamp": 1, "desk": 1} == found.refunded_besides


def test_parts_are_put_together_in_their_order():
    order = completed(parts=3, lines=(LAMPS,), amounts={"total": "EUR 1000"})
    second = word(2, lines=(DESK,), amounts={"total": "EUR 9000"})
    third = word(3, lines=(LAMPS,), amounts={"total": "EUR 1000"})

    found = standing(**order, parts={3: third, 2: second})

    assert (LAMPS, DESK, LAMPS) == found.lines
    assert 11_000 == found.amounts["total"].minor
    assert [] == reasons(found)


def test_a_part_that_is_not_there_is_told():
    found = standing(**completed(parts=3, lines=(LAMPS,)), parts={3: word(3, lines=(DESK,))})

    assert (LAMPS, DESK) == found.lines
    assert ["PART_MISSING"] == reasons(found)


def test_a_part_of_an_order_that_has_fewer_now_does_not_count():
    found = standing(**completed(lines=(LAMPS,)), parts={2: word(2, lines=(DESK,))})

    assert (LAMPS,) == found.lines


def test_a_total_that_is_not_its_sum_is_told_and_stays():
    amounts = {"total": "EUR 100", "subtotal": "EUR 80", "shipping": "EUR 5", "tax": "EUR 15"}
    assert [] == reasons(standing(**completed(amounts=amounts)))

    found = standing(**completed(amounts=amounts | {"total": "EUR 101"}))

    assert ["TOTAL_DIFFERS"] == reasons(found)
    assert (101, 1) == (found.amounts["total"].minor, found.problem_count)


def test_a_total_is_held_against_its_sum_only_where_all_is_said():
    assert [] == reasons(standing(**completed(amounts={"total": "EUR 9", "subtotal": "EUR 1"})))


def test_a_subtotal_is_what_the_lines_add_up_to_with_or_without_the_discount():
    def differs(**amounts):
        return reasons(standing(**completed(lines=(LAMPS,), amounts=amounts)))

    assert [] == differs(subtotal="EUR 1000")
    assert [] == differs(subtotal="EUR 900", discount="EUR 100")
    assert [] == differs(subtotal="EUR 1000", discount="EUR 100")
    assert [] == differs(subtotal="USD 1")
    assert ["LINES_DIFFER"] == differs(subtotal="EUR 999")


def test_a_refund_gives_back_what_it_says_or_what_its_lines_add_up_to():
    assert 7 == amount_refunded(word(Slot.REFUND, amounts={"total": "EUR 7"}).statement).minor
    assert 1000 == amount_refunded(word(Slot.REFUND, lines=(LAMPS,)).statement).minor
    assert amount_refunded(word(Slot.REFUND).statement) is None


def test_a_sum_is_shown_up_to_what_64_bits_hold():
    assert [7, MINOR_MAX, MINOR_MAX] == list(map(shown_minor, (7, MINOR_MAX, MINOR_MAX + 1)))
