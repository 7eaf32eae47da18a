"""How tests are dealt out to the processes of one run (`pytest -n`).

A file is never torn apart: its tests share what it starts. Nor is a tier whose files share one
platform: it is started once then, and of the tests that kill and flood no two run at once, which
would starve each other past the times they wait. What lasts longest is dealt out first, what is
over in a moment last: so all processes end at nearly the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pytest
from xdist.scheduler import LoadScopeScheduling

WHOLE_TIERS: Final = {"chaos", "e2e"}

LONGEST: Final = (
    "chaos",
    "e2e",
    "integration/stack/test_platform.py",
    "integration/identity/test_order.py",
    "integration/events/test_import_workers.py",
    "integration/events/test_orders.py",
    "integration/events/test_imports.py",
    "integration/events/test_import_products.py",
    "integration/stack/test_postgres.py",
    "integration/stack/test_up_and_down.py",
    "contract/test_relay.py",
    "integration/identity/test_erasing.py",
    "contract/test_erasing.py",
)
"""Piles that last longer than ten seconds; one that is missed here only makes a run less even."""

LAST_OF_ITS_PILE: Final = "chaos/test_hostile_requests.py"
"""It fills the logs that the other tests of the same platform look through."""

SHORTEST: Final = ("property", "unit")


class Dealing(LoadScopeScheduling):
    """Deals pile after pile, in the order of collection, to whoever is about to run out of work."""

    def _split_scope(self, nodeid: str) -> str:
        return pile_of(nodeid)


def pile_of(nodeid: str) -> str:
    """What is dealt out together: a file, or a whole tier."""
    file = _file_of(nodeid)
    tier = file.partition("/")[0]
    return tier if tier in WHOLE_TIERS else file


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order in which they are dealt out and run."""
    return sorted(items, key=lambda item: _rank(item.nodeid))


def _rank(nodeid: str) -> tuple[int, bool]:
    pile = pile_of(nodeid)
    if pile in LONGEST:
        return LONGEST.index(pile), _file_of(nodeid) == LAST_OF_ITS_PILE
    return len(LONGEST) + pile.startswith(SHORTEST), False


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].removeprefix("tests/")
