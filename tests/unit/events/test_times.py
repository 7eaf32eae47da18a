"""Each way in which a source's clock can be wrong leads to a time that is right or flagged."""

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, TimeFlag
from services.events.times import SKEW_US_MAX, stamp

FUTURE = TimeFlag.TIME_FLAG_IN_FUTURE
BEFORE = TimeFlag.TIME_FLAG_BEFORE_1970
SKEWED = TimeFlag.TIME_FLAG_CLOCK_SKEWED

FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
NOON = 1_767_268_800  # 2026-01-01T12:00:00Z
HOUR = 3_600
NOBODY_SAID = None


def stamped(*, original=NOBODY_SAID, send=NOBODY_SAID, corrected=NOBODY_SAID):
    """When it happened, in seconds, and the flags, of what was received at noon."""
    sent = CustomerEvent()
    for field, seconds in (
        ("original_time", original),
        ("send_time", send),
        ("corrected_time", corrected),
    ):
        if seconds is not NOBODY_SAID:
            getattr(sent, field).FromNanoseconds(round(seconds * 1_000) * 1_000_000)
    occur_us, flags = stamp(sent, receive_us=NOON * 1_000_000)
    return occur_us / 1_000_000, flags


@pytest.mark.parametrize(
    ("said", "occurred", "flags"),
    [
        # Nobody says when: on receipt, whatever the source's clock shows.
        ({}, NOON, ()),
        ({"send": NOON}, NOON, ()),
        ({"send": 5}, NOON, ()),
        # A clock that goes right, and events that lay there for a while.
        ({"original": NOON - 90, "send": NOON}, NOON - 90, ()),
        ({"original": NOON - 90, "send": NOON - 2}, NOON - 88, ()),
        ({"original": NOON, "send": NOON}, NOON, ()),
        # Without a time of sending the source's clock is believed.
        ({"original": NOON - 90}, NOON - 90, ()),
        ({"original": 1_500_000_000}, 1_500_000_000, ()),
        ({"original": NOON}, NOON, ()),
        ({"original": NOON + 0.001}, NOON, (FUTURE,)),
        # A wrong clock does no harm, and is told from an hour on.
        ({"original": NOON + HOUR - 90, "send": NOON + HOUR}, NOON - 90, ()),
        ({"original": NOON - HOUR - 90, "send": NOON - HOUR}, NOON - 90, ()),
        (
            {"original": NOON + HOUR - 90, "send": NOON + HOUR + 0.001},
            NOON - 90.001,
            (SKEWED,),
        ),
        (
            {"original": NOON - HOUR - 90, "send": NOON - HOUR - 0.001},
            NOON - 89.999,
            (SKEWED,),
        ),
        ({"original": LAST_SECOND - 90, "send": LAST_SECOND}, NOON - 90, (SKEWED,)),
        ({"original": FIRST_SECOND, "send": FIRST_SECOND + 90}, NOON - 90, (SKEWED,)),
        # Made after it was sent: the one or the other is nonsense.
        ({"original": NOON + 1, "send": NOON}, NOON, (FUTURE,)),
        ({"original": NOON, "send": NOON - HOUR - 1}, NOON, (FUTURE, SKEWED)),
        ({"original": NOON, "send": 0}, NOON, (FUTURE, SKEWED)),
        ({"original": LAST_SECOND, "send": FIRST_SECOND}, NOON, (FUTURE, SKEWED)),
        # The second 0 is a time like any other; what lies before it is not.
        ({"original": 0}, 0, ()),
        ({"original": 0, "send": NOON}, 0, ()),
        ({"original": 0, "send": NOON - 2}, 2, ()),
        ({"original": 0, "send": 0}, NOON, (SKEWED,)),
        ({"original": -0.001}, 0, (BEFORE,)),
        ({"original": 0, "send": NOON + 1}, 0, (BEFORE,)),
        ({"original": FIRST_SECOND}, 0, (BEFORE,)),
        ({"original": FIRST_SECOND, "send": LAST_SECOND}, 0, (BEFORE, SKEWED)),
        ({"original": LAST_SECOND}, NOON, (FUTURE,)),
        # What somebody before us corrected counts where there is nothing else, as it is.
        ({"corrected": NOON - 90}, NOON - 90, ()),
        ({"corrected": NOON - 90, "send": 5}, NOON - 90, ()),
        ({"corrected": LAST_SECOND}, NOON, (FUTURE,)),
        ({"corrected": FIRST_SECOND}, 0, (BEFORE,)),
        ({"corrected": 7, "original": NOON - 90, "send": NOON}, NOON - 90, ()),
        ({"corrected": 7, "original": NOON - 90}, NOON - 90, ()),
    ],
    ids=str,
)
def test_when_it_happened_and_what_is_remarkable_about_it(said, occurred, flags):
    assert (occurred, flags) == stamped(**said)


def test_a_wrong_clock_s_fractions_are_kept_to_the_microsecond():
    two_hours_fast = NOON + 2 * HOUR
    sent = CustomerEvent(
        original_time={"seconds": two_hours_fast - 90, "nanos": 500_001_999},
        send_time={"seconds": two_hours_fast},
    )

    assert NOON * 1_000_000 - 89_499_999 == stamp(sent, receive_us=NOON * 1_000_000).occur_us


def test_a_clock_is_told_to_be_wrong_from_an_hour_on():
    assert HOUR * 1_000_000 == SKEW_US_MAX
