"""Every test is marked by its folder, and finds real servers.

One PostgreSQL and one NATS per test process, fresh databases and streams per test.
"""

import gc
import shutil
import socket
import tempfile
import uuid
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, settings

from deploy.stack import ports
from deploy.stack.nats import Nats
from deploy.stack.postgres import Postgres
from deploy.stack.settings import Settings
from tests.dealing import Dealing, longest_first

TESTS = Path(__file__).parent
TIERS = ("unit", "property", "contract", "integration", "e2e", "chaos", "bench")
PURE_TIERS = {"unit", "property"}

# Chosen by --hypothesis-profile; a shared machine is no reason to fail, so no law has a deadline.
settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2_000)
settings.load_profile("default")

# A traceback drawn with all its locals takes seconds on a busy machine, within a call's deadline.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


# As in a service: what is imported and what a test makes holds few cycles.
gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Dealing | None:
    """Deals the tests out to the processes of `pytest -n`, unless told another way by `--dist`."""
    if config.getoption("dist") != "load":
        return None
    # Piles come in the order of collection, not by the number of their tests.
    config.option.loadscopereorder = False
    return Dealing(config, log)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    """Tests run in the loop that the services run in."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by the folder it lies in; a test outside a tier is a mistake."""
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier not in TIERS:
            raise pytest.UsageError(f"{item.nodeid} lies in no tier: {', '.join(TIERS)}")
        item.add_marker(tier)
    items[:] = longest_first(items)


def pytest_collection_finish() -> None:
    """Spares the collector what is imported by now: it stays until the end anyway."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_network_in_pure_tiers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refuses connections where a test claims to need none."""
    if PURE_TIERS.isdisjoint(mark.name for mark in request.node.iter_markers()):
        return

    def refuse(*_: object) -> None:
        raise AssertionError("a unit or property test opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def shared_dir() -> Iterator[Path]:
    """A directory for the servers of this test process, open to the user PostgreSQL runs as."""
    yield from _reachable_dir()


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """A directory for servers a test starts itself."""
    yield from _reachable_dir()


@pytest.fixture(scope="session")
def postgres(shared_dir: Path) -> Iterator[Postgres]:
    """The PostgreSQL server of this test process; not to be stopped, see own_postgres.

    Hundreds of databases are made and dropped in it: most of that would be waiting for the disk.
    """
    server = Postgres(
        shared_dir / "postgres", bin_dir=Settings.from_env().postgres_bin, is_throwaway=True
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nats_server(shared_dir: Path) -> Iterator[Nats]:
    """The NATS server of this test process; not to be stopped, see own_nats."""
    server = Nats(shared_dir / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of an empty database of this test alone."""
    name = f"test_{uuid.uuid4().hex}"
    yield await postgres.create_database(name)
    await postgres.drop_database(name)


@pytest.fixture
async def nats_url(nats_server: Nats) -> str:
    """The URL of a NATS server without any stream."""
    connection = await nats.connect(nats_server.url)
    try:
        jetstream = connection.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(stream.config.name)
    finally:
        await connection.close()
    return nats_server.url


@pytest.fixture
def own_postgres(server_dir: Path) -> Iterator[Postgres]:
    """A started PostgreSQL server of this test alone, to be killed and restarted."""
    server = Postgres(server_dir / "postgres", bin_dir=Settings.from_env().postgres_bin)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_nats(server_dir: Path) -> Iterator[Nats]:
    """A started NATS server of this test alone, to be killed, wiped and restarted."""
    server = Nats(server_dir / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def free_port() -> int:
    """A TCP port nobody listens on."""
    return ports.free_port()


def _reachable_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rapport-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)
