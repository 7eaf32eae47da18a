"""Retraction: a fact that came with an import is taken back, as if nobody had heard of it. Pure.

A count can be counted down, but neither a minimum nor a last word can be undone by itself. So each
fact of a customer event is kept with its activity, in short, and what remains of an atom is folded
once more. Other atoms need not be looked at: all that a fact says belongs to its atom, its edges
too. A contact's atom holds facts of the CRM alone, and those are never taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from rapport.events.v1.events_pb2 import CustomerEventRecorded, CustomerEventRetracted
from rapport.identity.v1.service_pb2 import TimelineKind
from services.identity.facts import Fact
from services.identity.graph import Edge
from services.identity.traits import Traits
from services.kernel.log.recorded import Recorded

# What a source can have sent, and an import can have brought.
_SENT = frozenset(
    {TimelineKind.TIMELINE_KIND_CUSTOMER_EVENT, TimelineKind.TIMELINE_KIND_MEMBERSHIP}
)

Message = tuple[str, str]  # workspace, message id
Seen = tuple[tuple[str, bool], ...]  # the nodes of the weaker identifiers, each with `is_link`

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[Seen, Traits])


@dataclass(frozen=True, slots=True)
class Kept:
    """A fact as it is kept: what it takes to fold it once more."""

    atom: str
    key: bytes
    occur_time: datetime
    seen: Seen = ()
    traits: Traits = ()

    @classmethod
    def of(cls, atom: str, key: bytes, occur_time: datetime, said: bytes | None) -> Kept:
        """Reads what `said_by` wrote."""
        seen, traits = ((), ()) if said is None else _DECODER.decode(said)
        return cls(atom, key, occur_time, seen, traits)

    def edges(self) -> Iterator[Edge]:
        """The fact's edges."""
        for weak, is_link in self.seen:
            yield Edge(weak, self.atom, self.key, is_link)


@dataclass(frozen=True, slots=True)
class Lost:
    """A fact that is no more: its activity, and the event that took it back."""

    event: Recorded
    fact: Kept
    activity_id: UUID
    activity: str
    account: str = ""

    @property
    def atom(self) -> str:
        """The atom it belonged to."""
        return self.fact.atom

    @property
    def nodes(self) -> Sequence[str]:
        """The nodes it told of."""
        return [self.fact.atom, *(node for node, _ in self.fact.seen)]

    @property
    def traits(self) -> Traits:
        """The traits it said."""
        return self.fact.traits


def said_by(fact: Fact) -> bytes | None:
    """Returns, in short, what a fact says beside its activity, if it is anything."""
    if fact.activity.kind not in _SENT:
        return None
    links = fact.links
    seen = [(known.node, (known.node, fact.atom) in links) for known in fact.identifiers[1:]]
    return _ENCODER.encode((seen, fact.traits)) if seen or fact.traits else None


def settle(events: Sequence[Recorded]) -> tuple[Sequence[Recorded], dict[Message, Recorded]]:
    """Returns the events without those that are taken back behind them, and what takes back.

    The events of one message are in order; what is recorded behind its retraction is a new fact.
    """
    retractions: dict[Message, Recorded] = {}
    places: dict[Message, int] = {}
    for place, event in enumerate(events):
        if isinstance(event.event, CustomerEventRetracted):
            message = event.workspace, event.event.message_id
            retractions[message] = event
            places[message] = place
    if not retractions:
        return events, retractions
    still_true = [
        event
        for place, event in enumerate(events)
        if (recorded := imported(event)) is None or places.get(recorded, -1) < place
    ]
    return still_true, retractions


def imported(event: Recorded) -> Message | None:
    """Returns the message of an event that records what came with an import."""
    if not isinstance(event.event, CustomerEventRecorded):
        return None
    sent = event.event.customer_event
    return (event.workspace, sent.message_id) if sent.import_name else None
