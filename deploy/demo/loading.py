"""Brings a cargo to the platform and compares what the platform then says with the file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from deploy.demo.cargo import Cargo, Item, Refused, Tally, total
from deploy.demo.door import Door
from deploy.demo.freight import READ_WITHIN_S, Freight, Sent, pages
from deploy.demo.telling import Teller
from rapport.identity.v1.service_pb2 import GetProfileRequest, ListTimelineRequest

PAGE_SIZE: Final = 1000


@dataclass(frozen=True, slots=True)
class Compared:
    """One number in the file and at the platform."""

    what: str
    in_file: int
    at_platform: int

    @property
    def agrees(self) -> bool:
        """Whether they are the same."""
        return self.in_file == self.at_platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of one file."""

    file: str
    noun: str
    rows: int
    sent: int
    accepted: int
    known: int
    refused: tuple[Refused, ...]
    comparisons: tuple[Compared, ...]
    send_s: float
    identity_s: float

    @property
    def agrees(self) -> bool:
        """Whether the platform says what the file says."""
        return all(comparison.agrees for comparison in self.comparisons)


async def load(door: Door, cargo: Cargo[Any], freight: Freight[Any], teller: Teller) -> Loaded:
    """Sends a cargo and checks it; that it was there already is as good as new."""
    sent = Sent()
    begun = time.monotonic()
    with teller.progress(cargo.file, len(cargo.items)) as told:
        await freight.send(door, cargo, sent, told)
    send_s = time.monotonic() - begun
    items = {item.key: item for item in cargo.items}
    comparisons = [
        Compared("items sent and answered", len(cargo.items), _answered(sent)),
        *await _compare(door, cargo, freight, sent, items),
    ]
    begun = time.monotonic()
    comparisons += await _follow(door, cargo, sent)
    return Loaded(
        file=cargo.file,
        noun=freight.noun,
        rows=cargo.rows,
        sent=len(items),
        accepted=len(sent.accepted),
        known=len(sent.known),
        refused=(*cargo.refused, *_refused(cargo.file, items, sent)),
        comparisons=tuple(comparisons),
        send_s=send_s,
        identity_s=time.monotonic() - begun,
    )


async def _compare(
    door: Door,
    cargo: Cargo[Any],
    freight: Freight[Any],
    sent: Sent,
    items: Mapping[str, Item[Any]],
) -> list[Compared]:
    """Walks the platform's own list and adds up what it says of our items."""
    expected = total(item.tally for key, item in items.items() if key not in sent.refused)
    expected[f"{freight.noun} listed"] = len(items) - len(sent.refused)
    actual = Tally()
    listed: set[str] = set()
    repeated = 0
    async for key, found in freight.walk(door, cargo, sent):
        if key in items:
            repeated += key in listed
            listed.add(key)
            actual.update(cargo.measure(found))
    actual[f"{freight.noun} listed"] = len(listed) + repeated
    names = sorted(expected.keys() | actual.keys(), key=lambda name: (name == "checksum", name))
    return [Compared(name, expected[name], actual[name]) for name in names]


async def _follow(door: Door, cargo: Cargo[Any], sent: Sent) -> list[Compared]:
    """Looks for one person at the other end, in the timeline that identity makes of the feed."""
    followed = cargo.followed
    if followed is None:
        return []
    keys = {key for key in followed.keys if key not in sent.refused}
    name = f"profiles/{followed.identifier}"
    for token in sorted({sent.tokens[key] for key in keys if key in sent.tokens}):
        request = GetProfileRequest(name=name, read_token=token)
        await door.ask(door.identity.GetProfile, request, within_s=READ_WITHIN_S)
    seen = 0
    timeline = ListTimelineRequest(name=name, page_size=PAGE_SIZE)
    async for page in pages(door, door.identity.ListTimeline, timeline):
        seen += sum(entry.resource.partition("/")[2] in keys for entry in page.entries)
    return [Compared(f"timeline of {followed.identifier}", len(keys), seen)]


def _answered(sent: Sent) -> int:
    return len(sent.accepted | sent.known | sent.refused.keys())


def _refused(file: str, items: Mapping[str, Item[Any]], sent: Sent) -> list[Refused]:
    return [
        Refused(file, items[key].line, reason, f"sent as {key}")
        for key, reason in sorted(sent.refused.items(), key=lambda each: items[each[0]].line)
    ]
