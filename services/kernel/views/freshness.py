"""Waiting reads: a read that carries a write token waits until its view has got that far.

Who follows the own log may be pausing in a burst, in whichever process: a waiting read wakes him.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.kernel.errors import DeadlineExceeded
from services.kernel.log.bell import Bell, heard_within
from services.kernel.log.tokens import decode_write_token
from services.kernel.rpc.caller import current_caller_or_none
from services.kernel.views.checkpoint import read_positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Pool

    from rapport.common.v1.tokens_pb2 import Landing

WAIT_DEFAULT_S = 5.0
# Part of the caller's time is kept for the read itself and the way back.
ANSWER_RESERVE_S = 0.2
# A notification may be missed while its connection is away.
SAFETY_POLL_S = 0.5
WANTED_CHANNEL = "wanted"

_WANT = f"select pg_notify('{WANTED_CHANNEL}', $1)"


class Freshness:
    """Knows how far the views of one service have got."""

    def __init__(self, pool: Pool, service: str, sources: Mapping[str, Sequence[str]]) -> None:
        """`sources`: the logs each asynchronous view reads; a view not in it is read at once."""
        self._pool = pool
        self._service = service
        self._sources = sources
        self._bells = {view: Bell() for view in sources}

    def wake(self, view: str | None) -> None:
        """Say that a view's checkpoint has moved; None says that any may have."""
        for name, bell in self._bells.items():
            if view in (None, name):
                bell.ring()

    async def wait(self, view: str, read_token: str) -> None:
        """Return when the view is at least as fresh as the write that returned the token.

        Landings in logs that the view does not read are ignored. Raises InvalidArgument for a
        token that is not ours, DeadlineExceeded (VIEW_BEHIND) when the caller's time is over
        first.
        """
        if not read_token:
            return
        wanted = [
            landing
            for landing in decode_write_token(read_token)
            if landing.service in self._sources.get(view, ())
        ]
        if not wanted:
            return
        is_own = any(landing.service == self._service for landing in wanted)
        caller = current_caller_or_none()
        remaining_s = caller.remaining_s if caller else None
        wait_s = WAIT_DEFAULT_S if remaining_s is None else remaining_s - ANSWER_RESERVE_S
        try:
            with self._bells[view].listening() as advanced:
                async with asyncio.timeout(max(wait_s, 0.0)):
                    while not await self._reached(view, wanted, advanced):
                        if is_own:
                            await self._pool.execute(_WANT, view)
                        await heard_within(advanced, SAFETY_POLL_S)
        except TimeoutError:
            raise DeadlineExceeded.view_behind(view) from None

    async def _reached(self, view: str, wanted: Sequence[Landing], advanced: asyncio.Event) -> bool:
        advanced.clear()
        positions = await read_positions(self._pool, view)
        return all(
            positions.get((landing.service, landing.partition), 0) >= landing.position
            for landing in wanted
        )
