"""Taking facts back: those of an import that was wrong, and those of who is erased. Pure.

It is as if nobody had heard of them. A count can be counted down, but neither a minimum nor a last
word can be undone by itself. So each fact is kept with its activity, in short, and what remains of
an atom is folded once more. Other atoms need not be looked at: all that a fact says belongs to its
atom, its edges too.
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
from services.identity.identifiers import Identifier
from services.identity.traits import Traits
from services.kernel.log.recorded import Recorded

Message = tuple[str, str]  # workspace, message id
Seen = tuple[tuple[str, bool], ...]  # the nodes of the weaker identifiers, each with `is_link`
Asserted = tuple[tuple[str, Identifier | None], ...]  # by slot


class _Said(msgspec.Struct, array_like=True, frozen=True):
    seen: Seen = ()
    traits: Traits = ()
    asserted: Asserted = ()
    version: int = 0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Said)
_NOTHING = _Said()

# Looked up once: protobuf finds the value of an enum by its name each time.
_DEAL = TimelineKind.TIMELINE_KIND_DEAL


@dataclass(frozen=True, slots=True)
class Kept:
    """A fact as it is kept: what it takes to fold it once more.

    `version` is the place of a deal's fact in its stream.
    """

    atom: str
    key: bytes
    occur_time: datetime
    seen: Seen = ()
    traits: Traits = ()
    asserted: Asserted = ()
    version: int = 0

    @classmethod
    def of(cls, atom: str, key: bytes, occur_time: datetime, said: bytes | None) -> Kept:
        """Reads what `said_by` wrote."""
        known = _NOTHING if said is None else _DECODER.decode(said)
        told = known.seen, known.traits, known.asserted, known.version
        return cls(atom, key, occur_time, *told)

    def named(self) -> Iterator[str]:
        """The nodes that the fact names."""
        yield self.atom
        for node, _ in self.seen:
            yield node
        for _, target in self.asserted:
            if target is not None:
                yield target.node

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
        return list(self.fact.named())

    @property
    def traits(self) -> Traits:
        """The traits it said."""
        return self.fact.traits


def said_by(fact: Fact) -> bytes | None:
    """Returns, in short, what a fact says beside its activity, if it is anything."""
    if fact.activity.kind == _DEAL:
        return _ENCODER.encode(((), (), (), fact.event.version))
    links = fact.links
    seen = [(known.node, (known.node, fact.atom) in links) for known in fact.identifiers[1:]]
    if fact.asserted:
        asserted = sorted(fact.asserted.items(), key=lambda slot: slot[0])
        return _ENCODER.encode((seen, fact.traits, asserted))
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
