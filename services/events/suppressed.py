"""Which identifiers come with a customer event, and how a suppressed one is recognised. Pure.

A suppression is known by a keyed hash: the list of people who want to be left alone holds none.
Every place is looked at where identity would find a person, and those where sources of the tracking
protocol put one besides.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from services.events.schema import Opened

TYPES = ("user_id", "anonymous_id", "email", "phone", "group_id")
"""The kinds of identifiers that can be suppressed."""

_SPELLINGS = {
    "user_id": ("user_id", "userId"),
    "anonymous_id": ("anonymous_id", "anonymousId"),
    "email": ("email", "emailAddress", "email_address"),
    "phone": ("phone", "phoneNumber", "phone_number"),
    "group_id": ("group_id", "groupId"),
}
"""What an identifier is called among traits and properties; capital letters make no difference."""

TYPES_BY_KEY = {
    spelling.lower(): type_name for type_name, keys in _SPELLINGS.items() for spelling in keys
}
_NO_DIGIT = re.compile(r"[^0-9]+", re.ASCII)


def identifiers_of(opened: Opened) -> Iterator[tuple[str, str]]:
    """The identifiers that a customer event carries, by type; a previous id may be either kind."""
    event = opened.event
    yield "user_id", event.user_id
    yield "anonymous_id", event.anonymous_id
    yield "user_id", event.previous_id
    yield "anonymous_id", event.previous_id
    yield "group_id", event.group_id
    yield from _said_in((opened.traits, opened.properties, opened.context))
    yield from (known for known in external_ids(opened.context) if known[0] in TYPES)


def normalised(type_name: str, value: str) -> str:
    """What all spellings of one identifier have in common."""
    if type_name == "email":
        return value.strip().lower()
    if type_name == "phone":
        # With or without a plus, or the zeros that stand for it.
        return _NO_DIGIT.sub("", value).lstrip("0")
    return value.strip()


def hash_of(key: bytes, type_name: str, value: str) -> str:
    """The id of an identifier's suppression, under the key of a workspace: 32 digits of 0-9a-f."""
    text = f"{type_name}/{normalised(type_name, value)}"
    return hmac.digest(key, text.encode(), "sha256").hex()[:32]


def hashes_of(key: bytes, identifiers: Iterable[tuple[str, str]]) -> set[str]:
    """The ids of the suppressions that would concern who comes with these identifiers."""
    return {
        hash_of(key, type_name, value)
        for type_name, value in set(identifiers)
        if normalised(type_name, value)
    }


def _said_in(objects: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What objects call an identifier, however deep inside."""
    waiting: list[Any] = list(objects)
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += [each for each in found if isinstance(each, dict | list)]
            continue
        for name, value in found.items():
            if isinstance(value, dict | list):
                waiting.append(value)
            elif type_name := TYPES_BY_KEY.get(name.lower()):
                yield from texts_of(type_name, value)


def external_ids(context: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The ids that the tracking protocol lists by type: `context.externalIds`."""
    listed = context.get("externalIds")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict):
            name = f"{each.get('type')}".lower()
            yield from texts_of(TYPES_BY_KEY.get(name, name), each.get("id"))


def texts_of(type_name: str, value: object) -> Iterator[tuple[str, str]]:
    """An identifier as a text; phone numbers and ids come as numbers, too."""
    if isinstance(value, str):
        yield type_name, value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield type_name, f"{value}"
    elif isinstance(value, float) and value.is_integer():
        yield type_name, f"{value:.0f}"
