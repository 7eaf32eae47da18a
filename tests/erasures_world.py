"""Erasures for the tests of identity."""

from __future__ import annotations

from rapport.common.v1.subjects_pb2 import FactKey
from rapport.contacts.v1.events_pb2 import ContactErased
from rapport.events.v1.events_pb2 import CustomerEventsErased
from rapport.identity.v1.events_pb2 import ErasureCreated, JudgedIdentifier
from services.identity.identifiers import identifier
from services.identity.rules import DEFAULT


def erased(facts, *identifiers, until, fact=ErasureCreated, **times):
    """Erases identifiers, each as type and value, up to a fact."""
    known = sorted(identifier(DEFAULT, facts.workspace, *each) for each in identifiers)
    key = FactKey(event_id=str(until.event_id))
    key.receive_time.FromDatetime(until.record_time)
    subjects = [JudgedIdentifier(type=each.type, node=each.node) for each in known]
    told = fact(erasure="erasures/e1", key=key, subjects=subjects)
    return facts.event("erasure-e1", told, **times)


def contact_erased(facts, contact, **times):
    """Says that the record of a contact is gone as a whole."""
    return facts.event(f"contact-{contact}", ContactErased(erasure="erasures/e1"), **times)


def events_erased(facts, *events, **times):
    """Says that customer events are gone from their log, whoever they name."""
    gone = [event.event_id.bytes for event in events]
    fact = CustomerEventsErased(cause="erasures/e1", event_ids=gone)
    return facts.event("gone-e1", fact, **times)
