"""The sets a directory may hold, and who reads each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.demo import access_log, b2b_deals, online_retail, people
from deploy.demo.cargo import Cargo, Source
from deploy.demo.freight import (
    ContactFreight,
    CustomerEventFreight,
    Freight,
    ImportedDealFreight,
)


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A folder of files of one kind."""

    folder: str
    pattern: str
    read: Callable[[Source], Cargo[Any]]
    freight: Freight[Any]

    def sources(self, directory: Path) -> list[Source]:
        """Returns the files that are there, in the order of their names."""
        found = sorted((directory / self.folder).glob(self.pattern))
        return [Source(f"{self.folder}/{path.name}", path) for path in found]


SETS: Final = (
    KnownSet("online_retail", "*.csv*", online_retail.read, CustomerEventFreight()),
    KnownSet("access_log", "*.log*", access_log.read, CustomerEventFreight()),
    KnownSet("b2b_deals", "*.csv*", b2b_deals.read, ImportedDealFreight()),
    KnownSet("people", "*.csv*", people.read, ContactFreight()),
)


def present(directory: Path) -> Iterator[tuple[KnownSet, Source]]:
    """Yields each file that lies there, with its set."""
    for known in SETS:
        for source in known.sources(directory):
            yield known, source


def absent(directory: Path) -> list[str]:
    """Returns the folders without a file."""
    return [known.folder for known in SETS if not known.sources(directory)]
