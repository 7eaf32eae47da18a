"""Who must be gone because of erasures, said a second time."""

from __future__ import annotations

from uuid import UUID

from rapport.contacts.v1.events_pb2 import ContactErased
from rapport.events.v1.events_pb2 import CustomerEventsErased
from rapport.identity.v1.events_pb2 import ErasureCreated, ErasureExtended
from services.identity.facts import key_of
from services.identity.identifiers import node_of
from services.kernel.log.recorded import utc


def erased_in(events):
    """Up to which key a node is erased, by workspace and node; and the events erased by id."""
    found = {}
    for event in events:
        match event.event:
            case ErasureCreated() | ErasureExtended():
                told = event.event.key
                key = key_of(utc(told.receive_time), UUID(told.event_id))
                nodes = [subject.node for subject in event.event.subjects]
            case ContactErased():
                key = key_of(event.record_time, event.event_id)
                contact = event.stream.removeprefix("contact-")
                nodes = [node_of(event.workspace, "contact_id", contact)]
            case CustomerEventsErased():
                found |= dict.fromkeys(event.event.event_ids)
                continue
            case _:
                continue
        for node in nodes:
            found[event.workspace, node] = max(key, found.get((event.workspace, node), key))
    return found


def is_erased(fact, erased):
    """Whether a fact names somebody who was erased since, or was erased itself."""
    named = [*fact.identifiers, *filter(None, (fact.asserted or {}).values())]
    keys = [erased.get((fact.workspace, known.node), b"") for known in named]
    return fact.key <= max(keys) or fact.event.event_id.bytes in erased


def is_nobody(event, contact, erased):
    """Whether a contact that a fact of a deal names was erased since."""
    node = node_of(event.workspace, "contact_id", contact)
    return key_of(event.record_time, event.event_id) <= erased.get((event.workspace, node), b"")
