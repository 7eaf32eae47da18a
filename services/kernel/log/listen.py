"""Hears PostgreSQL's notifications on one connection of its own, which comes back by itself.

A notification only wakes somebody up: none is kept while the connection is away, so whoever listens
is also woken when it came up, and looks for himself.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import asyncpg
import structlog

from services.kernel.log.database import DATABASE_FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 5.0
RETRY_PAUSE_S = 0.1
RETRY_PAUSE_MAX_S = 5.0
# How often a silent connection is asked whether it still lives.
PROBE_S = 10.0

_log = structlog.get_logger(__name__)


class Listener:
    """Calls back for each notification on some channels. `run` it as a task."""

    def __init__(
        self, database_url: str, channels: Mapping[str, Callable[[str | None], None]]
    ) -> None:
        """A channel's callback gets the payload, or None when some may have been missed."""
        self._database_url = database_url
        self._channels = dict(channels)
        self.is_up = False

    async def run(self) -> None:
        """Listens until cancelled."""
        pause_s = RETRY_PAUSE_S
        while True:
            try:
                await self._listen()
            except DATABASE_FAILURES as error:
                if self.is_up:
                    _log.warning("listen.interrupted", error=repr(error))
                    pause_s = RETRY_PAUSE_S
                self.is_up = False
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)

    async def _listen(self) -> None:
        """Listens until the connection breaks."""
        connection = await asyncpg.connect(
            self._database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
        )
        try:
            for channel in self._channels:
                await connection.add_listener(channel, self._heard)
            broken = asyncio.Event()
            connection.add_termination_listener(lambda _: broken.set())
            self.is_up = True
            for woken in self._channels.values():
                woken(None)
            while not broken.is_set():
                try:
                    async with asyncio.timeout(PROBE_S):
                        await broken.wait()
                except TimeoutError:
                    await connection.execute("select 1")
            raise ConnectionError("the connection was closed")
        finally:
            connection.terminate()

    def _heard(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._channels[channel](str(payload))
