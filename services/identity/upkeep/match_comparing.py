"""Has the profiles of a run compared, in a process of their own.

Comparing takes the whole of a processor, so it must not be done where calls are answered. What is
sent there and heard from there goes through pipes; the process is ended with the run.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from rapport.identity.v1.match_runs_pb2 import MatchRunStage
from services.identity.matching import BUG, OUT_OF_MEMORY, FoundPair, Told, line_of_rows
from services.identity.projections.match_input import read_rows

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from services.identity.upkeep.match_work import Claimed

# Profiles that tell something to compare; past it a filter has to choose.
PROFILES_PER_RUN_MAX = 500_000
# How often a run says that it lives, and sees whether it is still wanted.
HEARTBEAT_S = 1.0
COMPARING_TIMEOUT_S = 3_600.0
ENDING_TIMEOUT_S = 5.0
LINE_BYTES_MAX = 4 * 1024 * 1024

OUT_OF_TIME = "OUT_OF_TIME"
TOO_MANY_PROFILES = "PROFILES_PER_RUN_MAX"

_ENDED_BY: Mapping[int, str] = {
    signal.SIGXCPU: OUT_OF_TIME,
    signal.SIGKILL: OUT_OF_MEMORY,
}

_COMMAND = (sys.executable, "-m", "services.identity.matching")


class CannotCompareError(Exception):
    """When a run cannot be done, whoever tries: `reason` says why."""

    def __init__(self, reason: str, kind: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason} {kind}".strip())


@dataclass(slots=True)
class Found:
    """What comparing led to, and which profiles were compared."""

    told: Told = field(default_factory=Told)
    pairs: list[FoundPair] = field(default_factory=list)
    profiles: set[str] = field(default_factory=set)


async def compared(claimed: Claimed) -> Found:
    """Compares the profiles of a run, and says meanwhile that it lives.

    Raises CannotCompareError, or what `sign_of_life` raises.
    """
    work = asyncio.create_task(_compared(claimed))
    try:
        async with asyncio.timeout(COMPARING_TIMEOUT_S):
            while not work.done():
                await claimed.sign_of_life()
                await asyncio.wait({work}, timeout=HEARTBEAT_S)
        return work.result()
    except TimeoutError:
        raise CannotCompareError(OUT_OF_TIME) from None
    finally:
        work.cancel()
        await asyncio.wait({work}, timeout=ENDING_TIMEOUT_S)


async def _compared(claimed: Claimed) -> Found:
    found, progress = Found(), claimed.progress
    progress.stage = MatchRunStage.MATCH_RUN_STAGE_READING
    async with _process() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pool, workspace = claimed.kernel.pool, claimed.job.workspace
        with suppress(BrokenPipeError, ConnectionResetError):  # what it says tells why
            async for rows in read_rows(pool, workspace, claimed.row.state.filter):
                found.profiles.update(row.profile for row in rows)
                progress.counts.profiles = len(found.profiles)
                if len(found.profiles) > PROFILES_PER_RUN_MAX:
                    raise CannotCompareError(TOO_MANY_PROFILES)
                if process.stdin.is_closing():  # uvloop lets nobody write to who has ended
                    break
                process.stdin.write(line_of_rows(rows))
                await process.stdin.drain()
            process.stdin.close()
        progress.stage = MatchRunStage.MATCH_RUN_STAGE_COMPARING
        async for line in process.stdout:
            found.told = msgspec.json.decode(line, type=Told)
            found.pairs += found.told.pairs
        async with asyncio.timeout(ENDING_TIMEOUT_S):
            await process.wait()
    if found.told.failed:
        raise CannotCompareError(found.told.failed, found.told.model_version)
    if not found.told.model_version:
        # It ended without a word, so the system ended it.
        code = process.returncode or 0
        raise CannotCompareError(_ENDED_BY.get(-code, BUG), f"exit code {code}")
    return found


@asynccontextmanager
async def _process() -> AsyncIterator[Process]:
    """The process that compares; it is given no environment, so it knows no secret."""
    process = await asyncio.create_subprocess_exec(
        *_COMMAND, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={}, limit=LINE_BYTES_MAX
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
