"""Facts about people for the tests of identity: one by one, and dense random histories of them."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg

from rapport.common.v1.money_pb2 import Money
from rapport.contacts.v1.events_pb2 import (
    ContactArchived,
    ContactCreated,
    ContactEmailChanged,
    ContactRenamed,
)
from rapport.deals.v1.events_pb2 import (
    DealContactsChanged,
    DealDeleted,
    DealLost,
    DealOpened,
    DealReopened,
    DealStageChanged,
    DealUndeleted,
    DealWon,
)
from rapport.deals.v1.values_pb2 import DealContact
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventRecorded, CustomerEventRetracted
from rapport.identity.v1.events_pb2 import (
    IdentifierAllowed,
    IdentifierBlocked,
    IdentifierFlagCleared,
    IdentifiersCut,
    IdentifiersLinked,
    JudgedIdentifier,
    VerdictCleared,
)
from services.identity.identifiers import identifier
from services.identity.projections import ProfilesView
from services.identity.projections.rule_sets import RuleSetsView
from services.identity.rules import DEFAULT, Rules
from services.identity.verdicts import pair_id
from services.kernel.log.recorded import Recorded
from services.kernel.log.writing import WritingConnection

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minute):
    """A moment."""
    return START + timedelta(minutes=minute)


class Facts:
    """Makes recorded events; each is a minute later than the one before unless told otherwise."""

    def __init__(self, workspace="acme", seed=0):
        self.workspace = workspace
        self._random = random.Random(seed)
        self._minutes = itertools.count()
        self._positions = itertools.count(1)
        self._versions = {}

    def event(self, stream, message, *, received=None, occurred=None):
        """One event of a stream."""
        received = next(self._minutes) if received is None else received
        event_id = uuid.UUID(int=self._random.getrandbits(128))
        return Recorded(
            partition=0,
            position=next(self._positions),
            workspace=self.workspace,
            stream=stream,
            version=1,
            event_id=event_id,
            type=message.DESCRIPTOR.full_name,
            event=message,
            actor="tests",
            correlation_id=f"correlation-{event_id}",
            causation_id="",
            occur_time=at(received if occurred is None else occurred),
            record_time=at(received),
        )

    def sent(self, kind, *, received=None, occurred=None, message_id=None, **fields):
        """A customer event of a kind, e.g. `track`."""
        received = next(self._minutes) if received is None else received
        for name in ("properties", "traits", "context"):
            if isinstance(fields.get(name), dict):
                fields[name] = json.dumps(fields[name])
        sent = CustomerEvent(
            message_id=message_id or f"m{self._random.getrandbits(64)}",
            type=CustomerEventType.Value(f"CUSTOMER_EVENT_TYPE_{kind.upper()}"),
            **fields,
        )
        sent.receive_time.FromDatetime(at(received))
        sent.occur_time.FromDatetime(at(received if occurred is None else occurred))
        message = CustomerEventRecorded(customer_event=sent)
        return self.event(
            f"message-{sent.message_id}", message, received=received, occurred=occurred
        )

    def track(self, name="Product Viewed", **fields):
        return self.sent("track", name=name, **fields)

    def identify(self, **fields):
        return self.sent("identify", **fields)

    def alias(self, **fields):
        return self.sent("alias", **fields)

    def imported(self, kind="track", **fields):
        """A customer event that came with an import."""
        fields = {"name": "Product Viewed", **fields} if kind == "track" else fields
        return self.sent(kind, import_name="imports/i1", **fields)

    def retracted(self, event):
        """Takes a customer event back."""
        message_id = event.event.customer_event.message_id
        message = CustomerEventRetracted(message_id=message_id, import_name="imports/i1")
        return self.event(event.stream, message)

    def linked(self, one, other, **times):
        """A verdict: two identifiers, each as type and value, are one person's."""
        return self._verdict(IdentifiersLinked, one, other, **times)

    def cut(self, one, other, **times):
        return self._verdict(IdentifiersCut, one, other, **times)

    def cleared(self, one, other, **times):
        return self._verdict(VerdictCleared, one, other, **times)

    def blocked(self, about, **times):
        """A flag: an identifier, as type and value, joins nobody."""
        return self._flag(IdentifierBlocked, about, **times)

    def allowed(self, about, **times):
        return self._flag(IdentifierAllowed, about, **times)

    def flag_cleared(self, about, **times):
        return self._flag(IdentifierFlagCleared, about, **times)

    def _flag(self, fact, about, *, reason="so it is", **times):
        known = identifier(DEFAULT, self.workspace, *about)
        flagged = JudgedIdentifier(type=known.type, node=known.node)
        return self.event(f"flag-{known.node}", fact(identifier=flagged, reason=reason), **times)

    def _verdict(self, fact, *pair, reason="so it is", **times):
        known = sorted(identifier(DEFAULT, self.workspace, *each) for each in pair)
        one, other = (JudgedIdentifier(type=each.type, node=each.node) for each in known)
        return self.event(
            f"verdict-{pair_id(*known)}", fact(one=one, other=other, reason=reason), **times
        )

    def contact_created(self, contact, *, received=None, occurred=None, **fields):
        return self._contact(contact, ContactCreated(**fields), received, occurred)

    def contact_renamed(self, contact, *, received=None, occurred=None, **fields):
        return self._contact(contact, ContactRenamed(**fields), received, occurred)

    def contact_email_changed(self, contact, email, *, received=None, occurred=None):
        return self._contact(contact, ContactEmailChanged(email=email), received, occurred)

    def contact_archived(self, contact, *, received=None, occurred=None):
        return self._contact(contact, ContactArchived(), received, occurred)

    def deal_opened(self, deal, contact, **times):
        return self.deal(deal, DealOpened(contact=_named(contact), stage="open"), **times)

    def deal_moved(self, deal, stage="s", **times):
        return self.deal(deal, DealStageChanged(stage=stage), **times)

    def deal_won(self, deal, contact, *, amount_minor=0, currency="", products=(), **times):
        amount = Money(amount_minor=amount_minor, currency=currency) if currency else None
        won = DealWon(
            contact=_named(contact), amount=amount, closing_stage="won", products=products
        )
        return self.deal(deal, won, **times)

    def deal_lost(self, deal, contact, **times):
        return self.deal(deal, DealLost(contact=_named(contact), closing_stage="lost"), **times)

    def deal_reopened(self, deal, **times):
        return self.deal(deal, DealReopened(stage="open"), **times)

    def deal_contacts_changed(self, deal, *contacts, **times):
        named = [DealContact(contact=_named(contact)) for contact in contacts]
        return self.deal(deal, DealContactsChanged(contacts=named), **times)

    def deal_deleted(self, deal, **times):
        return self.deal(deal, DealDeleted(), **times)

    def deal_undeleted(self, deal, **times):
        return self.deal(deal, DealUndeleted(), **times)

    def deal(self, deal, message, **times):
        """The next fact of a deal."""
        version = self._versions[deal] = self._versions.get(deal, 0) + 1
        return self.event(f"deal-{deal}", message, **times)._replace(version=version)

    def _contact(self, contact, message, received, occurred):
        return self.event(f"contact-{contact}", message, received=received, occurred=occurred)


def _named(contact):
    return f"contacts/{contact}" if contact else ""


def batches(rng, events, largest):
    """The events in batches of random sizes."""
    rest = list(events)
    while rest:
        size = rng.randint(1, largest)
        yield [rest.pop(0) for _ in rest[:size]]


@asynccontextmanager
async def connected(database):
    """A connection to a database."""
    connection = await asyncpg.connect(database, connection_class=WritingConnection)
    try:
        yield connection
    finally:
        await connection.close()


async def create(connection, schema):
    """Makes the view's tables in a schema, and those that say which rules are in force."""
    await connection.execute(f"create schema {schema};" + ProfilesView().tables(schema))
    if not await connection.fetchval("select to_regclass('rule_sets.rule_sets')"):
        await connection.execute("create schema rule_sets;" + RuleSetsView().tables("rule_sets"))


async def apply(connection, events, schema="profiles", rules=DEFAULT):
    """Applies one batch in one transaction, by some rules; returns the changes."""
    async with connection.transaction():
        return await view_of(rules).apply(connection, schema, events)


def view_of(rules):
    """The view of profiles by some rules: those of all workspaces, or of each its own."""

    async def in_force(_tx, _schema, workspaces):
        of_all = isinstance(rules, Rules)
        return {workspace: rules if of_all else rules[workspace] for workspace in workspaces}

    return ProfilesView(in_force)
