"""Times are aware and exact; ids sort by the time they were made, whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from services.kernel.clock import FixedClock, Ids, SystemClock, new_id

NOON = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)


def no_randomness(size: int) -> bytes:
    return bytes(size)


def test_the_system_clock_tells_aware_times():
    assert SystemClock().now().tzinfo is UTC


def test_a_fixed_clock_moves_only_when_told():
    clock = FixedClock(NOON)

    assert clock.now() == clock.now() == NOON
    clock.advance(timedelta(microseconds=1))
    assert clock.now() == NOON + timedelta(microseconds=1)
    clock.set(NOON.astimezone(timezone(timedelta(hours=2))))
    assert (clock.now(), clock.now().tzinfo) == (NOON, UTC)


def test_a_clock_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="aware"):
        FixedClock(datetime(2026, 1, 1))  # noqa: DTZ001, the mistake under test


def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond():
    made = Ids(FixedClock(NOON))()

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(NOON.timestamp() * 1000)


def test_ids_of_the_same_moment_keep_their_order():
    ids = Ids(FixedClock(NOON), no_randomness)

    made = [ids() for _ in range(5000)]

    assert made == sorted(set(made))


def test_ids_made_together_follow_those_before_and_are_followed():
    ids = Ids(FixedClock(NOON))

    made = [ids(), *ids.several(5000), *ids.several(0), ids()]

    assert made == sorted(set(made))
    assert {(7, "specified in RFC 4122")} == {(each.version, each.variant) for each in made}


def test_ids_made_while_the_clock_goes_back_keep_their_order():
    clock = FixedClock(NOON)
    ids = Ids(clock)

    before = ids()
    clock.advance(timedelta(seconds=-5))
    after = ids()

    assert before < after


def test_ids_a_microsecond_apart_differ_in_time():
    clock = FixedClock(NOON)
    first = Ids(clock, no_randomness)()
    clock.advance(timedelta(microseconds=1))
    second = Ids(clock, no_randomness)()

    assert first < second


def test_the_same_clock_and_randomness_make_the_same_id():
    made = [Ids(FixedClock(NOON), no_randomness)() for _ in range(2)]

    assert made[0] == made[1]


def test_ids_of_the_process_are_unique():
    assert len({new_id() for _ in range(1000)}) == 1000
