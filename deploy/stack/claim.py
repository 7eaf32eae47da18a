"""At most one platform per data directory: a lock that is freed whatever ends its holder."""

import fcntl
import os
from pathlib import Path
from typing import IO

from deploy.stack.errors import StackError


class Claim:
    """The right to run on a data directory, held by the process whose pid the file names."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "up.lock"
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Takes the right or says who has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+")
        if not _lock(file):
            file.close()
            raise StackError(
                f"a platform already runs on {self._path.parent} (pid {self.holder()}): "
                "use it, or stop it with `make down`"
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Gives the right back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def holder(self) -> int | None:
        """The pid of the platform that runs here, if one does."""
        if not self._path.exists():
            return None
        with self._path.open("a+") as file:
            if _lock(file):
                return None
            file.seek(0)
            written = file.read().strip()
        return int(written) if written else None


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
