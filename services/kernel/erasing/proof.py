"""The proof of an erasure: no byte of any file says what is sought.

What is compressed cannot be seen: PostgreSQL compresses values of more than two kilobytes. They lie
in the same files, which are written anew as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHUNK_BYTES = 4 * 1024 * 1024
# A shorter text is found by chance.
SOUGHT_LENGTH_MIN = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A file that holds a text, and how often."""

    path: Path
    count: int


def find_in_files(sought: str, folders: Iterable[Path]) -> Iterator[Found]:
    """The files below some folders that hold a text, in UTF-8 or in UTF-16."""
    forms = (sought.encode(), sought.encode("utf-16-le"))
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                count = sum(_count(path, form) for form in forms)
                if count:
                    yield Found(path, count)


def _count(path: Path, form: bytes) -> int:
    """How often a file holds some bytes; one that goes away meanwhile holds none."""
    count, end = 0, b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                count += (end + chunk).count(form)
                # Too short to hold it as a whole, so nothing is counted twice.
                end = (end + chunk)[-(len(form) - 1) :]
    except FileNotFoundError:
        return 0
    return count
