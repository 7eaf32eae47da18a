"""Chance for the tests that disturb: a failure tells its seed, and `--seed` repeats it."""

import random

import pytest


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="repeat the chaos run that printed this seed")


@pytest.fixture
def chance(request):
    """Everything a test leaves to chance."""
    seed = request.config.getoption("--seed", default=None)
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    request.node.add_report_section("setup", "seed", f"repeat it with --seed {seed}")
    return random.Random(seed)
