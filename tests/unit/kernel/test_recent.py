"""What was just appended is handed out without a gap, or not at all."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from services.kernel.log import recent as recent_module
from services.kernel.log.recent import Recent
from services.kernel.log.recorded import Recorded

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def events(first, last, partition=0):
    return [
        Recorded(
            partition,
            position,
            "acme",
            f"box-{position}",
            1,
            uuid.UUID(int=position),
            "google.protobuf.StringValue",
            StringValue(value="x"),
            "tests",
            "",
            "",
            NOON,
            NOON,
        )
        for position in range(first, last + 1)
    ]


def positions(recent, after, *, partition=0, limit=100):
    return [event.position for event in recent.after(partition, after, limit)]


async def test_what_follows_a_position_is_handed_out_up_to_the_limit():
    recent = Recent()
    recent.keep(events(5, 7), 10)
    recent.keep(events(8, 9), 10)

    assert [5, 6, 7, 8, 9] == positions(recent, 4)
    assert [8] == positions(recent, 7, limit=1)


@pytest.mark.parametrize("after", [0, 3, 9, 20])
async def test_nothing_is_handed_out_when_the_next_event_is_not_there(after):
    recent = Recent()
    recent.keep(events(5, 9), 10)

    assert [] == positions(recent, after)
    assert [] == positions(recent, 4, partition=1)


async def test_a_gap_or_a_step_back_forgets_what_was_before():
    recent = Recent()
    recent.keep(events(1, 3), 10)
    recent.keep(events(5, 6), 10)

    assert [] == positions(recent, 0)
    assert [5, 6] == positions(recent, 4)

    recent.keep(events(4, 4), 10)  # the log was restored

    assert [4] == positions(recent, 3)
    assert [] == positions(recent, 4)


async def test_the_older_half_of_the_memory_is_followed_by_the_newer_one():
    recent = Recent(bytes_max=40)
    recent.keep(events(1, 3), 15)
    recent.keep(events(4, 6), 15)

    assert [2, 3, 4, 5, 6] == positions(recent, 1)
    assert [2, 3, 4] == positions(recent, 1, limit=3)
    assert [5, 6] == positions(recent, 4)


async def test_partitions_are_kept_apart():
    recent = Recent()
    recent.keep([*events(1, 2, partition=1), *events(7, 7), *events(3, 3, partition=1)], 10)

    assert [1, 2, 3] == positions(recent, 0, partition=1)
    assert [7] == positions(recent, 6)


async def test_no_more_is_kept_than_the_limit_and_the_last_append():
    recent = Recent(bytes_max=100)
    for position in range(1, 21):
        recent.keep(events(position, position), 10)

    kept = [position for position in range(1, 21) if positions(recent, position - 1, limit=1)]

    assert list(range(11, 21)) == kept

    recent.keep(events(21, 30), 1_000)

    assert list(range(21, 31)) == positions(recent, 20)
    assert [] == positions(recent, 9)


async def test_what_got_no_successor_for_long_is_forgotten(monkeypatch):
    recent = Recent()
    recent.keep(events(1, 1), 10)
    later_s = asyncio.get_running_loop().time() + recent_module.RECENT_S_MAX
    monkeypatch.setattr(recent_module, "_now_s", lambda: later_s - 0.1)
    assert [1] == positions(recent, 0)

    monkeypatch.setattr(recent_module, "_now_s", lambda: later_s + 0.1)

    assert [] == positions(recent, 0)


async def test_what_comes_after_long_does_not_go_on_from_what_was_before(monkeypatch):
    """The log may have been restored meanwhile, and what is before in it been told by others."""
    recent = Recent()
    recent.keep(events(1, 2), 10)
    later_s = asyncio.get_running_loop().time() + recent_module.RECENT_S_MAX + 0.1
    monkeypatch.setattr(recent_module, "_now_s", lambda: later_s)

    recent.keep(events(3, 3), 10)

    assert [] == positions(recent, 0)
    assert [3] == positions(recent, 2)
