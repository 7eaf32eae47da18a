"""Activities as rows of the timeline: as COPY takes them, and as the driver does."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from services.identity.facts import Fact
from services.identity.retraction import said_by
from services.kernel.log.copying import LENGTH, NULL, text, timestamptz, timestamptz_of

# What is the same for many activities comes first, in one piece.
COLUMNS = (
    "workspace",
    "kind",
    "is_imported",
    "activity",
    "source",
    "account",
    "occur_time",
    "receive_time",
    "activity_id",
    "node",
    "resource",
    "details",
    "said",
)

SHARED_REMEMBERED_MAX = 10_000

_COUNT = struct.Struct("!h").pack
_KIND = struct.Struct("!ihi?").pack
_OWN = struct.Struct("!iqiqi16si").pack
_KEY = struct.Struct("!q16s").unpack


def encoded(facts: Iterable[Fact]) -> Iterator[bytes]:
    """Yields the rows of facts' activities in pieces, with the values in the order of COLUMNS."""
    for fact in facts:
        shown = fact.activity
        received_us, activity_id = _KEY(fact.key)
        node, resource = fact.atom.encode(), shown.resource.encode()
        details = shown.details.encode()
        said = said_by(fact)
        occur_us, receive_us = timestamptz(fact.occur_time), timestamptz_of(received_us)
        yield _shared(
            fact.workspace, shown.kind, fact.is_imported, shown.name, shown.source, shown.account
        )
        yield _OWN(8, occur_us, 8, receive_us, 16, activity_id, len(node))
        yield node
        yield LENGTH(len(resource))
        yield resource
        yield LENGTH(len(details))
        yield details
        yield NULL if said is None else LENGTH(len(said)) + said


@lru_cache(maxsize=SHARED_REMEMBERED_MAX)
def _shared(
    workspace: str,
    kind: int,
    is_imported: bool,  # noqa: FBT001, a name would cost at each row
    name: str,
    source: str,
    account: str,
) -> bytes:
    """How a row begins: the number of its values, and those that it shares with others."""
    return b"".join(
        (
            _COUNT(len(COLUMNS)),
            text(workspace),
            _KIND(2, kind, 1, is_imported),
            text(name),
            text(source),
            text(account) if account else NULL,
        )
    )


def row_of(fact: Fact) -> tuple[object, ...]:
    """Returns the row of a fact's activity, with the values in the order of COLUMNS."""
    shown = fact.activity
    return (
        fact.workspace,
        shown.kind,
        fact.is_imported,
        shown.name,
        shown.source,
        shown.account or None,
        fact.occur_time,
        fact.receive_time,
        fact.activity_id,
        fact.atom,
        shown.resource,
        shown.details,
        said_by(fact),
    )
