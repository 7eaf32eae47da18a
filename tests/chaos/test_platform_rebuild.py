"""An operator rebuilds every view of a platform that lives, and nobody notices."""

import asyncio
import sys
from pathlib import Path

import pytest

from deploy.stack.keys import development_secrets
from deploy.stack.platform import SERVICES
from deploy.stack.settings import Settings
from services.kernel.process.config import ServiceConfig
from services.kernel.process.operate import OK, run
from tests.chaos.platform_audit import DECLARED, VIEWS, Audit
from tests.chaos.platform_load import under_load

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
OPERATED_WITHIN_S = 60.0


async def test_every_view_is_rebuilt_and_swapped_under_load(chaos, chance):
    """`rebuild` and `swap` of each view while clients write; `swap` refuses what is not equal.

    Afterwards everything acknowledged is there, in the new views.
    """
    platform = chaos.platform

    async def rebuild(name):
        service, known = DECLARED[name], development_secrets(platform.data_dir)
        environment = platform._environment(name, known)
        config = ServiceConfig.from_env(name, peers=service.peers, environ=environment)
        for view in [view for owner, view in VIEWS if owner == name]:
            # The operator's commands without the start of a process for each.
            assert await run(service, config, ["rebuild", view]) == OK
            assert await run(service, config, ["swap", view]) == OK

    # Few clients, for this takes long: what is rebuilt grows meanwhile.
    async with under_load(
        platform.dev, chaos.acknowledged, chance, chaos.new_name(), sellers=1, visitors=1
    ) as load:
        await load.go_on(20)
        await asyncio.gather(*(rebuild(service) for service in SERVICES))
        await load.go_on(20)

    assert "BUILDING" not in await operate(chaos, "identity", "views")
    await Audit(platform, chaos.acknowledged).assert_whole(rebuilt=[])


async def test_the_command_line_says_what_it_did(chaos):
    """`rebuild`, then `swap`, as an operator types them."""
    rebuilt = await operate(chaos, "identity", "rebuild", "profiles")
    swapped = await operate(chaos, "identity", "swap", "profiles")

    assert "events in" in rebuilt
    assert "the new generation is live" in swapped


async def test_an_unfinished_generation_is_compared_and_dropped(chaos):
    """`compare` says table by table that both generations are equal, `drop` removes the new one."""
    await operate(chaos, "contacts", "rebuild", "contacts")
    compared = await operate(chaos, "contacts", "compare", "contacts")
    views = await operate(chaos, "contacts", "views")
    (generation,) = [line.split()[1] for line in views.splitlines() if "BUILDING" in line]
    dropped = await operate(chaos, "contacts", "drop", "contacts", generation)

    assert "equal" in compared
    assert "different" not in compared
    assert f"generation {generation} is gone" in dropped
    assert "BUILDING" not in await operate(chaos, "contacts", "views")


async def operate(chaos, *words):
    """What `make operate` prints; it must succeed."""
    chosen = {"RAPPORT_DATA_DIR": str(chaos.settings.data_dir), "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.operate", *words),
        cwd=ROOT,
        env={**Settings.from_env().environment, **chosen},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(OPERATED_WITHIN_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, f"{words}: {output.decode()}"
    return output.decode()
