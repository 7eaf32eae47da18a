"""Followers of the own log pause in a burst only, and only when they have caught up."""

import pytest

from services.kernel.log.pace import BURST_SIZE_MIN, PAUSE_S, pause_after


@pytest.mark.parametrize(
    ("batch_size", "pause_s"),
    [(1, 0.0), (BURST_SIZE_MIN - 1, 0.0), (BURST_SIZE_MIN, PAUSE_S), (999, PAUSE_S), (1000, 0.0)],
)
def test_a_batch_of_a_burst_is_followed_by_a_pause_unless_there_is_more(batch_size, pause_s):
    assert pause_s == pause_after(batch_size, 1000)


def test_a_pause_is_far_shorter_than_a_reader_waits():
    assert PAUSE_S <= 0.5
