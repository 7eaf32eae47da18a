"""Kill any process of the platform under load: nothing acknowledged is lost, nothing is doubled."""

import pytest

from deploy.stack.platform import MODULES, SERVICES
from services.kernel.testing import eventually
from tests.chaos.platform_audit import Audit
from tests.chaos.platform_load import under_load

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEATHS = 2
# Whose views the death of a process may have harmed.
HARMED = {"gateway": [], "nats": ["identity", "segments"], "postgres": SERVICES}


@pytest.mark.parametrize("name", [*MODULES, "nats", "postgres"])
async def test_a_process_killed_under_load_loses_and_doubles_nothing(name, chaos, chance):
    """The process gets SIGKILL at random moments, each time after it had served again."""
    platform = chaos.platform
    async with under_load(platform.dev, chaos.acknowledged, chance, chaos.new_name()) as load:
        for _ in range(DEATHS):
            await load.go_on(chance.randrange(10, 60))
            deaths = platform.restarts(name)
            platform.kill(name)

            def restarted(deaths=deaths):
                assert platform.restarts(name) > deaths

            await eventually(restarted, within_s=20)
            await platform.wait_ready(name)
        await load.go_on(20)

    await Audit(platform, chaos.acknowledged).assert_whole(rebuilt=HARMED.get(name, [name]))
