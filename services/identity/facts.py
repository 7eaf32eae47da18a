"""What the facts of contacts, deals and customer events say about people. Pure.

A fact's key is when the platform received it and its event id: total, and kept through replay.
It alone breaks ties, so no order of arrival can. Each fact belongs to one node for ever, the
strongest of its identifiers: the part of a profile that a node so gathers is an atom.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from msgspec import Struct

from rapport.contacts.v1.events_pb2 import (
    ContactArchived,
    ContactCreated,
    ContactEmailChanged,
    ContactRenamed,
)
from rapport.deals.v1 import events_pb2 as deals_events
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventRecorded
from rapport.identity.v1.service_pb2 import TimelineKind
from services.identity.graph import Edge
from services.identity.identifiers import Group, Identifier, group, identifier
from services.identity.preferences import granted_categories
from services.identity.rules import ANONYMOUS_ID, CONTACT_ID, EMAIL, PHONE, USER_ID, Rules
from services.identity.sent_ids import sent_ids
from services.identity.traits import Traits, read_object, text_of, traits_of, traits_of_texts
from services.kernel.log.recorded import Recorded, microseconds, utc

EVENTS = "events"
CONTACTS = "contacts"
DEALS = "deals"
_SERVICES = {
    TimelineKind.TIMELINE_KIND_CONTACT: CONTACTS,
    TimelineKind.TIMELINE_KIND_DEAL: DEALS,
}

ERASED = "erased-00000000000000000000000000000000"
"""In place of the id of a contact that is nobody any more."""

_ERASED_CONTACT = re.compile(r"erased-[0-9a-f]{32}")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Looked up once: protobuf finds the value of an enum by its name each time.
_IDENTIFY = CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY
_GROUP = CustomerEventType.CUSTOMER_EVENT_TYPE_GROUP
_ALIAS = CustomerEventType.CUSTOMER_EVENT_TYPE_ALIAS
_ACCOUNT = CustomerEventType.CUSTOMER_EVENT_TYPE_ACCOUNT
_CUSTOMER_EVENT = TimelineKind.TIMELINE_KIND_CUSTOMER_EVENT
_MEMBERSHIP = TimelineKind.TIMELINE_KIND_MEMBERSHIP
_READABLE = {
    _IDENTIFY: "Person Identified",
    CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE: "Page Viewed",
    CustomerEventType.CUSTOMER_EVENT_TYPE_SCREEN: "Screen Viewed",
    _GROUP: "Group Joined",
    _ALIAS: "Ids Aliased",
    _ACCOUNT: "Account Described",
}
_GROUP_LEFT = "Group Left"
# An object without these words, however they are written, has nothing that is read of it.
_OF_PROPERTIES = (EMAIL, "\\u")
_OF_CONTEXT = ("traits", "consent", "externalIds", "device", "groupId", "\\u")
# Their traits are what they say, whoever it is about.
_DESCRIBING = frozenset({_IDENTIFY, _GROUP, _ACCOUNT})

Raw = tuple[tuple[str, str], ...]
"""Identifiers as they were sent, by type and value."""


# Structs, for each event has one of each: a dataclass takes five times as long to make.
class Activity(Struct, frozen=True):
    """What the timeline shows of a fact.

    `source` is a customer event's, or the service's name, `account` the name of the account in
    which it was done.
    """

    kind: TimelineKind.ValueType
    name: str
    source: str
    resource: str
    details: str
    account: str = ""


class Fact(Struct, frozen=True):
    """What one event says: who was seen together, what they did, what is known of them.

    It belongs to the atom, the node of its strongest identifier.
    `identifiers` are live, the strongest first. `links` are declared to be one person. `asserted`
    says, per slot of the record that is the strongest identifier, what is there now. What came
    with an import can be taken back. `granted` are the categories that are consented to, where
    anything was said about consent.
    """

    event: Recorded
    key: bytes
    occur_time: datetime
    atom: str
    identifiers: tuple[Identifier, ...]
    activity: Activity
    traits: Traits
    links: frozenset[tuple[str, str]] = frozenset()
    asserted: Mapping[str, Identifier | None] | None = None
    is_imported: bool = False
    granted: tuple[str, ...] | None = None

    @property
    def workspace(self) -> str:
        """The workspace it belongs to."""
        return self.event.workspace

    @property
    def receive_time(self) -> datetime:
        """When the platform received it."""
        return received_at(self.key)

    @property
    def activity_id(self) -> UUID:
        """The id of the event, by which its activity is known."""
        return self.event.event_id

    @property
    def nodes(self) -> Sequence[str]:
        """The nodes it tells of."""
        return [known.node for known in self.identifiers]

    def edges(self) -> Iterator[Edge]:
        """An edge from the strongest identifier to each other."""
        for known in self.identifiers[1:]:
            pair = known.node, self.atom
            yield Edge(*pair, self.key, pair in self.links)


Deal = tuple[str, str]  # workspace, deal id


def key_of(receive_time: datetime, event_id: UUID) -> bytes:
    """Returns a fact's key: 8 bytes of microseconds, 16 of event id, sorted as both together."""
    return _key((receive_time - EPOCH) // _MICROSECOND, event_id)


def _key(received_us: int, event_id: UUID) -> bytes:
    return received_us.to_bytes(8, "big") + event_id.bytes


def received_at(key: bytes) -> datetime:
    """Returns when the fact with this key was received."""
    return EPOCH + int.from_bytes(key[:8], "big") * _MICROSECOND


def id_of(stream: str) -> str:
    """`deal-42` → `42`."""
    return stream.partition("-")[2]


def contact_id_of(name: str) -> str:
    """`contacts/42` → `42`; what stands for somebody who was erased stands for nobody."""
    contact = name.partition("/")[2]
    return ERASED if _ERASED_CONTACT.fullmatch(contact) else contact


def deal_of(event: Recorded) -> Deal | None:
    """Returns the deal whose fact an event is, if it is one."""
    if _READERS.get(type(event.event)) is not _deal:
        return None
    return event.workspace, id_of(event.stream)


def read_fact(rules: Rules, event: Recorded, contacts: Mapping[UUID, str]) -> Fact | None:
    """Reads what an event says about a person, or None when it is about nobody.

    `contacts` tells, by the ids of facts of deals, the contact ids that these are about.
    """
    reader = _READERS.get(type(event.event))
    return None if reader is None else reader(rules, event, contacts)


def _customer_event(rules: Rules, event: Recorded, _: Mapping[UUID, str]) -> Fact | None:
    recorded: Any = event.event
    sent: CustomerEvent = recorded.customer_event
    # Each look into a message costs: what is asked for more than once is taken out of it first.
    kind = sent.type
    properties = _read_for(_OF_PROPERTIES, sent.properties)
    context = _read_for(_OF_CONTEXT, sent.context)
    of_context = read_object(context["traits"]) if "traits" in context else {}
    said = {**of_context, **read_object(sent.traits)} if kind == _IDENTIFY else {}
    raw: Raw = ((USER_ID, sent.user_id), (ANONYMOUS_ID, sent.anonymous_id))
    if context:
        raw += tuple(sent_ids(context))
    # What an account is like, mail address and all, is no matter of who told of it.
    if kind != _ACCOUNT and (said or of_context or properties):
        raw += tuple((EMAIL, text_of(known.get(EMAIL))) for known in (said, of_context, properties))
        raw += tuple((PHONE, text_of(known.get(PHONE))) for known in (said, of_context))
    links: frozenset[tuple[str, str]] = frozenset()
    if kind == _ALIAS:
        # Nothing tells whether the old id was a known person's or a browser's, so it is both.
        raw += ((USER_ID, sent.previous_id), (ANONYMOUS_ID, sent.previous_id))
        links = _aliased(rules, event.workspace, sent)
    identifiers = _live(rules, event.workspace, raw)
    if not identifiers:
        return None
    within = group(event.workspace, sent.group_id or text_of(context.get("groupId")))
    return Fact(
        event=event,
        key=key_of_sent(event, sent),
        occur_time=occurred_at(event, sent),
        atom=identifiers[0].node,
        identifiers=identifiers,
        activity=_customer_activity(sent, kind, within),
        traits=traits_of(said),
        links=links,
        is_imported=sent.import_name != "",
        granted=granted_categories(context.get("consent")),
    )


def key_of_sent(event: Recorded, sent: CustomerEvent) -> bytes:
    """Returns the key of what a customer event says."""
    if sent.HasField("receive_time"):
        return _key(microseconds(sent.receive_time), event.event_id)
    return key_of(event.record_time, event.event_id)


def occurred_at(event: Recorded, sent: CustomerEvent) -> datetime:
    """Returns when a customer event occurred."""
    return utc(sent.occur_time) if sent.HasField("occur_time") else event.occur_time


def _customer_activity(
    sent: CustomerEvent, kind: CustomerEventType.ValueType, within: Group | None
) -> Activity:
    is_group = kind == _GROUP
    has_left = is_group and sent.ends_membership
    details = sent.traits if kind in _DESCRIBING else sent.properties
    return Activity(
        kind=_MEMBERSHIP if is_group else _CUSTOMER_EVENT,
        name=_GROUP_LEFT if has_left else _READABLE.get(kind) or sent.name,
        source=sent.source or EVENTS,
        resource=resource_of(sent.message_id),
        details=details or "{}",
        account=within.name if within else "",
    )


def resource_of(message_id: str) -> str:
    """Returns the resource name of a customer event."""
    return f"customerEvents/{message_id}"


def _aliased(rules: Rules, workspace: str, sent: CustomerEvent) -> frozenset[tuple[str, str]]:
    """Returns the pair of user ids that an alias declares one person, the weaker first."""
    now = identifier(rules, workspace, USER_ID, sent.user_id)
    before = identifier(rules, workspace, USER_ID, sent.previous_id)
    if now is None or before is None or now == before:
        return frozenset()
    strong, weak = sorted((now.node, before.node))
    return frozenset({(weak, strong)})


def _contact(rules: Rules, event: Recorded, _: Mapping[UUID, str]) -> Fact | None:
    contact_id = id_of(event.stream)
    change: Any = event.event
    said: dict[str, str | None] = {}
    slots: dict[str, str] = {}
    match change:
        case ContactCreated():
            given = {
                "given_name": change.given_name,
                "family_name": change.family_name,
                EMAIL: change.email,
                PHONE: change.phone,
            }
            said = {**change.custom_fields, **{name: text for name, text in given.items() if text}}
            slots = {EMAIL: change.email, PHONE: change.phone}
        case ContactRenamed():
            said = {
                "given_name": change.given_name or None,
                "family_name": change.family_name or None,
            }
        case ContactEmailChanged():
            said = {EMAIL: change.email or None}
            slots = {EMAIL: change.email}
        case ContactArchived():
            slots = {EMAIL: "", PHONE: ""}
    return _crm_fact(
        rules,
        event,
        contact_id,
        TimelineKind.TIMELINE_KIND_CONTACT,
        resource=f"contacts/{contact_id}",
        traits=traits_of_texts(said),
        asserted={
            slot: identifier(rules, event.workspace, slot, raw) for slot, raw in slots.items()
        },
    )


def _deal(rules: Rules, event: Recorded, contacts: Mapping[UUID, str]) -> Fact | None:
    contact_id = contacts.get(event.event_id)
    if not contact_id or contact_id == ERASED:
        return None
    return _crm_fact(
        rules,
        event,
        contact_id,
        TimelineKind.TIMELINE_KIND_DEAL,
        resource=f"deals/{id_of(event.stream)}",
    )


def _crm_fact(
    rules: Rules,
    event: Recorded,
    contact_id: str,
    kind: TimelineKind.ValueType,
    *,
    resource: str,
    traits: Traits = (),
    asserted: Mapping[str, Identifier | None] | None = None,
) -> Fact | None:
    found = identifier(rules, event.workspace, CONTACT_ID, contact_id)
    if found is None:
        return None
    details = MessageToJson(event.event, indent=None)
    return Fact(
        event=event,
        key=key_of(event.record_time, event.event_id),
        occur_time=event.occur_time,
        atom=found.node,
        identifiers=(found,),
        activity=Activity(kind, _ACTIVITIES[type(event.event)], _SERVICES[kind], resource, details),
        traits=traits,
        asserted=asserted,
    )


def _live(rules: Rules, workspace: str, raw: Raw) -> tuple[Identifier, ...]:
    """Returns the live identifiers among raw values, each once, the strongest first."""
    found: list[Identifier] = []
    for name, value in raw:
        known = identifier(rules, workspace, name, value) if value else None
        if known is not None and known not in found:
            found.append(known)
    found.sort()
    return tuple(found)


def _read_for(words: tuple[str, ...], text: str) -> dict[str, bytes]:
    """Reads an object if it mentions one of the words, and so is worth it."""
    for word in words:
        if word in text:
            return read_object(text)
    return {}


_OF_CONTACTS: dict[type[Message], str] = {
    ContactCreated: "Contact Created",
    ContactRenamed: "Contact Renamed",
    ContactEmailChanged: "Contact Email Changed",
    ContactArchived: "Contact Archived",
}

# Every fact of a deal is called so: `DealStageChanged` is the activity `Deal Stage Changed`.
_OF_DEALS: dict[type[Message], str] = {
    GetMessageClass(fact): re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    for name, fact in deals_events.DESCRIPTOR.message_types_by_name.items()
    if name.startswith("Deal")
}

_ACTIVITIES = _OF_CONTACTS | _OF_DEALS

Reader = Callable[[Rules, Recorded, Mapping[UUID, str]], Fact | None]

_READERS: dict[type[Message], Reader] = {
    CustomerEventRecorded: _customer_event,
    **dict.fromkeys(_OF_CONTACTS, _contact),
    **dict.fromkeys(_OF_DEALS, _deal),
}

# What says something about people; every other fact is passed by at once.
READ = frozenset(_READERS)
