"""Tests are dealt out whole piles at a time, the longest first."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.dealing import LAST_OF_ITS_PILE, LONGEST, longest_first, pile_of

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("nodeid", "pile"),
    [
        ("tests/unit/kernel/test_clock.py::test_a", "unit/kernel/test_clock.py"),
        ("tests/contract/test_log.py::test_a[x::y]", "contract/test_log.py"),
        ("tests/e2e/test_demo.py::test_a", "e2e"),
        ("tests/chaos/test_platform_kills.py::test_a[nats]", "chaos"),
    ],
)
def test_a_file_or_a_tier_that_shares_a_platform_is_a_pile(nodeid, pile):
    assert pile == pile_of(nodeid)


def test_what_lasts_longest_comes_first_and_each_pile_keeps_its_order():
    files = ["contract/test_log", "unit/test_tidy", "chaos/test_hostile_requests"]
    files += [
        "chaos/test_relay_faults",
        "chaos/test_append_cuts",
        "integration/process/test_operate",
    ]
    items = [SimpleNamespace(nodeid=f"tests/{file}.py::test_a") for file in files]

    dealt = [item.nodeid.removeprefix("tests/").partition(".")[0] for item in longest_first(items)]

    assert dealt == [
        "chaos/test_relay_faults",
        "chaos/test_append_cuts",
        "chaos/test_hostile_requests",
        "contract/test_log",
        "integration/process/test_operate",
        "unit/test_tidy",
    ]


@pytest.mark.parametrize("pile", [*LONGEST, LAST_OF_ITS_PILE])
def test_what_is_named_is_there(pile):
    assert (TESTS / pile).exists()
