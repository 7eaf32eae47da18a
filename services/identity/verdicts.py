"""Verdicts: what people decided about two identifiers, as the facts of our own log say it. Pure.

The last verdict on a pair, by the facts' keys, is the one that holds. A fact names identifiers by
their nodes: it can wait for one that nobody has told of, and carries no value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import Message

from rapport.identity.v1.events_pb2 import (
    IdentifiersCut,
    IdentifiersLinked,
    JudgedIdentifier,
    VerdictCleared,
)
from services.identity.facts import key_of
from services.identity.graph import Pair
from services.identity.identifiers import NODE_BYTES, Identifier
from services.identity.rules import DEFAULT
from services.kernel.log.recorded import Recorded


class Kind(IntEnum):
    """What a verdict says; the numbers are those of VerdictKind, and kept."""

    NONE = 0
    LINK = 1
    CUT = 2


JudgedPlace = tuple[str, str, str]  # workspace, weaker node, stronger node

FACTS: dict[Kind, type[IdentifiersLinked | IdentifiersCut | VerdictCleared]] = {
    Kind.LINK: IdentifiersLinked,
    Kind.CUT: IdentifiersCut,
    Kind.NONE: VerdictCleared,
}
_KINDS: dict[type[Message], Kind] = {fact: kind for kind, fact in FACTS.items()}


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict as a fact gives it: on a pair (`in_order`) and both types, the weaker first."""

    event: Recorded
    key: bytes
    kind: Kind
    pair: Pair
    types: tuple[str, str]
    reason: str

    @property
    def place(self) -> JudgedPlace:
        """What it is about."""
        return self.event.workspace, *self.pair


def ruling_of(event: Recorded) -> Ruling | None:
    """Reads the verdict that an event gives, if it gives one."""
    kind = _KINDS.get(type(event.event))
    if kind is None:
        return None
    fact = event.event
    assert isinstance(fact, IdentifiersLinked | IdentifiersCut | VerdictCleared)
    return Ruling(
        event=event,
        key=key_of(event.record_time, event.event_id),
        kind=kind,
        pair=(fact.other.node, fact.one.node),
        types=(fact.other.type, fact.one.type),
        reason=fact.reason,
    )


def last_rulings(events: Iterable[Recorded]) -> dict[JudgedPlace, Ruling]:
    """Returns the last verdict on each pair among events, whatever their order."""
    last: dict[JudgedPlace, Ruling] = {}
    for event in events:
        ruling = ruling_of(event)
        if ruling is not None:
            known = last.get(ruling.place)
            if known is None or known.key < ruling.key:
                last[ruling.place] = ruling
    return last


def fact_of(kind: Kind, one: Identifier, other: Identifier, reason: str) -> Message:
    """Returns the fact that gives a verdict on two identifiers, the stronger first."""
    return FACTS[kind](one=_judged(one), other=_judged(other), reason=reason)


def in_order(one: Identifier, other: Identifier) -> tuple[Identifier, Identifier]:
    """Returns two identifiers in the order in which facts name them: the stronger one by default.

    Whatever the rules in force make stronger, it is the same pair, so what was decided under others
    can be decided anew and taken back.
    """
    first, second = sorted(
        (one, other), key=lambda known: (DEFAULT.rank_if_known(known.type), known.node)
    )
    return first, second


def pair_id(one: Identifier, other: Identifier) -> str:
    """Names the pair of two identifiers: 32 hexadecimal digits."""
    both = f"{one.node}|{other.node}".encode()
    return hashlib.blake2b(both, digest_size=NODE_BYTES, person=b"rapport/verdict").hexdigest()


def _judged(known: Identifier) -> JudgedIdentifier:
    return JudgedIdentifier(type=known.type, node=known.node)
