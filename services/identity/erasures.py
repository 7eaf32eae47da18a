"""Erasures: whose facts are gone, up to which one, as facts of several logs say it. Pure.

A fact that names an erased node and whose key is not later than the erasure's is gone, whoever else
it names, and whenever it arrives; what comes later begins anew. So per node only the latest key
counts. Nothing here holds a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from google.protobuf.message import Message

from rapport.contacts.v1.events_pb2 import ContactErased
from rapport.events.v1.events_pb2 import CustomerEventsErased
from rapport.identity.v1.events_pb2 import ErasureCreated, ErasureExtended
from services.identity.consents import word_of_event
from services.identity.facts import Fact, id_of, key_of
from services.identity.flags import flag_of
from services.identity.identifiers import node_of
from services.identity.rules import CONTACT_ID
from services.identity.verdicts import ruling_of
from services.kernel.log.recorded import Recorded, utc

FACTS: frozenset[type[Message]] = frozenset({ErasureCreated, ErasureExtended, ContactErased})
"""What says up to which fact nodes are erased."""

Place = tuple[str, str]  # workspace, node
ErasedKeys = Mapping[Place, bytes]
"""Up to which key the facts that name a node are gone."""


@dataclass(frozen=True, slots=True)
class Erased:
    """Up to which key a node is erased, and the fact that says so."""

    event: Recorded
    key: bytes


def erased_by(events: Iterable[Recorded]) -> dict[Place, Erased]:
    """Returns up to where events erase nodes, whatever their order."""
    found: dict[Place, Erased] = {}
    for event in events:
        match event.event:
            case ErasureCreated() | ErasureExtended() as fact:
                key = key_of(utc(fact.key.receive_time), UUID(fact.key.event_id))
                nodes = [subject.node for subject in fact.subjects]
            case ContactErased():
                # The record went as a whole, with what had come to it by then.
                key = key_of(event.record_time, event.event_id)
                nodes = [node_of(event.workspace, CONTACT_ID, id_of(event.stream))]
            case _:
                continue
        for node in nodes:
            place = event.workspace, node
            if place not in found or found[place].key < key:
                found[place] = Erased(event, key)
    return found


def erased_activities(events: Iterable[Recorded]) -> dict[tuple[str, UUID], Recorded]:
    """Returns the facts that their own log has erased, by workspace and event id.

    They lie before this in their log, so they cannot arrive any more.
    """
    return {
        (event.workspace, UUID(bytes=event_id)): event
        for event in events
        if isinstance(event.event, CustomerEventsErased)
        for event_id in event.event.event_ids
    }


def named_by(fact: Fact) -> set[str]:
    """Returns the nodes that a fact names."""
    named = {known.node for known in fact.identifiers}
    if fact.asserted:
        named.update(known.node for known in fact.asserted.values() if known is not None)
    return named


def covers(keys: ErasedKeys, workspace: str, nodes: Iterable[str], key: bytes) -> bool:
    """Tells whether what names nodes, and has a key, is gone."""
    return any(key <= keys.get((workspace, node), b"") for node in nodes)


def left_of(keys: ErasedKeys, facts: Iterable[Fact]) -> list[Fact]:
    """Returns the facts that are not gone."""
    return [fact for fact in facts if not covers(keys, fact.workspace, named_by(fact), fact.key)]


def nodes_in(event: Recorded) -> Sequence[str]:
    """Returns the nodes about which people say something with an event of our own log."""
    ruling = ruling_of(event)
    if ruling is not None:
        return ruling.pair
    flag = flag_of(event)
    if flag is not None:
        return (flag.node,)
    word = word_of_event(event)
    return () if word is None else word.nodes


def is_unsaid(keys: ErasedKeys, event: Recorded) -> bool:
    """Tells whether what people said with an event of our own log is gone."""
    key = key_of(event.record_time, event.event_id)
    return covers(keys, event.workspace, nodes_in(event), key)
