"""The development platform: PostgreSQL, NATS, the five services and the gateway on this machine.

Every process is a supervised child and dies with us, even when we are killed. `dev.json` in the
data directory says where everything is: written when all is ready, removed when it stops.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.stack.child import Child
from deploy.stack.claim import Claim
from deploy.stack.databases import create_missing_database, database_url
from deploy.stack.errors import StackError
from deploy.stack.health import wait_serving
from deploy.stack.keys import (
    WORKSPACE,
    DevelopmentSecrets,
    development_secrets,
    keys_file,
    write_private,
)
from deploy.stack.nats import Nats
from deploy.stack.ports import free_port, port_is_free
from deploy.stack.postgres import Postgres
from deploy.stack.settings import Settings
from deploy.stack.supervised import Part, State, Supervised

SERVICES = ("contacts", "deals", "events", "identity", "segments")
GATEWAY = "gateway"
POSTGRES = "postgres"
NATS = "nats"
MODULES = {name: f"services.{name}" for name in SERVICES} | {GATEWAY: "gateway"}
# Where `services` and `gateway` are imported from.
ROOT = Path(__file__).parents[2]

READY_WITHIN_S = 60.0
SERVER_STOP_WITHIN_S = 20.0
# Longer than the drain a process allows itself (RAPPORT_DRAIN_TIMEOUT_S).
PROGRAM_STOP_WITHIN_S = 25.0

Command = Callable[[str], Sequence[str]]
Report = Callable[[Supervised], None]


def module_command(name: str) -> Sequence[str]:
    """The command line of a process of the platform."""
    return [sys.executable, "-m", MODULES[name]]


class Platform:
    """A running platform inside `async with`; `report` hears of each change of each process."""

    def __init__(
        self,
        settings: Settings,
        *,
        command: Command = module_command,
        report: Report = lambda _: None,
    ) -> None:
        self.data_dir = settings.data_dir
        self.logs = settings.data_dir / "logs"
        self.addresses: dict[str, str] = {}
        self._settings = settings
        self._command = command
        self._report = report
        self._claim = Claim(settings.data_dir)
        self._parts: dict[str, Supervised] = {}
        self._metrics: dict[str, str] = {}
        self._postgres: Postgres | None = None
        self._nats: Nats | None = None

    async def __aenter__(self) -> Self:
        self._claim.take()
        try:
            await self._start()
        except BaseException:
            await self._drain()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._drain()

    @property
    def dev(self) -> dict[str, Any]:
        """What dev.json says: where everything is, and the keys of the development workspace."""
        known = development_secrets(self.data_dir)
        return {
            "grpc": self.addresses[GATEWAY],
            "http": f"http://{self.addresses['http']}",
            "workspace": WORKSPACE,
            "api_key": known.api_key,
            "write_key": known.write_key,
            "pid": os.getpid(),
            "logs": str(self.logs),
            "nats": self.nats_url,
            "databases": {name: self.database_url(name) for name in SERVICES},
            "services": {name: self.addresses[name] for name in SERVICES},
            "metrics": {name: f"http://{at}/metrics" for name, at in self._metrics.items()},
        }

    @property
    def parts(self) -> Sequence[Supervised]:
        """Every supervised process, in the order of their start."""
        return tuple(self._parts.values())

    @property
    def nats_url(self) -> str:
        """Where the feeds are."""
        return self._nats.url if self._nats else _given(self._settings.nats_url)

    def database_url(self, service: str) -> str:
        """Where the log of a service is."""
        return database_url(self._server_url, f"rapport_{service}")

    def pid(self, name: str) -> int | None:
        """The pid of a process while it runs."""
        return self._parts[name].pid

    def restarts(self, name: str) -> int:
        """How often a process was restarted."""
        return self._parts[name].restarts

    def kill(self, name: str) -> None:
        """Kills a process as a crash would (SIGKILL); it is restarted."""
        self._parts[name].kill()

    def kill_all(self) -> None:
        """Kills every process for good, for who cannot wait for the drain."""
        for part in self.parts:
            part.abandon()

    async def wait_ready(self, *names: str) -> None:
        """Returns when the named processes (or all) serve."""
        awaited = [self._parts[name] for name in names or self._parts]
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await asyncio.gather(*(part.wait_ready() for part in awaited))
        except TimeoutError:
            late = [part.name for part in awaited if part.state is not State.READY]
            raise StackError(
                f"not ready after {READY_WITHIN_S:g} s: {', '.join(late)}; see {self.logs}"
            ) from None

    async def wipe_nats(self) -> None:
        """Kills NATS, deletes its whole store, and returns when it serves again, empty."""
        if self._nats is None:
            raise StackError("NATS is not ours: RAPPORT_NATS_URL names another server")
        await self._parts[NATS].restart(between=self._nats.wipe)

    @property
    def _server_url(self) -> str:
        if self._postgres is not None:
            return self._postgres.url("postgres")
        return _given(self._settings.database_url)

    async def _start(self) -> None:
        self._forget_dev_json()
        self.data_dir.chmod(0o711)  # PostgreSQL's user passes through; what is private says so.
        self._rotate_logs()
        self._choose_addresses()
        known = development_secrets(self.data_dir)
        await self._start_servers()
        url = self._server_url
        for name in SERVICES:
            await create_missing_database(url, f"rapport_{name}")
        for name in MODULES:
            self._supervise(self._program(name, known))
        await self.wait_ready()
        write_private(self.data_dir / "dev.json", self.dev)

    async def _start_servers(self) -> None:
        if self._settings.database_url is None:
            server = Postgres(
                self.data_dir / POSTGRES,
                log=self.logs / "postgres.log",
                bin_dir=self._settings.postgres_bin,
            )
            await asyncio.to_thread(server.prepare)
            self._postgres = server
            self._supervise(_server_part(POSTGRES, server, str(server.socket_dir)))
        if self._settings.nats_url is None:
            self._nats = Nats(self.data_dir / NATS, log=self.logs / "nats.log")
            self._nats.prepare()
            address = f"127.0.0.1:{self._nats.port}"
            self._supervise(_server_part(NATS, self._nats, address))
        await self.wait_ready()

    def _supervise(self, part: Part) -> None:
        self.addresses[part.name] = part.address
        self._parts[part.name] = Supervised(part, report=self._report)
        self._parts[part.name].start()

    def _program(self, name: str, known: DevelopmentSecrets) -> Part:
        environment = self._environment(name, known)
        log = self.logs / f"{name}.log"
        address = self.addresses[name]

        def launch() -> Child:
            return Child(self._command(name), log=log, environment=environment, directory=ROOT)

        async def ready(child: Child) -> None:
            await wait_serving(address, child, within_s=READY_WITHIN_S)

        return Part(
            name=name,
            address=address,
            log=log,
            launch=launch,
            ready=ready,
            stop_within_s=PROGRAM_STOP_WITHIN_S,
        )

    def _environment(self, name: str, known: DevelopmentSecrets) -> Mapping[str, str]:
        peers = {f"RAPPORT_{peer.upper()}_ADDRESS": self.addresses[peer] for peer in SERVICES}
        common = {
            "PYTHONUNBUFFERED": "1",
            "RAPPORT_GRPC_ADDRESS": self.addresses[name],
            "RAPPORT_METRICS_ADDRESS": self._metrics[name],
            "RAPPORT_INTERNAL_SECRET": known.internal_secret,
            "RAPPORT_LOG_FORMAT": "json",
        }
        if name == GATEWAY:
            own = {
                "RAPPORT_HTTP_ADDRESS": self.addresses["http"],
                "RAPPORT_API_KEYS_FILE": str(keys_file(self.data_dir, known)),
                "RAPPORT_KEY_PEPPER": known.key_pepper,
            }
        else:
            own = {
                "RAPPORT_DATABASE_URL": self.database_url(name),
                "RAPPORT_NATS_URL": self.nats_url,
            }
        return {**self._settings.environment, **peers, **common, **own}

    def _choose_addresses(self) -> None:
        """Ports for this run; a process keeps its own over restarts."""
        ports = {
            GATEWAY: _gateway_port(self._settings.grpc_port, "gRPC", "RAPPORT_GRPC_PORT"),
            "http": _gateway_port(self._settings.http_port, "HTTP", "RAPPORT_HTTP_PORT"),
        }
        self.addresses |= {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        self.addresses |= {name: f"127.0.0.1:{free_port()}" for name in SERVICES}
        self._metrics |= {name: f"127.0.0.1:{free_port()}" for name in MODULES}

    async def _drain(self) -> None:
        """Ends everything in the order in which nothing loses what it needs."""
        self._forget_dev_json()
        for names in ([GATEWAY], SERVICES, [NATS], [POSTGRES]):
            parts = [self._parts[name] for name in names if name in self._parts]
            await asyncio.gather(*(part.stop() for part in parts))
        self._claim.release()

    def _forget_dev_json(self) -> None:
        (self.data_dir / "dev.json").unlink(missing_ok=True)

    def _rotate_logs(self) -> None:
        """Each run has its own logs; those of the run before stay beside them."""
        self.logs.mkdir(exist_ok=True)
        for log in self.logs.glob("*.log"):
            if not log.name.endswith(".previous.log"):
                log.replace(log.with_suffix(".previous.log"))


def running_platform(data_dir: Path) -> dict[str, Any] | None:
    """What dev.json says of the platform that runs on a data directory, None when none is ready."""
    if Claim(data_dir).holder() is None:
        return None  # A dev.json that a killed platform left behind is no platform.
    with contextlib.suppress(FileNotFoundError):
        content: dict[str, Any] = json.loads((data_dir / "dev.json").read_text())
        return content
    return None


def _server_part(name: str, server: Postgres | Nats, address: str) -> Part:
    async def ready(_: Child) -> None:
        await asyncio.to_thread(server.wait_ready)

    return Part(
        name=name,
        address=address,
        log=server.log,
        launch=server.launch,
        ready=ready,
        stop_signal=server.stop_signal,
        stop_within_s=SERVER_STOP_WITHIN_S,
    )


def _gateway_port(wanted: int, protocol: str, variable: str) -> int:
    if wanted == 0:
        return free_port()
    if not port_is_free(wanted):
        raise StackError(
            f"port {wanted}, where the gateway serves {protocol}, is in use by another program: "
            f"stop that program, or choose another port with {variable} (0 takes a free one)"
        )
    return wanted


def _given(url: str | None) -> str:
    assert url is not None, "neither our own server nor a URL"
    return url
