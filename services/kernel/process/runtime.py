"""Runs a service: log, views, relays, projections and RPCs, from declaration to orderly end.

A composition root declares a `Service` and calls `main`. Everything is built here in sight and
handed on by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import structlog
import uvloop

from rapport.common.v1 import log_service_pb2, log_service_pb2_grpc
from services.kernel.clock import Clock, SystemClock, new_id, new_ids
from services.kernel.command.decider import Commands
from services.kernel.command.group_commit import GroupCommit
from services.kernel.erasing.tombstones import ERASED_CHANNEL
from services.kernel.feed.feed import FeedConnection
from services.kernel.feed.log_service import LogServicer
from services.kernel.feed.readers import reader_opener
from services.kernel.feed.relay import Relay, RelayMetrics
from services.kernel.feed.source import Source, open_sources
from services.kernel.log.bell import Bell
from services.kernel.log.follow import Follower
from services.kernel.log.listen import Listener
from services.kernel.log.log import APPENDED_CHANNEL, Log
from services.kernel.log.tables import create_kernel_tables, create_tables
from services.kernel.log.writing import WritingConnection, leave_as_it_is
from services.kernel.process import telemetry
from services.kernel.process.config import ServiceConfig
from services.kernel.process.erasing import subject_erasing
from services.kernel.process.garbage import collect_garbage_rarely
from services.kernel.process.metrics import RpcMetrics, new_registry, probes
from services.kernel.process.tasks import Tasks
from services.kernel.process.web import WebServer
from services.kernel.rpc.caller import CallerSigner
from services.kernel.rpc.peers import Peers
from services.kernel.rpc.pipeline import signed_caller
from services.kernel.rpc.server import Served, Server
from services.kernel.views.checkpoint import ADVANCED_CHANNEL
from services.kernel.views.freshness import WANTED_CHANNEL, Freshness
from services.kernel.views.partitions import partitions_of
from services.kernel.views.projection import Consumer, Projection, ProjectionMetrics
from services.kernel.views.view import AnyView, ensure_live

if TYPE_CHECKING:
    from asyncpg import Pool
    from prometheus_client import CollectorRegistry

    from services.kernel.erasing.erasing import Erasing
    from services.kernel.erasing.holdings import Holdings
    from services.kernel.erasing.service import SubjectsServicer
    from services.kernel.log.recorded import EventTypes

POOL_SIZE_MAX = 10
STATEMENT_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
# A process that froze within a transaction holds the log's heads against all its replicas.
IDLE_IN_TRANSACTION_MAX_S = 30

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a service's RPCs and policies are built on."""

    pool: Pool
    log: Log
    group_commit: GroupCommit
    commands: Commands
    freshness: Freshness
    follower: Follower
    event_types: EventTypes
    views: Sequence[AnyView]
    bell: Bell
    clock: Clock
    new_id: Callable[[], UUID]
    # Whom it may ask, and what it answers about people's data: only where it runs.
    peers: Peers | None = None
    subjects: SubjectsServicer | None = None
    # 32 bytes for a label that only the platform can make, and makes again whenever it is asked.
    derive_key: Callable[[str], bytes]
    # The logs that its consumers read, for who reads them from the beginning; none in a tool.
    sources: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The declaration of a service: its facts, its views, whom it follows, and what it answers.

    `views` are read at once, `consumers` follow feeds; `background` makes coroutines that run
    until the end; `tables` are statements, repeatable, for what is neither log nor view.
    `holdings` is what it holds about people, `sweeping` makes coroutines that erase by themselves
    what is too old. `may_ask` names whom it asks besides those it follows.
    """

    name: str
    event_types: EventTypes
    servicers: Callable[[Kernel], Sequence[Served]]
    views: Sequence[AnyView] = ()
    consumers: Sequence[Consumer[Any]] = ()
    background: Callable[[Kernel, CollectorRegistry], Iterable[Coroutine[Any, Any, None]]] = (
        lambda _kernel, _registry: ()
    )
    tables: str = ""
    holdings: Callable[[Kernel], Holdings] | None = None
    sweeping: Callable[
        [Kernel, Erasing, CollectorRegistry], Iterable[Coroutine[Any, Any, None]]
    ] = lambda _kernel, _erasing, _registry: ()
    may_ask: tuple[str, ...] = ()

    @property
    def peers(self) -> tuple[str, ...]:
        """The other services whose logs its consumers read."""
        sources = {source for consumer in self.consumers for source in consumer.sources}
        return tuple(sorted(sources - {self.name}))


@dataclass(slots=True)
class Running:
    """A service that runs: where it answers, and what it is at."""

    kernel: Kernel
    server: Server
    tasks: Tasks
    relays: list[Relay] = field(default_factory=list)


@asynccontextmanager
async def open_pool(database_url: str) -> AsyncIterator[Pool]:
    """A pool whose statements have a deadline."""
    pool = await asyncpg.create_pool(
        database_url,
        min_size=1,
        max_size=POOL_SIZE_MAX,
        command_timeout=STATEMENT_TIMEOUT_S,
        timeout=CONNECT_TIMEOUT_S,
        server_settings={
            "application_name": "rapport",
            "jit": "off",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_MAX_S * 1000}",
        },
        connection_class=WritingConnection,
        reset=leave_as_it_is,
    )
    try:
        yield pool
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await pool.close()
        pool.terminate()


async def prepare_database(pool: Pool, service: Service, partitions: int, clock: Clock) -> None:
    """Create the kernel's tables and the live generation of each view, where they are missing."""
    async with pool.acquire() as connection:
        await create_kernel_tables(connection, partitions)
        for view in (*service.views, *(consumer.view for consumer in service.consumers)):
            async with connection.transaction():
                await ensure_live(connection, view, clock)
        await create_tables(connection, service.tables)


def make_kernel(
    pool: Pool, service: Service, partitions: int, clock: Clock, *, secret: bytes
) -> Kernel:
    """Build what RPCs need on a prepared database; nothing runs yet.

    `secret` is the platform's internal one, from which keys are derived.
    """
    log = Log(service=service.name, partitions=partitions, clock=clock, new_ids=new_ids)
    group_commit = GroupCommit(pool, log, service.views)
    return Kernel(
        pool=pool,
        log=log,
        group_commit=group_commit,
        commands=Commands(group_commit, service.event_types),
        freshness=Freshness(pool, service.name, {c.name: c.sources for c in service.consumers}),
        follower=Follower(pool, service.event_types),
        event_types=service.event_types,
        views=service.views,
        bell=Bell(),
        clock=clock,
        new_id=new_id,
        derive_key=lambda label: hmac.digest(secret, f"key/{label}".encode(), "sha256"),
    )


@asynccontextmanager
async def running(
    service: Service,
    config: ServiceConfig,
    registry: CollectorRegistry,
    *,
    clock: Clock | None = None,
) -> AsyncIterator[Running]:
    """Run a service until the block ends; then drain it, calls first, projections last."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(config.database_url))
        await prepare_database(pool, service, config.partitions, clock)
        names = {source for consumer in service.consumers for source in consumer.sources}
        sources = await stack.enter_async_context(open_sources(names, config, pool))
        kernel = make_kernel(pool, service, config.partitions, clock, secret=config.internal_secret)
        feed = await stack.enter_async_context(
            FeedConnection(config.nats_url, name=f"rapport {service.name}")
        )
        signer = CallerSigner(config.internal_secret, SystemClock())
        peers = await stack.enter_async_context(Peers(config.peers, signer))
        kernel = replace(kernel, sources=sources, peers=peers)
        erasing = subject_erasing(service, kernel, feed, config)
        served = [_log_service(pool)]
        if erasing is not None:
            kernel = replace(kernel, subjects=erasing.servicer)
            served.append(erasing.served)
        server = Server(
            config.grpc_address,
            [*service.servicers(kernel), *served],
            authenticate=signed_caller(signer),
            metrics=RpcMetrics(registry),
        )
        process = Running(kernel, server, Tasks(registry))
        commits = process.tasks.spawn("group commit", _commit_groups(kernel.group_commit, server))
        _start_relays(process, feed, config.nats_replicas, RelayMetrics(registry))
        _start_listener(process, config.database_url)
        _start_projections(process, service, feed, sources, registry)
        if erasing is not None:
            process.tasks.spawn("erasing", erasing.turns.run())
            process.tasks.spawn("compactor", erasing.compactor.run())
            for number, work in enumerate(service.sweeping(kernel, erasing.erasing, registry)):
                process.tasks.spawn("sweeping", work, f"{number}")
        for number, work in enumerate(service.background(kernel, registry)):
            process.tasks.spawn("background", work, f"{number}")
        await server.start()
        try:
            yield process
        finally:
            await server.stop(config.drain_timeout_s)
            kernel.group_commit.close()
            for relay in process.relays:
                relay.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(config.drain_timeout_s):
                    await asyncio.gather(commits, return_exceptions=True)
            await process.tasks.cancel()


async def _commit_groups(group_commit: GroupCommit, server: Server) -> None:
    """Run group commit; a process that can record nothing more must not be sent calls."""
    try:
        await group_commit.run()
    except Exception:
        await server.set_serving(serving=False)
        raise


def _log_service(pool: Pool) -> Served:
    return (
        log_service_pb2.DESCRIPTOR.services_by_name["LogService"],
        log_service_pb2_grpc.add_LogServiceServicer_to_server,
        LogServicer(pool),
    )


def _start_relays(
    process: Running, feed: FeedConnection, replicas: int, metrics: RelayMetrics
) -> None:
    """One relay per partition of the own log."""
    log = process.kernel.log
    for partition in range(log.partitions):
        relay = Relay(
            process.kernel.pool,
            feed,
            service=log.service,
            partition=partition,
            metrics=metrics,
            replicas=replicas,
            recent=log.recent,
        )
        process.relays.append(relay)
        process.tasks.spawn("relay", relay.run(), f"{partition}")


def _start_listener(process: Running, database_url: str) -> None:
    """One connection hears appends, advances and wishes, and wakes whoever waits for them."""
    kernel = process.kernel

    def appended(payload: str | None) -> None:
        for relay in process.relays:
            relay.wake()
        kernel.follower.wake(payload)
        kernel.log.grown.ring()
        kernel.bell.ring()

    def advanced(payload: str | None) -> None:
        kernel.freshness.wake(payload)
        kernel.bell.ring()

    def erased(_payload: str | None) -> None:
        kernel.log.recent.forget()

    listener = Listener(
        database_url,
        {
            APPENDED_CHANNEL: appended,
            ADVANCED_CHANNEL: advanced,
            ERASED_CHANNEL: erased,
            WANTED_CHANNEL: kernel.log.wanted.ring,
        },
    )
    process.tasks.spawn("listener", listener.run())


def _start_projections(
    process: Running,
    service: Service,
    feed: FeedConnection,
    sources: Mapping[str, Source],
    registry: CollectorRegistry,
) -> None:
    """One worker per consumer, source and partition, as soon as the partitions are known."""
    metrics, kernel = ProjectionMetrics(registry), process.kernel
    open_reader = reader_opener(kernel.pool, kernel.log, feed, sources, registry)

    async def follow(consumer: Consumer[Any], source: str) -> None:
        for partition in await partitions_of(kernel.pool, consumer, source, sources):
            projection = Projection(
                pool=kernel.pool,
                log=kernel.log,
                consumer=consumer,
                source=source,
                partition=partition,
                open_reader=open_reader,
                owner=str(new_id()),
                metrics=metrics,
                views=service.views,
                is_asked=process.server.is_asked,
            )
            process.tasks.spawn(
                "projection", projection.run(), f"{consumer.name} {source}-{partition}"
            )

    for consumer in service.consumers:
        for source in consumer.sources:
            process.tasks.spawn(
                "projections", follow(consumer, source), f"{consumer.name} {source}"
            )


async def serve(service: Service, config: ServiceConfig) -> None:
    """Run a service with its probes until SIGTERM or SIGINT."""
    registry = new_registry()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with running(service, config, registry) as process:
        web = WebServer(
            config.metrics_address, probes(registry, ready=lambda: process.server.serving)
        )
        await web.start()
        _log.info("service.ready", address=config.grpc_address, port=process.server.port)
        await stop.wait()
        _log.info("service.draining")
        await web.stop()
    _log.info("service.stopped")


def main(service: Service) -> None:
    """`python -m services.<name>` serves; with words behind it, it operates (`kernel.operate`)."""
    from services.kernel.process import operate  # noqa: PLC0415, it imports this module

    config = ServiceConfig.from_env(service.name, peers=service.peers, may_ask=service.may_ask)
    telemetry.start_logging(service.name, log_format=config.log_format)
    collect_garbage_rarely()
    if len(sys.argv) > 1:
        sys.exit(uvloop.run(operate.run(service, config, sys.argv[1:])))
    tracing = telemetry.start_tracing(
        service.name, address=config.traces_address, ratio=config.trace_ratio
    )
    try:
        uvloop.run(serve(service, config))
    finally:
        if tracing is not None:
            tracing.shutdown()
