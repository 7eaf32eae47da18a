"""Chance for the tests that disturb: a failure tells its seed, and `--seed` repeats it."""

import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.stack.platform import Platform
from deploy.stack.ports import free_port
from deploy.stack.settings import Settings
from tests.chaos.platform_load import Acknowledged


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="repeat the chaos run that printed this seed")
    parser.addoption(
        "--hostile", type=int, default=25_000, help="how many hostile requests the gateway gets"
    )


@pytest.fixture
def chance(request):
    """Everything a test leaves to chance."""
    seed = request.config.getoption("--seed", default=None)
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    request.node.add_report_section("setup", "seed", f"repeat it with --seed {seed}")
    return random.Random(seed)


@pytest.fixture
def hostile_requests(request):
    """How many hostile requests the gateway gets."""
    return request.config.getoption("--hostile", default=25_000)


@dataclass
class Chaos:
    """A platform to disturb, and what its clients were told over all tests that share it."""

    settings: Settings
    platform: Platform
    acknowledged: Acknowledged = field(default_factory=Acknowledged)
    _numbers: count = field(default_factory=count)

    def new_name(self):
        """A name for what one test makes."""
        return f"load-{next(self._numbers)}"

    def request_id(self):
        """An id that no other request has."""
        return str(uuid.uuid4())

    async def kill_all_and_start_again(self):
        """Kills every process at once and starts the platform on what they left."""
        self.platform.kill_all()
        await self.platform.__aexit__(None, None, None)
        self.platform = await Platform(self.settings).__aenter__()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chaos(shared_dir: Path) -> AsyncIterator[Chaos]:
    """One whole platform with servers of its own for all chaos tests: it must bear them all."""
    settings = Settings(data_dir=shared_dir / "chaos", grpc_port=free_port(), http_port=free_port())
    shared = Chaos(settings, await Platform(settings).__aenter__())
    try:
        yield shared
    finally:
        await shared.platform.__aexit__(None, None, None)
