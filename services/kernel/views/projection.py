"""Projections: consumers that fold feeds into a view, exactly once.

One batch is one transaction: move the checkpoint (compare-and-set, which fences zombies), fold
the events, append what the policy says follows. While a full one is applied, the next is read and
decoded; who is fenced drops it. A batch that fails is halved until the guilty
event stands alone; that one is parked with its reason, unless the failure was the database's or
the network's, which is waited for and never skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.kernel.feed.feed import ForeignFeedError
from services.kernel.log.database import DATABASE_FAILURES, is_conflict, is_passing, transaction
from services.kernel.log.recorded import (
    EventTypes,
    Recorded,
    UndecodableEventError,
    is_erased,
)
from services.kernel.views import parking
from services.kernel.views.checkpoint import (
    ADVANCED_CHANNEL,
    FencedError,
    Lease,
    Place,
    begin_checkpoints,
    hold_checkpoint,
    take_lease,
)
from services.kernel.views.parking import BEHIND_PARKED, Poison
from services.kernel.views.view import ReadsAhead, append_with_views

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.feed.reader import HoleReader
    from services.kernel.log.log import Log
    from services.kernel.log.recorded import Logged
    from services.kernel.log.sql import Tx
    from services.kernel.views.policy import Policy
    from services.kernel.views.view import AnyView, View

T = TypeVar("T")

BATCH_SIZE_MAX = 1_000
# By how much a batch that was cut, because it took too long, grows again with each success.
BATCH_SIZE_STEP = 10
# Whoever waits for the database meanwhile is to go on at once.
DECODED_AT_ONCE = 20
LEASE_S = 10.0
REASON_LENGTH_MAX = 500
RETRY_PAUSE_S = 0.1
RETRY_PAUSE_MAX_S = 5.0

# What it takes to apply a batch, even a slow one; then the connection is thought dead.
BATCH_TIMEOUT_S = 60.0

_NOTIFY = f"select pg_notify('{ADVANCED_CHANNEL}', $1)"

_log = structlog.get_logger(__name__)


class Reader(Protocol):
    """Reads one partition of a log, another service's from its feed, the own one as it stands."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def next_batch(self, *, max_events: int, max_wait_s: float) -> Sequence[Logged]:
        """The next events, as many as there are; none when the time is over."""
        ...


@dataclass(frozen=True, slots=True)
class Consumer(Generic[T]):
    """A view fed by the feeds of `sources`, and the policy that says what follows.

    While its process is asked, it applies `batch_size_asked` events at once: an answer waits for
    what a batch computes, and where that is much, it should not wait for the largest.
    """

    view: View[T]
    sources: tuple[str, ...]
    event_types: EventTypes
    policy: Policy[T] | None = None
    batch_size_asked: int = BATCH_SIZE_MAX

    @property
    def name(self) -> str:
        """The consumer's name is its view's."""
        return self.view.name


class ProjectionMetrics:
    """What a process's projections count; one per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the numbers."""
        labels = ("consumer", "source", "partition")
        self.applied = Counter(
            "rapport_projection_applied", "Events applied", labels, registry=registry
        )
        self.parked = Counter(
            "rapport_projection_parked", "Events parked", labels, registry=registry
        )
        self.position = Gauge(
            "rapport_projection_position", "The checkpoint", labels, registry=registry
        )
        self.stopped = Gauge(
            "rapport_projection_stopped", "1 while it refuses to go on", labels, registry=registry
        )


@dataclass(slots=True)
class Projection(Generic[T]):
    """The worker of one consumer for one partition of one source.

    `run` it as a task; any number of replicas may.
    """

    pool: Pool
    log: Log
    consumer: Consumer[T]
    source: str
    partition: int
    open_reader: Callable[[str, int, int], Reader]
    owner: str
    metrics: ProjectionMetrics
    views: Sequence[AnyView] = ()  # those of the own log that are read at once
    is_asked: Callable[[], bool] = lambda: False  # whether calls come in where it works
    lease_s: float = LEASE_S
    place: Place = field(init=False)
    _batch_size: int = field(default=BATCH_SIZE_MAX, init=False)
    _pause_s: float = field(default=RETRY_PAUSE_S, init=False)

    def __post_init__(self) -> None:
        """Name the checkpoint."""
        self.place = Place(self.consumer.name, self.source, self.partition)

    @property
    def _labels(self) -> tuple[str, str, str]:
        return self.consumer.name, self.source, str(self.partition)

    @property
    def _size(self) -> int:
        """How many events are read and applied at once."""
        if self.is_asked():
            return min(self._batch_size, self.consumer.batch_size_asked)
        return self._batch_size

    async def run(self) -> None:
        """Work whenever the lease is ours; stops only when going on would be wrong."""
        while True:
            try:
                await begin_checkpoints(self.pool, [self.place])
                lease = await take_lease(self.pool, self.place, self.owner, self.lease_s)
                if lease is None:
                    await _rest(self.lease_s / 3)
                    continue
                # An erasure fences who may have read what it took: memory may still have it.
                self.log.recent.forget()
                await self._work(lease)
            except FencedError as error:
                _log.info("projection.fenced", place=str(self.place), error=str(error))
            except Exception as error:
                if not (is_passing(error) or is_conflict(error)):
                    self.metrics.stopped.labels(*self._labels).set(1)
                    raise
                if isinstance(error, TimeoutError):  # perhaps it was too much at once
                    self._batch_size = max(1, self._batch_size // 2)
                _log.warning("projection.waits", place=str(self.place), error=repr(error))
            await _rest(self._pause_s)
            self._pause_s = min(self._pause_s * 2, RETRY_PAUSE_MAX_S)

    async def _work(self, lease: Lease) -> None:
        """Read and apply while the lease holds; release it on the way out."""
        try:
            async with (
                self.open_reader(self.source, self.partition, lease.position) as reader,
                contextlib.aclosing(self._batches(reader)) as batches,
            ):
                async for batch in batches:
                    if not batch:
                        await lease.renew(self.pool)
                        continue
                    await self.apply(lease, batch)
                    self._pause_s = RETRY_PAUSE_S
                    self._batch_size = min(self._batch_size + BATCH_SIZE_STEP, BATCH_SIZE_MAX)
                    self.metrics.position.labels(*self._labels).set(lease.position)
        finally:
            with contextlib.suppress(*DATABASE_FAILURES):
                await lease.release(self.pool)

    async def _batches(self, reader: Reader) -> AsyncGenerator[Sequence[Logged], None]:
        """What there is to apply; while a full batch is applied, the next is read already."""
        while True:
            size = self._size
            batch = await self._next_batch(reader, size)
            while len(batch) == size:
                size = self._size
                following = asyncio.create_task(self._next_batch(reader, size))
                try:
                    yield batch
                    batch = await following
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
            # Nothing waits behind it: what is read later is more at once.
            yield batch

    async def _next_batch(self, reader: Reader, size: int) -> Sequence[Logged]:
        """The next events, decoded as far as they can be."""
        batch = await reader.next_batch(max_events=size, max_wait_s=self.lease_s / 3)
        found: list[Logged] = []
        for start in range(0, len(batch), DECODED_AT_ONCE):
            some = batch[start : start + DECODED_AT_ONCE]
            found += self._decode(some)
            await asyncio.sleep(0)
        return found

    def _decode(self, batch: Sequence[Logged]) -> Sequence[Logged]:
        view, event_types = self.consumer.view, self.consumer.event_types
        try:
            events = [event_types.decode(envelope) for envelope in batch]
        except UndecodableEventError:
            # They are told apart where they can be parked.
            return batch
        if isinstance(view, ReadsAhead):
            # What cannot be read fails once more where it is applied, and there it can be parked.
            with contextlib.suppress(Exception):
                view.read_ahead(events)
        return events

    async def apply(self, lease: Lease, batch: Sequence[Logged]) -> None:
        """Apply a batch in one transaction, or in smaller ones if it holds poison."""
        try:
            await self._apply_once(lease, batch, poison_reason=None)
        except (FencedError, parking.TooManyParkedError):
            raise
        except Exception as error:
            if is_passing(error) or is_conflict(error):
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                await self.apply(lease, batch[:middle])
                await self.apply(lease, batch[middle:])
                return
            _log.exception("projection.poison", place=str(self.place), position=batch[0].position)
            await self._apply_once(lease, batch, poison_reason=reason_of(error))

    async def _apply_once(
        self, lease: Lease, batch: Sequence[Logged], *, poison_reason: str | None
    ) -> None:
        """One transaction for a batch; with a poison_reason its events are parked instead."""
        position = batch[-1].position
        async with asyncio.timeout(BATCH_TIMEOUT_S), transaction(self.pool) as tx:
            await lease.move(tx, position)
            if self.consumer.policy is not None:
                await self.log.lock_heads(tx, set(range(self.log.partitions)))
            streams = await parking.parked_streams(tx, self.place)
            events, poisons = self._sort(batch, streams, poison_reason)
            await parking.park(tx, self.place, poisons)
            await fold(tx, self.log, self.consumer, events, self.views)
            await tx.execute(_NOTIFY, self.consumer.name)
        lease.position = position
        self.metrics.applied.labels(*self._labels).inc(len(events))
        self.metrics.parked.labels(*self._labels).inc(len(poisons))
        _log.debug(
            "projection.applied", place=str(self.place), events=len(events), position=position
        )

    def _sort(
        self, batch: Sequence[Logged], streams: set[tuple[str, str]], poison_reason: str | None
    ) -> tuple[list[Recorded], list[Poison]]:
        """What can be applied, and what must be parked: poison, and what comes behind it."""
        events, poisons = [], []
        for envelope in batch:
            if is_erased(envelope):
                continue
            stream = (envelope.workspace, envelope.stream)
            if stream in streams:
                poisons.append(Poison(envelope, BEHIND_PARKED))
                continue
            try:
                event = self.consumer.event_types.decode(envelope)
            except UndecodableEventError as error:
                poisons.append(Poison(envelope, str(error)))
                streams.add(stream)
                continue
            if poison_reason is not None:
                poisons.append(Poison(envelope, poison_reason))
                streams.add(stream)
            else:
                events.append(event)
        return events, poisons


async def _rest(pause_s: float) -> None:
    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))


async def fold(
    tx: Tx,
    log: Log,
    consumer: Consumer[T],
    events: Sequence[Recorded],
    views: Sequence[AnyView] = (),
) -> None:
    """Fold events into the live view, append what follows, fold that into the log's own views."""
    if not events:
        return
    applied = await consumer.view.apply(tx, consumer.view.name, events)
    if consumer.policy is not None:
        # A batch is much to compute, and whoever asks this process meanwhile is to be answered.
        await asyncio.sleep(0)
        follows = await consumer.policy.react(tx, events, applied)
        await asyncio.sleep(0)
        await append_with_views(tx, log, views, follows)


async def retry_parked(
    pool: Pool,
    log: Log,
    consumer: Consumer[Any],
    place: Place,
    workspace: str,
    stream: str,
    read_source: HoleReader,
    views: Sequence[AnyView] = (),
) -> int:
    """Apply a parked stream's events after the cause was mended; answers how many.

    Raises what apply raises; then only the attempt is counted.
    """
    try:
        async with asyncio.timeout(BATCH_TIMEOUT_S), transaction(pool) as tx:
            await hold_checkpoint(tx, place)
            if consumer.policy is not None:
                await log.lock_heads(tx, set(range(log.partitions)))
            positions = await parking.positions_of_stream(tx, place, workspace, stream)
            envelopes = [await _read_one(read_source, place, position) for position in positions]
            events = consumer.event_types.decode_all(envelopes)
            await fold(tx, log, consumer, events, views)
            await parking.unpark(tx, place, positions)
            await tx.execute(_NOTIFY, consumer.name)
    except Exception as error:
        await parking.count_attempt(pool, place, workspace, stream, reason_of(error))
        raise
    return len(positions)


async def _read_one(read_source: HoleReader, place: Place, position: int) -> Envelope:
    found = await read_source(place.partition, position - 1, 1)
    if [event.position for event in found] != [position]:
        raise ForeignFeedError(f"the log of {place.source} lacks position {position}, once parked")
    return found[0]


def reason_of(error: Exception) -> str:
    """What is kept of an error as the reason for parking."""
    return f"{type(error).__name__}: {error}"[:REASON_LENGTH_MAX]
