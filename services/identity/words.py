"""Words: what facts say of how a deal stands and whom it is made with. Pure.

A deal's own stream says so, and the later word wins: by the version of the fact, which is the order
that deals themselves go by. What moves a deal, who it is made with and whether it is deleted are
orders of their own (`Topic`). Within one nothing occurs before what was told earlier, so a word
that is told late changes since when something is so, and never what.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import (
    DealContactsChanged,
    DealDeleted,
    DealLost,
    DealMovedToPipeline,
    DealOpened,
    DealReopened,
    DealStageChanged,
    DealUndeleted,
    DealWon,
)
from services.identity.facts import ERASED, contact_id_of, key_of
from services.identity.identifiers import identifier
from services.identity.rules import CONTACT_ID, DEFAULT
from services.kernel.log.recorded import Recorded


class Kind(IntEnum):
    """What a word says. The numbers are stored."""

    OPENED = 1
    CONTACT_CHANGED = 2
    WON = 3
    LOST = 4
    REOPENED = 5
    DELETED = 6
    UNDELETED = 7
    MOVED = 8


class Topic(Enum):
    """What words are about; those about the same thing occur in the order of their versions."""

    STANDING = 1
    CONTACT = 2
    DELETION = 3


_TOPICS = {
    Kind.OPENED: tuple(Topic),
    Kind.CONTACT_CHANGED: (Topic.CONTACT,),
    Kind.WON: (Topic.STANDING,),
    Kind.LOST: (Topic.STANDING,),
    Kind.REOPENED: (Topic.STANDING,),
    Kind.DELETED: (Topic.DELETION,),
    Kind.UNDELETED: (Topic.DELETION,),
    Kind.MOVED: (Topic.STANDING,),
}


@dataclass(frozen=True, slots=True)
class Word:
    """What one fact says of how a deal stands or whom it is made with.

    `contact` is the id of the primary contact and `node` its identifier's, both empty for none; who
    was erased has no node. `stage` is the one that a move or an ending leads to. `products` are
    what was won; without a currency the amount of that is not known.
    """

    version: int
    key: bytes
    occur_time: datetime
    kind: Kind
    contact: str = ""
    node: str = ""
    stage: str = ""
    amount_minor: int = 0
    currency: str = ""
    products: tuple[str, ...] = ()

    @property
    def topics(self) -> tuple[Topic, ...]:
        """What it is about."""
        return _TOPICS[self.kind]

    @property
    def place(self) -> tuple[int, bytes]:
        """Its place in the deal's stream."""
        return self.version, self.key


def word_of(event: Recorded) -> Word | None:
    """Returns what an event says of how its deal stands or whom it is made with, if it does."""
    change = event.event
    kind = _KINDS.get(type(change))
    if kind is None:
        return None
    contact, stage, amount = "", "", Money()
    products: tuple[str, ...] = ()
    match change:
        case DealOpened():
            contact, stage = change.contact, change.stage
        case DealContactsChanged():
            contact = change.contacts[0].contact if change.contacts else ""
        case DealStageChanged() | DealMovedToPipeline() | DealReopened():
            stage = change.stage
        case DealWon():
            stage, amount = change.closing_stage, change.amount
            products = tuple(change.products)
        case DealLost():
            stage = change.closing_stage
    # What a contact is named by is the same whatever the rules.
    contact_id = contact_id_of(contact)
    known = identifier(DEFAULT, event.workspace, CONTACT_ID, contact_id)
    node = known.node if known and contact_id != ERASED else ""
    return Word(
        version=event.version,
        key=key_of(event.record_time, event.event_id),
        occur_time=event.occur_time,
        kind=kind,
        contact=known.value if known else "",
        node=node,
        stage=stage,
        amount_minor=amount.amount_minor,
        currency=amount.currency,
        products=products,
    )


def contact_at(words: Iterable[Word], place: tuple[int, bytes]) -> str:
    """Returns the id of the contact a deal was made with when a fact was told, or an empty text.

    The fact that takes the contact away is still about that contact.
    """
    told = sorted(
        (word for word in words if Topic.CONTACT in word.topics and word.place <= place),
        key=lambda word: word.place,
    )
    if len(told) > 1 and told[-1].place == place and not told[-1].contact:
        return told[-2].contact
    return told[-1].contact if told else ""


def in_time(words: Iterable[Word]) -> list[tuple[datetime, Word]]:
    """Returns words in the order in which they occurred, each with when it did.

    Those about the same thing stay in the order of the stream, whatever the clocks said.
    """
    latest: dict[Topic, datetime] = {}
    placed = []
    for word in sorted(words, key=lambda word: word.place):
        moment = max(
            [word.occur_time, *(latest[topic] for topic in word.topics if topic in latest)]
        )
        latest.update(dict.fromkeys(word.topics, moment))
        placed.append((moment, word))
    return sorted(placed, key=lambda each: (each[0], each[1].place))


_KINDS = {
    DealOpened: Kind.OPENED,
    DealContactsChanged: Kind.CONTACT_CHANGED,
    DealWon: Kind.WON,
    DealLost: Kind.LOST,
    DealReopened: Kind.REOPENED,
    DealDeleted: Kind.DELETED,
    DealUndeleted: Kind.UNDELETED,
    DealStageChanged: Kind.MOVED,
    DealMovedToPipeline: Kind.MOVED,
}
