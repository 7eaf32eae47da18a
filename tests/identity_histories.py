"""Dense random histories of facts about people, in which everything meets everything."""

from __future__ import annotations

from rapport.events.v1.events_pb2 import CustomerEventRecorded, CustomerEventsErased
from rapport.identity.v1.events_pb2 import ErasureCreated, ErasureExtended
from services.identity.identifiers import identifier
from services.identity.rules import DEFAULT
from tests.consents_world import BY_HAND, CATEGORIES, PURPOSES, consented, preferring
from tests.erasures_world import contact_erased, erased, events_erased
from tests.identity_world import Facts

IMPORTED = 0.7
PREFERRING = 0.5


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
        self._others = [f"x{n}" for n in range(rng.randint(1, 4))]
        self._minutes = range(rng.randint(3, 60))
        self._deals = {f"d{n}": rng.choice(["", *self._contacts]) for n in range(3)}
        self._opened = set()
        self._imported, self._retracted = [], []
        self._told = []
        self._preferring = 0

    def some(self, size, *, retracting=0, judging=0, flagging=0, erasing=0, consenting=0):
        """A number of facts.

        `retracting` is how much of it takes facts back, or has them again, `judging` how much
        of it are verdicts, `flagging` how much are flags, `erasing` how much erases people,
        `consenting` how much are words on consent that somebody records, beside those that come
        with customer events; all others together are 18.
        """
        self._preferring = PREFERRING if consenting else 0
        kinds = [self._track, self._identify, self._alias, self._contact, self._deal]
        weights = [6, 5, 1, 4, 2, retracting, retracting / 2, judging, flagging, erasing]
        kinds += [self._retract, self._record_again, self._judge, self._flag, self._erase]
        kinds, weights = [*kinds, self._consent], [*weights, consenting]
        for kind in self._rng.choices(kinds, weights, k=size):
            self._told.append(kind())
        return self._told

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
            context=choice([{}, {}, {"traits": self._traits()}, self._context()]),
            **self._ids(),
            **message,
        )

    def _context(self):
        given = {"collection": "users", "encoding": "none"}
        ids = self._rng.sample(self._others, self._rng.randint(0, min(2, len(self._others))))
        types = ("loyalty_id", "loyalty_id", "braze_id")
        listed = [{"id": each, "type": self._rng.choice(types), **given} for each in ids]
        return {"externalIds": listed, "device": {"id": self._rng.choice(self._others)}}

    def _identify(self, **message):
        return self._sent("identify", traits=self._traits(), **self._ids(), **message)

    def _alias(self, **message):
        choice = self._rng.choice
        return self._sent(
            "alias",
            user_id=choice(self._users),
            previous_id=choice(self._users + self._anonymous),
            **message,
        )

    def _sent(self, kind, **fields):
        """A customer event, which came with an import more often than not."""
        made = self._facts.imported if self._rng.random() < IMPORTED else self._facts.sent
        if self._rng.random() < self._preferring:
            granted = (each for each in CATEGORIES if self._rng.random() < 0.7)
            fields["context"] = {**fields.get("context", {}), **preferring(*granted)}
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

    def _known(self):
        """Identifiers that a person may decide about, some of which nobody tells of."""
        return [
            *(("user_id", user) for user in self._users if user),
            *(("anonymous_id", name) for name in self._anonymous if name not in ("", "null")),
            *(("email", email) for email in self._emails if "@" in email),
            *(("contact_id", contact) for contact in self._contacts),
            *(("device_id", other) for other in self._others),
            *(("loyalty_id", other) for other in self._others),
            ("phone", "+49 30 11112222"),
            ("phone", "+49 30 1111"),
        ]

    def _judge(self):
        """A verdict on two identifiers."""
        made = self._rng.choice([self._facts.linked, self._facts.cut, self._facts.cleared])
        return made(*self._rng.sample(self._known(), 2), **self._times())

    def _flag(self):
        """A flag of an identifier."""
        facts = self._facts
        made = self._rng.choice([facts.blocked, facts.allowed, facts.allowed, facts.flag_cleared])
        return made(self._rng.choice(self._known()), **self._times())

    def _erase(self):
        """A contact as a whole, some customer events, or some identifiers up to some fact."""
        sent = [e for e in self._told if isinstance(e.event, CustomerEventRecorded)]
        what = self._rng.random()
        if not self._told or what < 0.2:
            return contact_erased(self._facts, self._rng.choice(self._contacts), **self._times())
        if sent and what < 0.4:
            some = self._rng.sample(sent, min(len(sent), self._rng.randint(1, 3)))
            return events_erased(self._facts, *some)
        until = self._rng.choice(self._told)
        # One whom that last fact names, more often than not: it is the last that goes.
        named = self._named_in(until) if self._rng.random() < 0.6 else self._known()
        some = self._rng.sample(named, min(len(named), self._rng.choice([1, 1, 2])))
        fact = self._rng.choice([ErasureCreated, ErasureExtended])
        return erased(self._facts, *some, until=until, fact=fact)

    def _named_in(self, event):
        """Those of the identifiers that a fact seems to name, or all if it names none."""
        text, workspace = str(event.event), self._facts.workspace
        found = [
            known
            for known in self._known()
            if known[1] in text or identifier(DEFAULT, workspace, *known).node in text
        ]
        return found or self._known()

    def _consent(self):
        """A word on consent to a purpose, under some identifiers."""
        choice, some = self._rng.choice, self._rng.sample(self._known(), self._rng.randint(1, 3))
        purpose, fact = choice(list(PURPOSES)), choice(list(BY_HAND))
        return consented(self._facts, fact, *some, purpose=purpose, **self._times())

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
    return _erased_behind(rng, result)


def _erased_behind(rng, ordered):
    """The same order, but that customer events are erased only after they came: so is their log."""
    result = [event for event in ordered if not isinstance(event.event, CustomerEventsErased)]
    for event in ordered:
        if isinstance(event.event, CustomerEventsErased):
            gone = set(event.event.event_ids)
            places = [n for n, each in enumerate(result, 1) if each.event_id.bytes in gone]
            result.insert(rng.randint(max(places, default=0), len(result)), event)
    return result
