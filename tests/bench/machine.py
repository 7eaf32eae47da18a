"""The machine the numbers were made on: without it they say nothing."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from deploy.stack.nats import wheel_binary
from services.kernel.clock import SystemClock

BLOCK = b"\0" * 8192


def describe(postgres_version: str) -> dict[str, str]:
    """What a reader needs to judge the numbers."""
    return {
        "date": SystemClock().now().strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()}",
        "load at start": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        "postgresql": postgres_version,
        "nats": _said_by(str(wheel_binary()), "--version").removeprefix("nats-server: "),
        "grpcio": version("grpcio"),
        "asyncpg": version("asyncpg"),
        "eventsourcing": version("eventsourcing"),
        "durability": "fsync and synchronous_commit on, in every PostgreSQL line",
    }


def commit() -> str:
    """The commit that was measured, and whether something was changed since."""
    head = _said_by("git", "rev-parse", "--short", "HEAD")
    changed = _said_by("git", "status", "--porcelain", "--untracked-files=no")
    return f"{head}{' with local changes' if changed else ''}" if head else "unknown"


def cpu_model() -> str:
    """The processor by its name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory() -> str:
    """The memory of the machine in GiB."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{size / 2**30:.0f} GiB"


def probe_fsync_us(directory: Path, probes: int) -> float:
    """How long the disk takes to make a block durable just now: median microseconds."""
    taken = []
    descriptor = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for place in range(probes):
            os.pwrite(descriptor, BLOCK, place * len(BLOCK))
            began = time.perf_counter()
            os.fdatasync(descriptor)
            taken.append((time.perf_counter() - began) * 1e6)
    finally:
        os.close(descriptor)
    return statistics.median(taken)


def _said_by(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return ""
    return done.stdout.strip()
