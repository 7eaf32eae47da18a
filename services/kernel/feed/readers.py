"""Opens readers for consumers: of the own log where it stands, of other logs by their feeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.feed.reader import FeedReader, ReaderMetrics
from services.kernel.log.reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncpg import Pool
    from prometheus_client import CollectorRegistry

    from services.kernel.feed.feed import FeedConnection
    from services.kernel.feed.source import Source
    from services.kernel.log.log import Log


def reader_opener(
    pool: Pool,
    log: Log,
    feed: FeedConnection,
    sources: Mapping[str, Source],
    registry: CollectorRegistry,
) -> Callable[[str, int, int], FeedReader | LogReader]:
    """Returns what opens a reader of a source's partition after a position."""
    metrics = ReaderMetrics(registry)

    def open_reader(source: str, partition: int, after: int) -> FeedReader | LogReader:
        if source == log.service:
            return LogReader(pool, log, partition=partition, after_position=after)
        return FeedReader(
            feed,
            service=source,
            partition=partition,
            after_position=after,
            hole_reader=sources[source].read,
            metrics=metrics,
        )

    return open_reader
