"""Kill PostgreSQL, or the service, at any moment: what was acknowledged is there, once."""

import asyncio
import signal
import sys
from pathlib import Path

from services.kernel.errors import Unavailable
from services.kernel.testing import eventually
from tests.box_world import running_log

ROOT = Path(__file__).parents[2]


async def test_acknowledged_writes_outlive_a_killed_server(own_postgres, chance):
    boxes, puts, deaths = 12, 25, 3
    url = await own_postgres.create_database("boxes")
    acknowledged = 0
    due = sorted(chance.randrange(10, boxes * puts - 10) for _ in range(deaths))
    async with running_log(url) as world:

        async def write(box):
            nonlocal acknowledged
            for number in range(puts):

                async def put(thing=f"{number}"):
                    try:
                        return await world.put(box, thing, request_id=f"{box}-{thing}")
                    except Unavailable as error:
                        raise AssertionError("not yet") from error

                said = await eventually(put, within_s=60)
                assert number + 1 == len(said.things)
                acknowledged += 1
                if due and acknowledged >= due[0]:
                    due.pop(0)
                    own_postgres.kill()
                    own_postgres.start()

        await asyncio.gather(*(write(f"{box}") for box in range(boxes)))

        assert not due
        assert boxes * puts == len(await world.logged())
        await world.assert_whole()


WRITING_PROCESS = """
import asyncio, sys
from tests.box_world import running_log

async def main(url, puts):
    async with running_log(url) as world:
        async def write(box):
            for number in range(puts):
                await world.put(box, f"{number}", request_id=f"{box}-{number}")
                sys.stdout.write(f"{box}-{number}\\n")
                sys.stdout.flush()
        await asyncio.gather(*(write(f"{box}") for box in range(8)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_a_service_killed_again_and_again_does_each_request_once(database, chance):
    puts, told = 40, set()
    for _ in range(6):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITING_PROCESS, database, f"{puts}"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        life = chance.randrange(1, 120)
        async for line in process.stdout:
            told.add(line.decode().strip())
            life -= 1
            if life == 0:
                process.kill()
        assert await process.wait() in {0, -signal.SIGKILL}

        async with running_log(database) as world:
            await world.assert_whole()
            kept = {e.causation_id for e in await world.logged()}
            assert told <= kept
            assert len(kept) == len(await world.logged())
            assert kept == {
                row["request_id"]
                for row in await world.pool.fetch("select request_id from kernel.requests")
            }
