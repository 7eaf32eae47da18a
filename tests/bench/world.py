"""The servers of a run: a PostgreSQL and a NATS of its own, and our processes when asked for."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import asyncpg
import nats

from deploy.stack.child import Child
from deploy.stack.health import wait_serving
from deploy.stack.keys import (
    WORKSPACE,
    DevelopmentSecrets,
    development_secrets,
    keys_file,
)
from deploy.stack.nats import Nats
from deploy.stack.ports import free_port
from deploy.stack.postgres import Postgres
from deploy.stack.settings import Settings
from services.kernel.clock import SystemClock
from services.kernel.feed.feed import FeedConnection
from services.kernel.process.runtime import (
    Kernel,
    Service,
    make_kernel,
    open_pool,
    prepare_database,
)
from services.kernel.rpc.caller import Caller, CallerSigner, own_caller
from services.kernel.rpc.client import PeerChannel
from services.kernel.testing import eventually
from tests.bench.sizes import Sizes

SERVICES = ("contacts", "deals", "events", "identity", "segments")
MODULES = {name: f"services.{name}" for name in SERVICES} | {"gateway": "gateway"}
ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0
CAUGHT_UP_WITHIN_S = 1_800.0
CALLER_LIFE = timedelta(hours=1)


@dataclass
class World:
    """Servers, and where the processes of a run are or would be."""

    directory: Path
    postgres: Postgres
    nats_server: Nats
    sizes: Sizes
    secrets: DevelopmentSecrets
    # What sections share, by name; see facts.py.
    made: dict[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(
        default_factory=lambda: {
            name: f"127.0.0.1:{free_port()}" for name in (*MODULES, "http", "metrics")
        }
    )

    async def postgres_version(self) -> str:
        """The server's own word for its version."""
        connection = await asyncpg.connect(self.postgres.url("postgres"))
        try:
            return str(await connection.fetchval("show server_version"))
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def process(self, name: str, database_url: str = "") -> AsyncIterator[Child]:
        """One of our processes, as `make up` would start it, until the block ends."""
        child = Child(
            [sys.executable, "-m", MODULES[name]],
            log=self.directory / f"{name}.log",
            environment=self._environment(name, database_url),
            directory=ROOT,
        )
        try:
            await wait_serving(self.addresses[name], child, within_s=READY_WITHIN_S)
            yield child
        finally:
            await asyncio.to_thread(child.stop, signal.SIGTERM, within_s=STOP_WITHIN_S)

    def _environment(self, name: str, database_url: str) -> dict[str, str]:
        peers = {f"RAPPORT_{peer.upper()}_ADDRESS": self.addresses[peer] for peer in SERVICES}
        return {
            **Settings.from_env().environment,
            **peers,
            "RAPPORT_GRPC_ADDRESS": self.addresses[name],
            "RAPPORT_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
            "RAPPORT_HTTP_ADDRESS": self.addresses["http"],
            "RAPPORT_INTERNAL_SECRET": self.secrets.internal_secret,
            "RAPPORT_KEY_PEPPER": self.secrets.key_pepper,
            "RAPPORT_API_KEYS_FILE": str(keys_file(self.directory, self.secrets)),
            "RAPPORT_LOG_FORMAT": "json",
            "RAPPORT_DATABASE_URL": database_url,
            "RAPPORT_NATS_URL": self.nats_server.url,
        }

    def peer(self, name: str) -> PeerChannel:
        """A channel to one of our processes, as another of them would have it."""
        return PeerChannel(
            name,
            self.addresses[name],
            services=[],
            signer=CallerSigner(self.secrets.internal_secret.encode(), SystemClock()),
            speak_as=lambda: own_caller(
                "api_keys/bench",
                clock=SystemClock(),
                scopes=frozenset({"*", "internal"}),
                workspace=WORKSPACE,
            ),
        )

    @contextlib.asynccontextmanager
    async def feed(self) -> AsyncIterator[FeedConnection]:
        """A connection to the feeds that is up."""
        async with FeedConnection(self.nats_server.url, name="bench") as connection:

            def up() -> None:
                assert connection.is_up

            await eventually(up, within_s=READY_WITHIN_S)
            yield connection

    async def forget_feeds(self) -> None:
        """Deletes every stream: what processes relayed belongs to their logs, not to the next."""
        client = await nats.connect(self.nats_server.url)
        try:
            context = client.jetstream()
            for stream in await context.streams_info():
                await context.delete_stream(stream.config.name or "")
        finally:
            await client.close()


@contextlib.contextmanager
def started(sizes: Sizes) -> Iterator[World]:
    """Starts the servers in a directory of their own, which is gone afterwards. Main thread."""
    directory = Path(tempfile.mkdtemp(prefix="rapport-bench-"))
    directory.chmod(0o711)
    postgres = Postgres(directory / "postgres", bin_dir=Settings.from_env().postgres_bin)
    nats_server = Nats(directory / "nats")
    try:
        postgres.start()
        nats_server.start()
        yield World(directory, postgres, nats_server, sizes, development_secrets(directory))
    finally:
        nats_server.stop()
        postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def kernel_of(service: Service, database_url: str) -> AsyncIterator[Kernel]:
    """A service's kernel on a database of its own, committing; nothing else of it runs."""
    clock = SystemClock()
    async with open_pool(database_url) as pool:
        await prepare_database(pool, service, 1, clock)
        kernel = make_kernel(pool, service, 1, clock, secret=b"")
        commits = asyncio.create_task(kernel.group_commit.run())
        try:
            yield kernel
        finally:
            kernel.group_commit.close()
            await commits


def bench_caller() -> Caller:
    """Who asks in this process."""
    return Caller(
        workspace=WORKSPACE,
        actor="api_keys/bench",
        scopes=frozenset({"*"}),
        expire_time=SystemClock().now() + CALLER_LIFE,
        correlation_id="bench",
    )


async def caught_up(reached: Callable[[], bool], *, pause_s: float = 0.002) -> None:
    """Waits until something is so, finely enough to be timed."""
    async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
        while not reached():  # noqa: ASYNC110, nobody who is measured tells when he is there
            await asyncio.sleep(pause_s)
