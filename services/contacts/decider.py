"""The rules of a contact: what may be asked of it, and the facts that follow.

An e-mail address belongs to one contact of a workspace, however it is spelled, until that contact
is archived. This is a claim, settled for all contacts at once; all else a contact decides alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from google.protobuf.message import Message

from rapport.contacts.v1.events_pb2 import (
    ContactArchived,
    ContactCreated,
    ContactEmailChanged,
    ContactErased,
    ContactRenamed,
)
from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ChangeContactEmailRequest,
    CreateContactRequest,
    RenameContactRequest,
)
from services.kernel.command.decider import Decider
from services.kernel.command.work import Claim
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
)

Command = (
    CreateContactRequest | RenameContactRequest | ChangeContactEmailRequest | ArchiveContactRequest
)

RECOGNISED_BY = ("given_name", "family_name", "email", "phone")
"""A contact always has at least one of these, or nobody could tell who it is."""


@dataclass(frozen=True, slots=True)
class State:
    """A contact as its events leave it; before the first of them it does not exist."""

    exists: bool = False
    given_name: str = ""
    family_name: str = ""
    email: str = ""
    phone: str = ""
    custom_fields: dict[str, str] = field(default_factory=dict)
    is_archived: bool = False


def decide(command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    match command:
        case CreateContactRequest():
            return create(command, state)
        case RenameContactRequest():
            return rename(command, in_use(command.name, state))
        case ChangeContactEmailRequest():
            return change_email(command, in_use(command.name, state))
        case ArchiveContactRequest():
            return archive(existing(command.name, state))


def create(command: CreateContactRequest, state: State) -> Sequence[Message]:
    """A new contact needs a free id and something to recognise it by."""
    if state.exists:
        raise AlreadyExists(f"contacts/{command.contact_id}", "contact_id")
    created = ContactCreated(
        given_name=command.given_name,
        family_name=command.family_name,
        email=command.email,
        phone=command.phone,
        custom_fields=command.custom_fields,
    )
    return recognisable(state, created)


def rename(command: RenameContactRequest, state: State) -> Sequence[Message]:
    """The name a contact has already is no news; one that is taken away must leave something."""
    if (command.given_name, command.family_name) == (state.given_name, state.family_name):
        return []
    renamed = ContactRenamed(given_name=command.given_name, family_name=command.family_name)
    return recognisable(state, renamed)


def change_email(command: ChangeContactEmailRequest, state: State) -> Sequence[Message]:
    """Another spelling of the same address is news, the same spelling is not."""
    if command.email == state.email:
        return []
    return recognisable(state, ContactEmailChanged(email=command.email, previous_email=state.email))


def archive(state: State) -> Sequence[Message]:
    """Archiving twice is archiving once."""
    return [] if state.is_archived else [ContactArchived()]


def recognisable(state: State, fact: Message) -> Sequence[Message]:
    """Refuses a fact that would leave a contact with nothing to recognise it by."""
    after = evolve(state, fact)
    if not any(getattr(after, name).strip() for name in RECOGNISED_BY):
        description = f"give at least one of {', '.join(RECOGNISED_BY)}"
        raise InvalidArgument(FieldViolation(name, description) for name in RECOGNISED_BY)
    return [fact]


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a contact that nobody created."""
    if not state.exists:
        raise NotFound(name)
    return state


def in_use(name: str, state: State) -> State:
    """Refuses what is asked of a contact that is not there or not in use any more."""
    if existing(name, state).is_archived:
        raise FailedPrecondition(f"{name} is archived", resource=name, state="ARCHIVED")
    return state


def evolve(state: State, event: Message) -> State:
    """Returns the contact after an event."""
    match event:
        case ContactCreated():
            return State(
                exists=True,
                given_name=event.given_name,
                family_name=event.family_name,
                email=event.email,
                phone=event.phone,
                custom_fields=dict(event.custom_fields),
            )
        case ContactRenamed():
            return replace(state, given_name=event.given_name, family_name=event.family_name)
        case ContactEmailChanged():
            return replace(state, email=event.email)
        case ContactArchived():
            return replace(state, is_archived=True)
        case ContactErased():
            return State()
    return state


def claims(state: State) -> frozenset[Claim]:
    """Returns the e-mail address while the contact is in use."""
    if state.is_archived or not state.email:
        return frozenset()
    return frozenset({Claim("email", email_key(state.email))})


def email_key(email: str) -> str:
    """Returns what all spellings of one address have in common."""
    return email.strip().lower()


DECIDER = Decider(
    category="contact",
    collection="contacts",
    initial=State(),
    decide=decide,
    evolve=evolve,
    claims=claims,
    ended_by=ContactErased,
)
