"""The reader: a partition of another service's log in order, whatever happens to the feed.

Positions are dense, so the reader sees at once that it missed something and asks the owner of the
log. It does the same when the feed is away, or has been silent for long: it may be refilling. A
consumer that is ahead of the feed just waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Protocol, Self

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.kernel.errors import RapportError
from services.kernel.feed.feed import FeedUnavailableError, ForeignFeedError, stream_name
from services.kernel.feed.inbox import FeedInbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.feed.feed import FeedConnection

# How long the feed may say nothing new until the owner is asked whether there is nothing.
QUIET_MAX_S = 10.0
# How often the owner is asked while there is no feed, and the feed looked for.
OWNER_POLL_S = 0.5
OWNER_TIMEOUT_S = 10.0
# How often a waiting reader looks whether its inbox still lives.
WATCH_S = 1.0
WAIT_MIN_S = 0.005

_OWNER_FAILURES = (RapportError, OSError, TimeoutError)

_log = structlog.get_logger(__name__)


class HoleReader(Protocol):
    """Reads the owner's log: the events after a position, in order, at most `limit`."""

    def __call__(
        self, partition: int, after_position: int, limit: int
    ) -> Awaitable[Sequence[Envelope]]: ...


class ReaderMetrics:
    """What a process's readers count; one per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("service", "partition")
        self.holes = Counter(
            "rapport_reader_holes", "Holes filled by the log's owner", labels, registry=registry
        )
        self.duplicates = Counter(
            "rapport_reader_duplicates", "Events that came again", labels, registry=registry
        )
        self.owner_events = Counter(
            "rapport_reader_owner_events",
            "Events read from the log's owner",
            labels,
            registry=registry,
        )
        self.restarts = Counter(
            "rapport_reader_restarts",
            "Times reading the feed began anew",
            labels,
            registry=registry,
        )


class FeedReader:
    """Reads one partition of a service's log from a position on. For one task at a time."""

    def __init__(
        self,
        connection: FeedConnection,
        *,
        service: str,
        partition: int,
        after_position: int,
        hole_reader: HoleReader,
        metrics: ReaderMetrics,
        quiet_max_s: float = QUIET_MAX_S,
        owner_poll_s: float = OWNER_POLL_S,
    ) -> None:
        self._connection = connection
        self._service = service
        self._partition = partition
        self._position = after_position
        self._read_owner = hole_reader
        self._quiet_max_s = quiet_max_s
        self._owner_poll_s = owner_poll_s
        self._inbox: FeedInbox | None = None
        self._open_after_s = 0.0
        self._ask_after_s = 0.0
        self._quiet_until_s = 0.0
        self._owner_answers = True
        self._log = _log.bind(feed=stream_name(service, partition))
        labels = (service, str(partition))
        self._holes = metrics.holes.labels(*labels)
        self._duplicates = metrics.duplicates.labels(*labels)
        self._owner_events = metrics.owner_events.labels(*labels)
        self._restarts = metrics.restarts.labels(*labels)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop_inbox()

    @property
    def position(self) -> int:
        """The position of the last event handed out."""
        return self._position

    async def next_batch(self, *, max_events: int, max_wait_s: float) -> list[Envelope]:
        """The next events, as many as there are; none when the time is over.

        Raises ForeignFeedError when the feed is not the owner's log.
        """
        deadline_s = _now_s() + max_wait_s
        while True:
            batch = await self._from_feed(max_events)
            if not batch and _now_s() >= self._quiet_until_s:
                batch = await self._from_owner(max_events)
            if batch:
                self._position = batch[-1].position
                return batch
            left_s = deadline_s - _now_s()
            if left_s <= 0:
                return []
            await self._wait(left_s)

    async def _from_feed(self, max_events: int) -> list[Envelope]:
        """What the inbox holds next, up to a hole; if a hole is next, what the owner has there."""
        inbox = await self._living_inbox()
        if inbox is None:
            return []
        inbox.arrived.clear()
        batch: list[Envelope] = []
        expected = self._position + 1
        while inbox.events and len(batch) < max_events:
            position = inbox.events[0].position
            if position > expected:
                if not batch:
                    batch = await self._fill_hole(min(position - expected, max_events))
                break
            event = inbox.events.popleft()
            if position == expected:
                batch.append(event)
                expected += 1
            else:
                self._duplicates.inc()
        if batch:
            self._quiet_until_s = _now_s() + self._quiet_max_s
        with contextlib.suppress(FeedUnavailableError):
            await inbox.replenish()
        return batch

    async def _fill_hole(self, limit: int) -> list[Envelope]:
        found = await self._ask_owner(limit)
        if found is None:
            return []
        if not found:
            raise ForeignFeedError(
                f"the feed goes on after {self._position}, its owner's log does not"
            )
        self._holes.inc()
        self._log.info("reader.hole", after=self._position, events=len(found))
        return found

    async def _from_owner(self, max_events: int) -> list[Envelope]:
        """What the owner has, while the feed is away or silent."""
        found = await self._ask_owner(max_events) or []
        if not found:
            pause_s = self._owner_poll_s * _jitter() if self._inbox is None else self._quiet_max_s
            self._quiet_until_s = _now_s() + pause_s
        return found

    async def _ask_owner(self, limit: int) -> list[Envelope] | None:
        """The owner's next events; None while it does not answer."""
        if _now_s() < self._ask_after_s:
            return None
        try:
            async with asyncio.timeout(OWNER_TIMEOUT_S):
                found = list(await self._read_owner(self._partition, self._position, limit))
        except _OWNER_FAILURES as error:
            self._ask_after_s = _now_s() + self._owner_poll_s * _jitter()
            self._note_owner(answers=False, error=repr(error))
            return None
        self._note_owner(answers=True)
        for expected, event in enumerate(found, start=self._position + 1):
            if (event.partition, event.position) != (self._partition, expected):
                raise ForeignFeedError(f"the owner's log lacks position {expected}")
        self._owner_events.inc(len(found))
        return found

    async def _living_inbox(self) -> FeedInbox | None:
        """The inbox, opened anew if it is dead; None while there is no feed."""
        if self._inbox is not None and self._inbox.is_alive():
            return self._inbox
        if self._inbox is not None:
            self._log.info("reader.restart", after=self._position)
            self._restarts.inc()
            await self._drop_inbox()
        if _now_s() < self._open_after_s:
            return None
        inbox = FeedInbox(self._connection, service=self._service, partition=self._partition)
        try:
            await inbox.open(after=self._position)
        except FeedUnavailableError as error:
            await inbox.close()
            self._open_after_s = _now_s() + self._owner_poll_s * _jitter()
            self._log.debug("reader.no_feed", error=str(error))
            return None
        self._inbox = inbox
        self._quiet_until_s = _now_s() + self._quiet_max_s
        self._log.info("reader.reading", after=self._position)
        return inbox

    async def _drop_inbox(self) -> None:
        inbox, self._inbox = self._inbox, None
        self._quiet_until_s = 0.0
        if inbox is not None:
            await inbox.close()

    async def _wait(self, left_s: float) -> None:
        """Sleeps until something arrives, or until there is something to try."""
        if self._inbox is None:
            await asyncio.sleep(min(left_s, self._owner_poll_s * _jitter()))
            return
        # Messages that wait behind a hole wait for the owner; without any, silence has its end.
        next_try_s = self._ask_after_s if self._inbox.events else self._quiet_until_s
        due_s = max(next_try_s - _now_s(), WAIT_MIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, due_s, WATCH_S)):
                await self._inbox.arrived.wait()

    def _note_owner(self, *, answers: bool, error: str = "") -> None:
        if answers != self._owner_answers:
            self._log.info("reader.owner", answers=answers, error=error)
        self._owner_answers = answers


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _jitter() -> float:
    return random.uniform(0.5, 1.0)
