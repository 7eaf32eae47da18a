"""A source may send so often and no oftener; another one is not the slower for it."""

from __future__ import annotations

import pytest

from gateway.rates import RETRY_AFTER, SOURCES_MAX, Rates
from services.kernel.errors import ResourceExhausted


class Bucket:
    """Rates whose time a test moves."""

    def __init__(self, per_s, burst):
        self.now = 0.0
        self.rates = Rates(per_s, burst, monotonic=lambda: self.now)

    def taken(self, source="s", times=1):
        count = 0
        for _ in range(times):
            try:
                self.rates.take(source)
            except ResourceExhausted:
                continue
            count += 1
        return count


def test_as_many_as_the_burst_are_taken_at_once():
    assert Bucket(per_s=1, burst=5).taken(times=10) == 5


def test_the_bucket_fills_as_time_goes_by():
    bucket = Bucket(per_s=10, burst=5)
    bucket.taken(times=5)
    bucket.now += 0.3

    assert bucket.taken(times=10) == 3


def test_it_never_holds_more_than_the_burst():
    bucket = Bucket(per_s=10, burst=5)
    bucket.now += 3600

    assert bucket.taken(times=10) == 5


def test_one_source_takes_nothing_from_another():
    bucket = Bucket(per_s=1, burst=5)
    bucket.taken("a", times=10)

    assert bucket.taken("b", times=10) == 5


@pytest.mark.parametrize(("per_s", "wait_s"), [(1000, "1"), (1, "1"), (0.5, "2"), (0.03, "34")])
def test_who_is_refused_hears_when_to_come_again(per_s, wait_s):
    bucket = Bucket(per_s=per_s, burst=1)
    bucket.taken()

    with pytest.raises(ResourceExhausted) as raised:
        bucket.rates.take("s")

    assert raised.value.metadata["limit"] == "REQUESTS_PER_S"
    assert raised.value.metadata[RETRY_AFTER] == wait_s
    bucket.now += int(wait_s)
    assert bucket.taken() == 1


def test_a_refused_request_costs_no_token():
    bucket = Bucket(per_s=1, burst=1)
    bucket.taken(times=100)
    bucket.now += 1

    assert bucket.taken() == 1


def test_only_so_many_sources_are_remembered():
    bucket = Bucket(per_s=0.001, burst=1)
    for number in range(SOURCES_MAX + 1):
        bucket.taken(number)

    assert len(bucket.rates._left) == SOURCES_MAX
    assert bucket.taken(SOURCES_MAX) == 0
    assert bucket.taken(0) == 1
