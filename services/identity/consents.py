"""Consent: what was said about purposes, and what a profile's consent follows from it. Pure.

A word is kept with its atom, who said it, and with every identifier (node) it was said under. What
a profile's consent to a purpose is, follows from the words under its nodes:

1. Under one node, of what one atom said, the last word counts, by (occur_time, k). One about
   categories says nothing of a purpose that did not exist when it was received.
2. A grant counts only in the profile of its atom: nobody consents for somebody else. A refusal
   counts wherever one of its nodes is.
3. Under one node the last of the words that count stands: who refused on a device and agrees on it
   later has agreed.
4. Over all nodes the strictest stands: a refusal before a grant, a grant before nothing. A node
   without any word takes no grant away. Of several grants the one that holds longest counts.

So a profile's consent is a function of the words and of the nodes it has, in whatever order they
came. Merging adds nodes: it lifts a refusal only where the same person later agreed under the same
identifier. Parting gives each part what it had.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from google.protobuf.message import Message

from rapport.identity.v1.consents_pb2 import LawfulBasis
from rapport.identity.v1.events_pb2 import ConsentDenied, ConsentGranted, ConsentWithdrawn
from services.identity.facts import Fact, key_of, received_at
from services.kernel.log.recorded import Recorded, utc

FOR_EVER = datetime.max.replace(tzinfo=UTC)

_DAY = timedelta(days=1)

OF_CATEGORIES = ""
"""In place of a purpose: the word of a customer event, which is about categories."""


class Status(IntEnum):
    """What a consent is; the numbers are those of ConsentStatus, and kept."""

    UNKNOWN = 1
    GRANTED = 2
    DENIED = 3
    WITHDRAWN = 4
    EXPIRED = 5


REFUSED = frozenset({Status.DENIED, Status.WITHDRAWN})
FACTS: dict[type[Message], Status] = {
    ConsentGranted: Status.GRANTED,
    ConsentDenied: Status.DENIED,
    ConsentWithdrawn: Status.WITHDRAWN,
}

_WHATEVER_IS_SAID = frozenset(
    {
        LawfulBasis.LAWFUL_BASIS_CONTRACT,
        LawfulBasis.LAWFUL_BASIS_LEGAL_OBLIGATION,
        LawfulBasis.LAWFUL_BASIS_VITAL_INTEREST,
    }
)


@dataclass(frozen=True, slots=True)
class Purpose:
    """What consent is asked for, since when: nobody consents to what does not exist."""

    purpose_id: str
    categories: frozenset[str]
    create_time: datetime
    expire_after: timedelta | None = None
    basis: int = LawfulBasis.LAWFUL_BASIS_CONSENT


@dataclass(frozen=True, slots=True)
class Word:
    """What was said, by whom (`atom`), and under which nodes.

    A customer event says which categories are `granted`, all others are not; everybody else says a
    status of one purpose.
    """

    atom: str
    nodes: tuple[str, ...]
    key: bytes
    occur_time: datetime
    purpose_id: str = OF_CATEGORIES
    status: Status = Status.UNKNOWN
    granted: tuple[str, ...] = ()
    expire_time: datetime | None = None
    source: str = ""
    actor: str = ""
    types: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[datetime, bytes]:
        """The greatest was said last."""
        return self.occur_time, self.key


@dataclass(frozen=True, slots=True)
class Standing:
    """What a consent is, and by which word."""

    status: Status
    expire_time: datetime = FOR_EVER
    word: Word | None = None
    node: str = ""

    @property
    def order(self) -> tuple[datetime, bytes]:
        """That of its word."""
        assert self.word is not None
        return self.word.order

    def at(self, moment: datetime) -> Status:
        """Returns what it is at a moment."""
        has_ended = self.status is Status.GRANTED and self.expire_time <= moment
        return Status.EXPIRED if has_ended else self.status


NOTHING_SAID = Standing(Status.UNKNOWN)


def word_of_fact(fact: Fact) -> Word | None:
    """Returns what a customer event says about consent, if it says anything."""
    if fact.granted is None:
        return None
    return Word(
        atom=fact.atom,
        nodes=tuple(known.node for known in fact.identifiers),
        key=fact.key,
        occur_time=fact.occur_time,
        granted=fact.granted,
        source=fact.activity.resource,
        actor=fact.event.actor,
        types=tuple(known.type for known in fact.identifiers),
    )


def word_of_event(event: Recorded) -> Word | None:
    """Returns what an event of the own log says about consent, if it is one that does."""
    status, said = FACTS.get(type(event.event)), event.event
    if status is None:
        return None
    assert isinstance(said, ConsentGranted | ConsentDenied | ConsentWithdrawn)
    expire_time = None
    if isinstance(said, ConsentGranted) and said.HasField("expire_time"):
        expire_time = utc(said.expire_time)
    return Word(
        atom=said.identifiers[0].node,
        nodes=tuple(known.node for known in said.identifiers),
        key=key_of(event.record_time, event.event_id),
        occur_time=utc(said.occur_time),
        purpose_id=said.purpose.partition("/")[2],
        status=status,
        expire_time=expire_time,
        source=said.source,
        actor=event.actor,
        types=tuple(known.type for known in said.identifiers),
    )


def heard(word: Word, purpose: Purpose) -> Standing | None:
    """Returns what a word says of a purpose, if anything."""
    if word.purpose_id == purpose.purpose_id:
        return Standing(word.status, word.expire_time or FOR_EVER, word)
    is_about = word.purpose_id == OF_CATEGORIES and bool(purpose.categories)
    if not is_about or received_at(word.key) < purpose.create_time:
        return None
    if not purpose.categories.issubset(word.granted):
        return Standing(Status.DENIED, word=word)
    return Standing(Status.GRANTED, expires(word.occur_time, purpose), word)


def expires(occur_time: datetime, purpose: Purpose) -> datetime:
    """Returns until when a grant holds that does not say so itself: to the end of a day, in UTC.

    So one that every page view repeats is told anew once a day, not each time.
    """
    if purpose.expire_after is None or occur_time > FOR_EVER - purpose.expire_after - _DAY:
        return FOR_EVER
    ends = (occur_time + purpose.expire_after).astimezone(UTC)
    return ends.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY


def standing(
    members: Collection[str], words: Iterable[tuple[str, Word]], purpose: Purpose
) -> Standing:
    """Returns a profile's consent to a purpose, from the words under its nodes, `members`."""
    said_last: dict[tuple[str, str, str], Word] = {}
    for node, word in words:
        place = node, word.atom, word.purpose_id
        if place not in said_last or said_last[place].order < word.order:
            said_last[place] = word
    last: dict[tuple[str, str], Standing] = {}
    for (node, atom, _), word in said_last.items():
        said = heard(word, purpose)
        if said is not None and ((node, atom) not in last or last[node, atom].order < said.order):
            last[node, atom] = replace(said, node=node)
    by_node: dict[str, Standing] = {}
    for (node, atom), said in last.items():
        counts = said.status in REFUSED or atom in members
        if counts and (node not in by_node or by_node[node].order < said.order):
            by_node[node] = said
    return max(by_node.values(), key=_strictness, default=NOTHING_SAID)


def standings(
    members: Mapping[str, Collection[str]],
    words: Mapping[str, Iterable[tuple[str, Word]]],
    purposes: Collection[Purpose],
) -> dict[tuple[str, str], Standing]:
    """Returns what profiles consented to or refused, by profile and purpose id; no unknown ones."""
    found = {
        (profile, purpose.purpose_id): standing(members[profile], said, purpose)
        for profile, said in words.items()
        for purpose in purposes
    }
    return {place: stands for place, stands in found.items() if stands.word is not None}


def is_allowed(basis: int, status: Status) -> bool:
    """Tells whether something may be done on a lawful basis, by what the consent is."""
    if basis in _WHATEVER_IS_SAID:
        return True
    if basis == LawfulBasis.LAWFUL_BASIS_CONSENT:
        return status is Status.GRANTED
    return status not in REFUSED


def _strictness(said: Standing) -> tuple[bool, datetime, datetime, bytes, str]:
    """The greatest counts: a refusal, the last of several; else the grant that holds longest."""
    return said.status in REFUSED, said.expire_time, *said.order, said.node
