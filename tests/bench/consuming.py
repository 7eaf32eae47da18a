"""Consumers at work on filled logs: timed from the feed, or just to have what they leave behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from asyncpg import Pool
from prometheus_client import CollectorRegistry

from rapport.segments.v1 import rule_pb2
from rapport.segments.v1.service_pb2 import CreateSegmentRequest
from services.identity.__main__ import SERVICE as IDENTITY
from services.kernel.clock import SystemClock
from services.kernel.feed.reader import FeedReader
from services.kernel.log.log import read_all, read_heads
from services.kernel.process.runtime import Service, make_kernel, open_pool, prepare_database
from services.kernel.rpc.caller import acting_as
from services.kernel.views.checkpoint import create_checkpoint, take_lease
from services.kernel.views.projection import Projection, ProjectionMetrics
from services.segments.__main__ import SERVICE as SEGMENTS
from services.segments.service import SegmentsService
from tests.bench.facts import log_of
from tests.bench.rounds import Measured
from tests.bench.world import World, bench_caller, caught_up, kernel_of

OWNER = "bench"
LEASE_S = 600.0
# Seconds are measured here; to look more often would be a part of what is measured.
POLL_S = 0.02

Open = Callable[[str, int, int], FeedReader]


def no_reader(*_: object) -> FeedReader:
    """For a projection that is handed its batches."""
    raise AssertionError("nobody reads here")


def projection_of(
    service: Service, pool: Pool, source: str, registry: CollectorRegistry, open_reader: Open
) -> Projection[Any]:
    """The worker of a service's first consumer for a source."""
    consumer = service.consumers[0]
    return Projection(
        pool=pool,
        log=make_kernel(pool, service, 1, SystemClock(), secret=b"").log,
        consumer=consumer,
        source=source,
        partition=0,
        open_reader=open_reader,
        owner=OWNER,
        metrics=ProjectionMetrics(registry),
        views=service.views,
        lease_s=LEASE_S,
    )


async def follow_feed(
    service: Service, pool: Pool, source: str, head: int, open_reader: Open
) -> Measured:
    """Runs a service's projection until it has applied a whole feed."""
    registry = CollectorRegistry()
    projection = projection_of(service, pool, source, registry, open_reader)
    labels = {"consumer": projection.consumer.name, "source": source, "partition": "0"}

    def has_reached_head() -> bool:
        assert not task.done(), task.exception()
        return registry.get_sample_value("rapport_projection_position", labels) == head

    began = time.perf_counter()
    task = asyncio.create_task(projection.run())
    await caught_up(has_reached_head, pause_s=POLL_S)
    seconds = time.perf_counter() - began
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert not registry.get_sample_value("rapport_projection_parked_total", labels)
    return Measured(head, seconds)


async def follow_logs(service: Service, pool: Pool, sources: Sequence[tuple[str, Pool]]) -> None:
    """Applies whole logs, one after the other, as the projection would."""
    for source, log in sources:
        projection = projection_of(service, pool, source, CollectorRegistry(), no_reader)
        await create_checkpoint(pool, projection.place)
        lease = await take_lease(pool, projection.place, OWNER, LEASE_S)
        assert lease is not None
        async for batch in read_all(log, 0, after=0, until=(await read_heads(log))[0]):
            await projection.apply(lease, batch)
        await lease.release(pool)


@asynccontextmanager
async def pools_of(world: World, services: Sequence[str]) -> AsyncIterator[dict[str, Pool]]:
    """Pools on the filled logs of services."""
    async with AsyncExitStack() as stack:
        yield {
            service: await stack.enter_async_context(open_pool(await log_of(world, service)))
            for service in services
        }


async def identity_log(world: World) -> str:
    """The database of identity after it has followed all three logs."""
    if "identity" not in world.made:
        url = await world.postgres.create_database("facts_identity")
        async with open_pool(url) as pool:
            await prepare_database(pool, IDENTITY, 1, SystemClock())
            async with pools_of(world, IDENTITY.peers) as sources:
                await follow_logs(IDENTITY, pool, list(sources.items()))
            await pool.execute("analyze")
        world.made["identity"] = url
    return world.made["identity"]


async def segments_log(world: World) -> str:
    """The database of segments with three segments, after it has followed identity's log."""
    if "segments" not in world.made:
        url = await world.postgres.create_database("facts_segments")
        async with (
            kernel_of(SEGMENTS, url) as kernel,
            open_pool(await identity_log(world)) as identity,
        ):
            await create_segments(SegmentsService(kernel))
            await follow_logs(SEGMENTS, kernel.pool, [("identity", identity)])
            await kernel.pool.execute("analyze")
        world.made["segments"] = url
    return world.made["segments"]


async def create_segments(service: SegmentsService) -> None:
    """Defines who is a member: by a trait, by one activity, by several."""
    trait = rule_pb2.TraitCondition(
        trait="plan", operator=rule_pb2.TRAIT_OPERATOR_EQUALS, value='"pro"'
    )
    conditions = {
        "pro": rule_pb2.Condition(trait=trait),
        "buyers": _activity("Order Completed", 1),
        "regulars": _activity("Product Viewed", 3),
    }
    with acting_as(bench_caller()):
        for name, condition in conditions.items():
            request = CreateSegmentRequest(
                segment_id=name, display_name=name, rule=rule_pb2.Rule(conditions=[condition])
            )
            await service.CreateSegment(request, None)


def _activity(name: str, count_min: int) -> rule_pb2.Condition:
    condition = rule_pb2.ActivityCondition(activity=name, count_min=count_min, window_days=3_650)
    return rule_pb2.Condition(activity=condition)
