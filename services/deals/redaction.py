"""What is left of a deal, a quote or a contract when a person is erased from it. Pure.

They are records of business, and what was agreed and earned stays true: stages, amounts, lines,
times. Who the person is goes: their contact's name becomes one that leads nowhere, and where it was
made with them, what somebody wrote in words of their own goes, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

CONTACTS: Final = "contacts/"
SOMETHING: Final = "Erased"
"""What stands where words cannot be missing."""

_ALWAYS_THERE: Final = {"display_name", "previous_display_name", "reason"}
FREE_WORDS: Final = _ALWAYS_THERE | {
    "next_step",
    "note",
    "recipient",
    "accepted_by",
    "signatory",
    "custom_fields",
}
"""The fields of a fact, its details and its terms in which somebody may say anything."""

_TERMS: Final = ("details", "terms")

IsTheirs = Callable[[str], bool]
"""Tells whether the name of a contact, `contacts/{id}`, is the person's."""

M = TypeVar("M", bound=Message)


def nobody(erasure: str, contact: str) -> str:
    """The name that stands for an erased contact: the same within one erasure, and in no other."""
    digest = hashlib.blake2b(f"{erasure} {contact}".encode(), digest_size=16)
    return f"{CONTACTS}erased-{digest.hexdigest()}"


def contacts_of(event: Message) -> Iterator[str]:
    """Every contact that a fact names."""
    for inner, field, value in _fields(event):
        if field.type == FieldDescriptor.TYPE_STRING and _is_contact(value):
            yield getattr(inner, field.name)


def partner_of(event: Message) -> str | None:
    """Whom a fact says it is made with, empty for nobody; None where it says nothing of it."""
    said = _with_terms(event)[-1]
    names = said.DESCRIPTOR.fields_by_name
    if "contacts" in names and said.contacts:
        return str(said.contacts[0].contact)
    return str(said.contact) if "contact" in names else None


def is_made_with(events: Iterable[Message], is_theirs: IsTheirs) -> bool:
    """Tells whether a deal, quote or contract was ever made with the person, by its facts."""
    return any(is_theirs(partner) for event in events if (partner := partner_of(event)))


def redacted(event: M, erasure: str, is_theirs: IsTheirs, *, is_about: bool) -> M:
    """A fact without the person; free words stay unless it `is_about` them."""
    left = type(event)()
    left.CopyFrom(event)
    for inner, field, value in list(_fields(left)):
        if field.name == "contact" and _is_contact(value) and is_theirs(value):
            setattr(inner, field.name, nobody(erasure, value))
            if "role" in inner.DESCRIPTOR.fields_by_name:
                inner.ClearField("role")
    for said in _with_terms(left) if is_about else []:
        for name in FREE_WORDS & {field.name for field, _ in said.ListFields()}:
            said.ClearField(name)
            if name in _ALWAYS_THERE:
                setattr(said, name, SOMETHING)
    return left


def _with_terms(event: Any) -> list[Any]:
    """A fact and, last, the details or terms that it holds."""
    names = event.DESCRIPTOR.fields_by_name
    return [event, *(getattr(event, name) for name in _TERMS if name in names)]


def _is_contact(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(CONTACTS)


def _fields(message: Any) -> Iterator[tuple[Any, FieldDescriptor, Any]]:
    """Every field that is set, of a message and of all messages within it."""
    for field, value in message.ListFields():
        yield message, field, value
        if field.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(field):
            for inner in [value] if isinstance(value, Message) else value:
                yield from _fields(inner)


def _is_map(field: FieldDescriptor) -> bool:
    inner = field.message_type
    return inner is not None and bool(inner.GetOptions().map_entry)
