"""The whole system, as `make up` runs it: one for all tests of this tier, on free ports.

It starts empty in a directory of its own. Tests share it, so what they make has names of their own.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.door import Door, open_door
from deploy.stack.child import Child, log_tail
from deploy.stack.platform import running_platform
from deploy.stack.settings import Settings
from services.kernel.testing import eventually

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 150.0
STOP_WITHIN_S = 60.0


@pytest.fixture(scope="session")
def platform(shared_dir: Path) -> Iterator[dict[str, Any]]:
    """What dev.json says of the platform, and where its data lies as `data_dir`."""
    data_dir = shared_dir / "e2e"
    log = shared_dir / "up.log"
    chosen = {
        "RAPPORT_DATA_DIR": str(data_dir),
        "RAPPORT_GRPC_PORT": "0",
        "RAPPORT_HTTP_PORT": "0",
    }
    up = Child(
        [sys.executable, "-m", "deploy.up"],
        log=log,
        environment={**Settings.from_env().environment, **chosen},
        directory=ROOT,
        # It drains, so that PostgreSQL and NATS are not left behind by a test run that is killed.
        death_signal=signal.SIGTERM,
    )

    def ready() -> dict[str, Any]:
        if not up.runs:
            raise RuntimeError(f"the platform did not start:\n{log_tail(log)}")
        found = running_platform(data_dir)
        assert found is not None, f"the platform is not ready:\n{log_tail(log)}"
        return found

    try:
        dev = asyncio.run(eventually(ready, within_s=READY_WITHIN_S))
        yield {**dev, "data_dir": data_dir}
    finally:
        up.stop(signal.SIGTERM, within_s=STOP_WITHIN_S)


@pytest.fixture
async def door(platform: dict[str, Any]) -> AsyncIterator[Door]:
    """A client of the gateway."""
    async with open_door(platform) as opened:
        yield opened
