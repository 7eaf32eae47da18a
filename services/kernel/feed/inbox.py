"""Where a reader receives one partition of a feed: a pull consumer, thrown away at any time.

Two outstanding pulls with a callback read three times as fast as the client's own fetch. Credit is
counted here, so the client's pending limits (which drop messages) are off. The server forgets pulls
without a word when it restarts; the missing heartbeat tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING

from nats.js import api

from services.kernel.feed.feed import FeedUnavailableError, read_message, stream_name, translated

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.feed.feed import FeedConnection

PULL_SIZE = 1_000
PULL_BYTES_MAX = 8 * 1024 * 1024
PULL_EXPIRES_S = 30.0
HEARTBEAT_S = 1.0
SILENCE_MAX_S = 3.0
# The server forgets a consumer that nobody pulls from for so long.
INACTIVE_MAX_S = 60.0

_HEARTBEAT = "100"
_OLD_REPLY_TOKENS = 9
_PULL = json.dumps(
    {
        "batch": PULL_SIZE,
        "max_bytes": PULL_BYTES_MAX,
        "expires": int(PULL_EXPIRES_S * 1e9),
        "idle_heartbeat": int(HEARTBEAT_S * 1e9),
    }
).encode()


class FeedInbox:
    """One consumer's messages, in the order the server sent them, parsed and checked."""

    def __init__(self, connection: FeedConnection, *, service: str, partition: int) -> None:
        self.events: deque[Envelope] = deque()
        self.arrived = asyncio.Event()
        self._connection = connection
        self._service = service
        self._partition = partition
        self._stream = stream_name(service, partition)
        self._consumer = ""
        self._incarnation = connection.incarnation
        self._subscription: Subscription | None = None
        self._reply = ""
        self._outstanding = 0
        self._last_heard_s = 0.0
        self._failure: Exception | None = None
        self._ended = False

    async def open(self, *, after: int) -> None:
        """Starts to receive what follows a position; raises FeedMissingError without a feed."""
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=INACTIVE_MAX_S,
            mem_storage=True,
            num_replicas=1,
        )
        with translated():
            client = self._connection.client()
            found = await self._connection.manager().add_consumer(self._stream, config)
            self._consumer = found.name or ""
            self._reply = client.new_inbox()
            self._subscription = await client.subscribe(
                self._reply, cb=self._receive, pending_msgs_limit=0, pending_bytes_limit=0
            )
        await self.replenish()

    async def close(self) -> None:
        """Forgets the consumer; the server would do so by itself a little later."""
        self._ended = True
        with contextlib.suppress(FeedUnavailableError), translated():
            if self._subscription is not None:
                await self._subscription.unsubscribe()
            if self._consumer and self._connection.is_up:
                await self._connection.manager().delete_consumer(self._stream, self._consumer)

    def is_alive(self) -> bool:
        """Whether messages can still come; raises ForeignFeedError when one was not ours."""
        if self._failure is not None:
            raise self._failure
        silence_s = asyncio.get_running_loop().time() - self._last_heard_s
        return (
            not self._ended
            and self._connection.is_up
            and self._incarnation == self._connection.incarnation
            and (self._outstanding == 0 or silence_s < SILENCE_MAX_S)
        )

    async def replenish(self) -> None:
        """Asks for more, so that two pulls are outstanding while the reader keeps up."""
        while not self._ended and len(self.events) + self._outstanding <= PULL_SIZE:
            if self._outstanding == 0:
                self._last_heard_s = asyncio.get_running_loop().time()
            self._outstanding += PULL_SIZE
            with translated():
                await self._connection.client().publish(
                    f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
                    _PULL,
                    reply=self._reply,
                )

    async def _receive(self, message: Msg) -> None:
        self._last_heard_s = asyncio.get_running_loop().time()
        if message.reply.startswith("$JS.ACK."):
            self._outstanding -= 1
            try:
                sequence = _sequence(message.reply)
                self.events.append(
                    read_message(
                        self._service, self._partition, sequence, message.subject, message.data
                    )
                )
            except Exception as error:  # noqa: BLE001 - the reader raises it
                self._failure = error
        else:
            self._hear_status(message.headers or {})
        self.arrived.set()

    def _hear_status(self, headers: dict[str, str]) -> None:
        status = headers.get("Status", "")
        if status == _HEARTBEAT:
            return
        unanswered = headers.get("Nats-Pending-Messages")
        if unanswered is None:
            # The consumer is gone, its server shuts down, or nobody leads it.
            self._ended = True
        else:
            self._outstanding = max(0, self._outstanding - int(unanswered))


def _sequence(reply: str) -> int:
    """The sequence in a message's reply subject, whose newer form names the domain first."""
    tokens = reply.split(".")
    return int(tokens[5] if len(tokens) == _OLD_REPLY_TOKENS else tokens[7])
