"""Write keys that were issued at run time: the events service says whose they are.

An answer is believed for `AGE_S_MAX`, a refusal as well, so a key that was revoked is refused
within that time. Kept by its digest: the memory of the gateway holds no key.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rapport.events.v1.write_keys_pb2 import ResolveWriteKeyRequest, ResolveWriteKeyResponse
from services.kernel.clock import Clock
from services.kernel.errors import DeadlineExceeded, NotFound, Unavailable
from services.kernel.rpc.caller import CALLER_LIFETIME, Caller

AGE_S_MAX: Final = 1.0
KEPT_MAX: Final = 10_000
ASKED_AT_ONCE_MAX: Final = 100
"""Questions under way: a flood of keys that nobody issued does not drown the events service."""

SOURCE_SCOPES: Final = frozenset({"events.write"})

_KEY_ID: Final = re.compile("[0-9A-Za-z.~-]{1,100}")

Resolve = Callable[[ResolveWriteKeyRequest], Awaitable[ResolveWriteKeyResponse]]


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose a write key is, and until when."""

    workspace: str
    source: str
    expire_time: datetime | None


class WriteKeys:
    """The callers that write keys stand for, as the events service knows them."""

    def __init__(
        self,
        resolve: Resolve,
        clock: Clock,
        *,
        age_s_max: float = AGE_S_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._clock = clock
        self._age_s_max = age_s_max
        self._monotonic = monotonic
        self._kept: OrderedDict[bytes, tuple[_Owner | None, float]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Owner | None]] = {}

    async def caller(self, key_id: str, secret: str) -> Caller | None:
        """Returns whom a key stands for, or None; raises Unavailable when nobody can say."""
        if not _KEY_ID.fullmatch(key_id) or not secret:
            return None
        digest = hashlib.sha256(f"{key_id}_{secret}".encode()).digest()
        kept = self._kept.get(digest)
        if kept is not None and self._monotonic() < kept[1]:
            owner = kept[0]
        else:
            owner = await self._ask(digest, key_id, secret)
        now = self._clock.now()
        if owner is None or (owner.expire_time is not None and owner.expire_time <= now):
            return None
        return Caller(
            workspace=owner.workspace,
            actor=owner.source,
            scopes=SOURCE_SCOPES,
            expire_time=now + CALLER_LIFETIME,
        )

    async def _ask(self, digest: bytes, key_id: str, secret: str) -> _Owner | None:
        """Asks once, however many wait for the same answer."""
        asking = self._asking.get(digest)
        if asking is None:
            if len(self._asking) >= ASKED_AT_ONCE_MAX:
                raise Unavailable("events", message="too many write keys are asked for at once")
            request = ResolveWriteKeyRequest(
                key_id=key_id, secret_hash=hashlib.sha256(secret.encode()).digest()
            )
            asking = asyncio.create_task(self._owner(request))
            self._asking[digest] = asking
            asking.add_done_callback(lambda done: self._answered(digest, done))
        # Who gives up waiting does not take the answer from the others.
        return await asyncio.shield(asking)

    async def _owner(self, request: ResolveWriteKeyRequest) -> _Owner | None:
        try:
            response = await self._resolve(request)
        except NotFound:
            return None
        except DeadlineExceeded as error:
            raise Unavailable("events") from error
        expires = response.HasField("expire_time")
        return _Owner(
            response.workspace,
            response.source,
            response.expire_time.ToDatetime(tzinfo=UTC) if expires else None,
        )

    def _answered(self, digest: bytes, asked: asyncio.Task[_Owner | None]) -> None:
        del self._asking[digest]
        if asked.cancelled() or asked.exception() is not None:
            return
        self._kept[digest] = (asked.result(), self._monotonic() + self._age_s_max)
        self._kept.move_to_end(digest)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
