"""The relay: publishes a partition of the log to its feed, in order, once, for ever.

It keeps no cursor: the feed's last position says where to go on. Any number of relays of one
partition may run; a publish names the position it must follow, so the slower one gets a conflict
and steps back. Every answer it does not understand leads to reading the feed's tip again. It never
gives up while NATS or PostgreSQL are away, and stops only when the feed holds something that is not
in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.kernel.feed.feed import (
    Feed,
    FeedConfigError,
    FeedConflictError,
    FeedMissingError,
    FeedTip,
    FeedUnavailableError,
    ForeignFeedError,
)
from services.kernel.log.database import DATABASE_FAILURES, transaction
from services.kernel.log.log import read_heads, read_partition
from services.kernel.log.pace import pause_after
from services.kernel.log.recent import Recent
from services.kernel.log.recorded import envelopes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.feed.feed import FeedConnection

CHUNK_SIZE = 1_000
CHUNK_BYTES_MAX = 4 * 1024 * 1024
# How long a relay without a wake-up waits before it looks at log and feed again.
SAFETY_POLL_S = 5.0
RETRY_PAUSE_S = 0.1
RETRY_PAUSE_MAX_S = 5.0
STEP_BACK_S = 0.2
STEP_BACK_MAX_S = 5.0
DATABASE_TIMEOUT_S = 30.0

_log = structlog.get_logger(__name__)


class RelayMetrics:
    """What a process's relays count; one per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("service", "partition")
        self.published = Counter(
            "rapport_relay_published", "Events published to the feed", labels, registry=registry
        )
        self.conflicts = Counter(
            "rapport_relay_conflicts", "Publishes that came second", labels, registry=registry
        )
        self.refills = Counter(
            "rapport_relay_refills", "Times the feed had lost events", labels, registry=registry
        )
        self.failures = Counter(
            "rapport_relay_failures", "Unclear or missing answers", labels, registry=registry
        )
        self.lag = Gauge(
            "rapport_relay_lag_events",
            "Events in the log but not in the feed",
            labels,
            registry=registry,
        )
        self.foreign = Gauge(
            "rapport_relay_foreign",
            "1 while the feed is not this log's, or not configured as needed",
            labels,
            registry=registry,
        )


class Relay:
    """The relay of one partition. `run` it as a task; `wake` it after an append."""

    def __init__(
        self,
        pool: Pool,
        connection: FeedConnection,
        *,
        service: str,
        partition: int,
        metrics: RelayMetrics,
        replicas: int = 1,
        recent: Recent | None = None,
        chunk_size: int = CHUNK_SIZE,
        safety_poll_s: float = SAFETY_POLL_S,
    ) -> None:
        """`replicas` is how many NATS servers keep the feed; `recent` saves reading the log."""
        self._pool = pool
        self._connection = connection
        self._feed = Feed(connection, service=service, partition=partition, replicas=replicas)
        self._partition = partition
        self._recent = recent or Recent()
        self._chunk_size = chunk_size
        self._safety_poll_s = safety_poll_s
        self._tip: FeedTip | None = None
        self._reached = 0
        self._head = 0
        self._step_back_s = 0.0
        self._work = asyncio.Event()
        self._interrupt = asyncio.Event()
        self._stopping = False
        self._log = _log.bind(feed=self._feed.name)
        self.problem: str | None = "not started"
        labels = (service, str(partition))
        self._published = metrics.published.labels(*labels)
        self._conflicts = metrics.conflicts.labels(*labels)
        self._refills = metrics.refills.labels(*labels)
        self._failures = metrics.failures.labels(*labels)
        self._lag = metrics.lag.labels(*labels)
        self._foreign = metrics.foreign.labels(*labels)

    def wake(self) -> None:
        """Says that the log may have grown."""
        self._work.set()

    def stop(self) -> None:
        """Lets `run` return after the chunk it is at."""
        self._stopping = True
        self._work.set()
        self._interrupt.set()

    @property
    def position(self) -> int:
        """How far the feed is known to have got."""
        return self._reached

    async def run(self) -> None:
        """Relays until stopped or cancelled.

        Raises ForeignFeedError or FeedConfigError when a person must look.
        """
        unwatch = self._connection.watch(self._came_up)
        try:
            await self._relay()
        except (ForeignFeedError, FeedConfigError) as error:
            self._foreign.set(1)
            self.problem = f"the feed is foreign or misconfigured: {error}"
            self._log.exception("relay.foreign")
            raise
        finally:
            unwatch()

    async def _relay(self) -> None:
        pause_s = RETRY_PAUSE_S
        while not self._stopping:
            try:
                published = await self._advance()
            except FeedConflictError:
                self._conflicts.inc()
                self._tip = None
                self._step_back_s = min(max(STEP_BACK_S, self._step_back_s * 2), STEP_BACK_MAX_S)
                await self._rest(self._step_back_s)
            except (FeedUnavailableError, *DATABASE_FAILURES) as error:
                self._failed(error)
                await self._rest(pause_s)
                pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
            else:
                self._recovered()
                pause_s = RETRY_PAUSE_S
                if not published:
                    await self._wait_for_work()
                elif burst_pause_s := pause_after(published, self._chunk_size):
                    await self._rest(burst_pause_s)

    async def _advance(self) -> int:
        """Publishes what follows the tip, at most `chunk_size` events; tells how many."""
        if self._tip is None:
            self._tip = await self._find_tip()
        tip = self._tip
        # The event at the tip is read along: while the log holds it there, the feed is this log's.
        after = max(tip.position - 1, 0)
        fresh = _after_tip(await self._read(after, self._chunk_size + 1), tip)
        self._head = max(self._head, tip.position + len(fresh))
        self._lag.set(self._head - tip.position)
        for chunk in _chunks(fresh):
            await self._publish(chunk)
        return len(fresh)

    async def _read(self, after: int, limit: int) -> Sequence[Envelope]:
        """The log's next events, from memory if it knows of any beyond the tip."""
        recent = self._recent.after(self._partition, after, limit)
        if recent and recent[-1].position > after + 1:
            return envelopes_of(recent)
        async with asyncio.timeout(DATABASE_TIMEOUT_S), transaction(self._pool) as tx:
            return await read_partition(tx, self._partition, after=after, limit=limit)

    async def _find_tip(self) -> FeedTip:
        """Reads how far feed and log have got, and checks that they belong together."""
        try:
            tip = await self._feed.tip()
        except FeedMissingError:
            await self._feed.create()
            tip = await self._feed.tip()
        async with asyncio.timeout(DATABASE_TIMEOUT_S), transaction(self._pool) as tx:
            self._head = (await read_heads(tx)).get(self._partition, 0)
            if tip.kept is not None:
                position, event_id = tip.kept
                found = await read_partition(tx, self._partition, after=position - 1, limit=1)
                _after_tip(found, FeedTip(position, event_id, None))
        if tip.position < self._reached or (tip.position == 0 and self._head > 0):
            self._refills.inc()
            self._log.info("relay.refill", after=tip.position, head=self._head)
        self._reached = tip.position
        return tip

    async def _publish(self, chunk: list[Envelope]) -> None:
        # Until the answer is clear the tip is not known.
        self._tip = None
        await self._feed.publish(chunk)
        last = chunk[-1]
        self._tip = FeedTip(last.position, last.event_id, None)
        self._reached = last.position
        self._step_back_s = 0.0
        self._published.inc(len(chunk))
        self._lag.set(self._head - last.position)
        self._log.debug("relay.published", events=len(chunk), position=last.position)

    async def _wait_for_work(self) -> None:
        """Sleeps until an append, or until it is time to look at the feed again."""
        if not self._work.is_set():
            try:
                async with asyncio.timeout(self._safety_poll_s * _jitter()):
                    await self._work.wait()
            except TimeoutError:
                self._tip = None
        self._work.clear()
        if self._step_back_s:
            # Another relay is at work: it goes first, and this one looks whether anything was left.
            self._tip = None
            await self._rest(self._step_back_s)

    async def _rest(self, pause_s: float) -> None:
        self._interrupt.clear()
        if self._stopping:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s * _jitter()):
                await self._interrupt.wait()

    def _came_up(self) -> None:
        """A server that comes up may have lost anything: look again."""
        self._tip = None
        self._work.set()
        self._interrupt.set()

    def _failed(self, error: Exception) -> None:
        self._tip = None
        self._failures.inc()
        problem = f"{type(error).__name__}: {error}"
        if self.problem is None:
            self._log.warning("relay.interrupted", error=problem)
        self.problem = problem

    def _recovered(self) -> None:
        if self.problem is not None:
            self._log.info("relay.running", position=self._reached, head=self._head)
        self.problem = None


def _after_tip(events: Sequence[Envelope], tip: FeedTip) -> Sequence[Envelope]:
    """The events that follow the tip, given those from the tip on.

    Raises ForeignFeedError when the log does not hold the feed's last event there.
    """
    if tip.position > 0:
        if not events or events[0].position != tip.position:
            raise ForeignFeedError(f"the feed holds position {tip.position}, the log does not")
        if tip.event_id and events[0].event_id != tip.event_id:
            at_tip = f"{tip.event_id}, the log {events[0].event_id}"
            raise ForeignFeedError(f"at position {tip.position} the feed holds event {at_tip}")
        events = events[1:]
    for expected, event in enumerate(events, start=tip.position + 1):
        if event.position != expected:
            raise ForeignFeedError(f"the log lacks position {expected}, which the feed needs next")
    return events


def _chunks(events: Sequence[Envelope]) -> Iterator[list[Envelope]]:
    """Cuts events so that no chunk is much larger than CHUNK_BYTES_MAX."""
    chunk: list[Envelope] = []
    size = 0
    for event in events:
        chunk.append(event)
        size += len(event.data)
        if size >= CHUNK_BYTES_MAX:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _jitter() -> float:
    return random.uniform(0.5, 1.0)
