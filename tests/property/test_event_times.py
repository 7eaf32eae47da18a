"""Whatever clocks say, a customer event's time is bounded, corrected, and flagged when odd."""

from hypothesis import assume, given
from hypothesis import strategies as st

from rapport.events.v1.customer_event_pb2 import CustomerEvent, TimeFlag
from services.events.times import OCCUR_US_MIN, SKEW_US_MAX, stamp

FUTURE = TimeFlag.TIME_FLAG_IN_FUTURE
BEFORE = TimeFlag.TIME_FLAG_BEFORE_1970
SKEWED = TimeFlag.TIME_FLAG_CLOCK_SKEWED

FIRST_NS = -62_135_596_800 * 10**9
LAST_NS = 253_402_300_800 * 10**9 - 1
YEAR_US = 366 * 86_400 * 10**6

receipts = st.integers(0, 100 * YEAR_US)
any_ns = st.integers(FIRST_NS, LAST_NS)
# Most clocks are near the truth, where the rules have their edges.
near_ns = st.integers(-2 * SKEW_US_MAX * 1000, 2 * SKEW_US_MAX * 1000)


def made(**said_ns):
    """A customer event with the times that are said, in nanoseconds since 1970."""
    sent = CustomerEvent()
    for field, time_ns in said_ns.items():
        if time_ns is not None:
            time = getattr(sent, field)
            time.seconds, time.nanos = divmod(time_ns, 10**9)
    return sent


@st.composite
def sent_at(draw):
    """A moment of receipt, and a customer event whose times are near it, anywhere or not said."""
    receive_us = draw(receipts)
    time = st.none() | any_ns | near_ns.map(lambda by: receive_us * 1000 + by)
    names = ("original_time", "send_time", "corrected_time")
    return receive_us, {name: draw(time) for name in names}


@given(sent_at())
def test_nothing_happens_after_its_receipt_or_before_1970(given_):
    receive_us, said = given_

    assert OCCUR_US_MIN <= stamp(made(**said), receive_us=receive_us).occur_us <= receive_us


@given(receipts, st.integers(0, LAST_NS), any_ns)
def test_a_clock_that_is_wrong_by_any_constant_gives_the_time_a_right_one_gives(
    receive_us, lay_there_ns, wrong_by_ns
):
    send_ns = receive_us * 1000
    assume(FIRST_NS <= send_ns + wrong_by_ns - lay_there_ns)
    assume(FIRST_NS <= send_ns - lay_there_ns)
    assume(send_ns + wrong_by_ns <= LAST_NS)
    right = made(original_time=send_ns - lay_there_ns, send_time=send_ns)
    wrong = made(
        original_time=send_ns - lay_there_ns + wrong_by_ns, send_time=send_ns + wrong_by_ns
    )

    expected, actual = (stamp(sent, receive_us=receive_us) for sent in (right, wrong))

    assert expected.occur_us == actual.occur_us
    assert expected.flags == tuple(flag for flag in actual.flags if flag != SKEWED)


@given(sent_at())
def test_a_clock_is_skewed_exactly_when_it_shows_another_hour_on_sending(given_):
    receive_us, said = given_
    original_ns, send_ns = said["original_time"], said["send_time"]
    shows_another = send_ns is not None and abs(send_ns // 1000 - receive_us) > SKEW_US_MAX

    flags = stamp(made(**said), receive_us=receive_us).flags

    assert (original_ns is not None and shows_another) == (SKEWED in flags)


@given(sent_at())
def test_a_time_is_flagged_exactly_when_it_was_moved_to_where_it_may_be(given_):
    receive_us, said = given_
    original_ns, send_ns = said["original_time"], said["send_time"]
    if original_ns is not None:
        by_our_clock = original_ns if send_ns is None else receive_us * 1000 - send_ns + original_ns
    elif said["corrected_time"] is not None:
        by_our_clock = said["corrected_time"]
    else:
        by_our_clock = receive_us * 1000
    expected = by_our_clock // 1000

    occur_us, flags = stamp(made(**said), receive_us=receive_us)

    assert (expected > receive_us) == (FUTURE in flags)
    assert (expected < OCCUR_US_MIN) == (BEFORE in flags)
    assert ({FUTURE, BEFORE} & set(flags)) or expected == occur_us


@given(sent_at())
def test_flags_come_in_their_order_and_each_once(given_):
    receive_us, said = given_
    flags = stamp(made(**said), receive_us=receive_us).flags

    assert sorted(set(flags)) == list(flags)
