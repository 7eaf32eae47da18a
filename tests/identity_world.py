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
    IdentifiersCut,
    IdentifiersLinked,
    JudgedIdentifier,
    VerdictCleared,
)
from services.identity.identifiers import identifier
from services.identity.projections import ProfilesView
from services.identity.projections.rule_sets import RuleSetsView
from services.identity.rules import DEFAULT
from services.identity.verdicts import pair_id
from services.kernel.log.recorded import Recorded

START = datetime(2026, 1, 1, tzinfo=UTC)
IMPORTED = 0.7


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


class DenseHistory:
    """Few people and few identifiers, so that everything meets everything."""

    def __init__(self, rng, workspace):
        self._rng = rng
        self._facts = Facts(workspace, seed=rng.random())
        self._users = ["", *(f"u{n}" for n in range(rng.randint(1, 4)))]
        self._anonymous = ["", "null", *(f"a{n}" for n in range(rng.randint(1, 6)))]
        self._emails = ["", "guest", *(f"E{n}@x.com " for n in range(rng.randint(1, 8)))]
        self._phones = ["", "000000", *(f"+49 30 {n}{n}{n}{n}" for n in range(rng.randint(1, 5)))]
        self._contacts = [f"c{n}" for n in range(rng.randint(1, 3))]
        self._minutes = range(rng.randint(3, 60))
        self._deals = {f"d{n}": rng.choice(["", *self._contacts]) for n in range(3)}
        self._opened = set()
        self._imported, self._retracted = [], []

    def some(self, size, *, retracting=0, judging=0):
        """A number of facts.

        `retracting` is how much of it takes facts back, or has them again, `judging` how much
        of it are verdicts; all others together are 18.
        """
        kinds = [self._track, self._identify, self._alias, self._contact, self._deal]
        weights = [6, 5, 1, 4, 2, retracting, retracting / 2, judging]
        kinds += [self._retract, self._record_again, self._judge]
        return [kind() for kind in self._rng.choices(kinds, weights, k=size)]

    def _times(self):
        return {
            "received": self._rng.choice(self._minutes),
            "occurred": self._rng.choice(self._minutes),
        }

    def _traits(self):
        choice, values = self._rng.choice, {"email": self._emails, "phone": self._phones}
        names = self._rng.sample(["plan", "city", "email", "phone", "age"], self._rng.randint(0, 4))
        others = [None, "gold", 7, {"deep": [1, 2]}, True]
        return {name: choice(values.get(name, others)) for name in names}

    def _ids(self):
        choice = self._rng.choice
        return {"user_id": choice(self._users), "anonymous_id": choice(self._anonymous)}

    def _track(self, **message):
        choice = self._rng.choice
        return self._sent(
            "track",
            name=choice(["Viewed", "Ordered"]),
            properties=choice([{}, {}, {"email": choice(self._emails)}]),
            context=choice([{}, {}, {"traits": self._traits()}]),
            **self._ids(),
            **message,
        )

    def _identify(self, **message):
        return self._sent("identify", traits=self._traits(), **self._ids(), **message)

    def _alias(self, **message):
        return self._sent(
            "alias",
            user_id=self._rng.choice(self._users),
            previous_id=self._rng.choice(self._users + self._anonymous),
            **message,
        )

    def _sent(self, kind, **fields):
        """A customer event, which came with an import more often than not."""
        made = self._facts.imported if self._rng.random() < IMPORTED else self._facts.sent
        event = made(kind, **fields, **self._times())
        if event.event.customer_event.import_name:
            self._imported.append(event)
        return event

    def _retract(self):
        if not self._imported:
            return self._track()
        event = self._imported.pop(self._rng.randrange(len(self._imported)))
        self._retracted.append(event.event.customer_event.message_id)
        return self._facts.retracted(event)

    def _record_again(self):
        """The same message once more, not always with the same in it."""
        if not self._retracted:
            return self._identify()
        again = self._retracted.pop(self._rng.randrange(len(self._retracted)))
        kind = self._rng.choice([self._track, self._identify, self._alias])
        return kind(message_id=again)

    def _judge(self):
        """A verdict on two identifiers, some of which nobody tells of."""
        known = [
            *(("user_id", user) for user in self._users if user),
            *(("anonymous_id", name) for name in self._anonymous if name not in ("", "null")),
            *(("email", email) for email in self._emails if "@" in email),
            *(("contact_id", contact) for contact in self._contacts),
            ("phone", "+49 30 11112222"),
        ]
        made = self._rng.choice([self._facts.linked, self._facts.cut, self._facts.cleared])
        return made(*self._rng.sample(known, 2), **self._times())

    def _contact(self):
        choice, who, times = self._rng.choice, self._rng.choice(self._contacts), self._times()
        match choice(["created", "email changed", "email changed", "renamed", "archived"]):
            case "created":
                slots = {"email": choice(self._emails), "phone": choice(self._phones)}
                return self._facts.contact_created(who, **slots, **times)
            case "email changed":
                return self._facts.contact_email_changed(who, choice(self._emails), **times)
            case "renamed":
                return self._facts.contact_renamed(who, given_name=choice(["Ada", ""]), **times)
        return self._facts.contact_archived(who, **times)

    def _deal(self):
        choice, times = self._rng.choice, self._times()
        deal = choice(sorted(self._deals))
        contact = self._deals[deal]
        if deal not in self._opened:
            self._opened.add(deal)
            return self._facts.deal_opened(deal, contact, **times)
        match choice(["won", "won", "lost", "reopened", "moved", "deleted", "undeleted", "other"]):
            case "won":
                return self._facts.deal_won(
                    deal,
                    contact,
                    amount_minor=choice([0, 7, 10**15]),
                    currency=choice(["", "EUR", "USD"]),
                    products=choice([[], ["products/b"], ["products/b", "products/a"]]),
                    **times,
                )
            case "lost":
                return self._facts.deal_lost(deal, contact, **times)
            case "reopened":
                return self._facts.deal_reopened(deal, **times)
            case "moved":
                return self._facts.deal_moved(deal, choice(["s", "t"]), **times)
            case "deleted":
                return self._facts.deal_deleted(deal, **times)
            case "undeleted":
                return self._facts.deal_undeleted(deal, **times)
        self._deals[deal] = contact = choice(["", *self._contacts])
        return self._facts.deal_contacts_changed(deal, *([contact] if contact else []), **times)


def another_order(rng, history, *, repeated=0.2):
    """The same facts in another order, some more than once; those of one stream keep theirs.

    Only a contact's facts, and the single one of a message, come in any order and again.
    """
    repeats = [event for event in history if rng.random() < repeated]
    shuffled = [*history, *repeats]
    rng.shuffle(shuffled)
    streams = {}
    for event in history:
        streams.setdefault((event.workspace, event.stream), []).append(event)
    queues = {
        stream: iter(events)
        for stream, events in streams.items()
        if stream[1].startswith("deal-") or (stream[1].startswith("message-") and len(events) > 1)
    }
    told = set()
    result = []
    for event in shuffled:
        key = event.workspace, event.stream
        if key not in queues:
            result.append(event)
        elif event.event_id not in told:
            following = next(queues[key])
            # A place that a repeat took before its turn still lets the next one through.
            told.add(event.event_id)
            result.append(following)
    return result


def batches(rng, events, largest):
    """The events in batches of random sizes."""
    rest = list(events)
    while rest:
        size = rng.randint(1, largest)
        yield [rest.pop(0) for _ in rest[:size]]


@asynccontextmanager
async def connected(database):
    """A connection to a database."""
    connection = await asyncpg.connect(database)
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

    async def in_force(_tx, _schema, workspaces):
        return dict.fromkeys(workspaces, rules)

    async with connection.transaction():
        return await ProfilesView(in_force).apply(connection, schema, events)
