"""What a file becomes on its way to the platform: items to send, and rows refused. Pure.

Each item says, counted from its own rows, what the platform must give back for it. What the
platform does give back is counted by other code, so that the two can disagree.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from rapport.contacts.v1.service_pb2 import CreateContactRequest
from rapport.deals.v1.imports_pb2 import ImportedDeal
from rapport.deals.v1.service_pb2 import (
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from rapport.events.v1.customer_event_pb2 import CustomerEvent

Tally = Counter[str]
"""Named sums, all of them whole numbers."""

Step = MoveDealStageRequest | WinDealRequest | LoseDealRequest


@dataclass(frozen=True, slots=True)
class DealToTell:
    """A deal from its opening to where it stands."""

    opening: OpenDealRequest
    steps: tuple[Step, ...]


Sendable = CustomerEvent | CreateContactRequest | DealToTell | ImportedDeal
M = TypeVar("M", bound=Sendable)


@dataclass(frozen=True, slots=True)
class Item(Generic[M]):
    """One thing to send: the first line it comes from, its key, and what its rows add up to."""

    line: int
    key: str
    message: M
    tally: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that did not get in, and why."""

    file: str
    line: int
    reason: str
    row: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A person to look for at the other end: an identifier, and the keys of what they did."""

    identifier: str
    keys: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo(Generic[M]):
    """One file, ready to be sent."""

    file: str
    rows: int
    items: Sequence[Item[M]]
    refused: Sequence[Refused]
    # Finds what was sent, and perhaps more, in a list of the platform.
    filter: str
    # Counts one resource of the platform as `Item.tally` counts rows.
    measure: Callable[[Any], Mapping[str, int]]
    followed: Followed | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or something that stands for one, with its lines."""

    name: str
    path: Path

    def lines(self) -> Iterator[str]:
        """Yields the lines as text; a byte that is no UTF-8 becomes a visible replacement."""
        opened = gzip.open if self.path.suffix == ".gz" else open
        with opened(self.path, "rt", encoding="utf-8", errors="replace", newline="") as file:
            yield from file


def most_active(items: Iterable[tuple[str, str]]) -> Followed | None:
    """Returns the identifier with the most keys; the first in order among equals."""
    keys: dict[str, set[str]] = {}
    for identifier, key in items:
        keys.setdefault(identifier, set()).add(key)
    if not keys:
        return None
    identifier = min(keys, key=lambda each: (-len(keys[each]), each))
    return Followed(identifier, frozenset(keys[identifier]))


def checksum(texts: Iterable[str]) -> int:
    """Returns a sum that tells whether the same texts are there, in any order."""
    return sum(zlib.crc32(text.encode()) for text in texts)


def total(tallies: Iterable[Mapping[str, int]]) -> Tally:
    """Returns the sum of tallies."""
    found = Tally()
    for tally in tallies:
        found.update(tally)
    return found


def serialized(message: Message) -> bytes:
    """Returns the same bytes for the same content, in every run."""
    return message.SerializeToString(deterministic=True)
