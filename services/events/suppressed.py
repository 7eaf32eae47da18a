"""Which identifiers come with a customer event, and how a suppressed one is recognised. Pure.

A suppression is known by a keyed hash: the list of people who want to be left alone holds none.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.events.schema import Opened

TYPES = ("user_id", "anonymous_id", "email", "phone", "group_id")
"""The kinds of identifiers that can be suppressed."""

_NO_DIGIT = re.compile(r"[^0-9+]")


def identifiers_of(opened: Opened) -> Iterator[tuple[str, str]]:
    """The identifiers that a customer event carries, by type; a previous id may be either kind."""
    event = opened.event
    yield "user_id", event.user_id
    yield "anonymous_id", event.anonymous_id
    yield "user_id", event.previous_id
    yield "anonymous_id", event.previous_id
    yield "group_id", event.group_id
    of_context = opened.context.get("traits")
    said: list[dict[str, Any]] = [opened.traits, opened.properties]
    if isinstance(of_context, dict):
        said.append(of_context)
    for known in said:
        for name in ("email", "phone"):
            value = known.get(name)
            if isinstance(value, str):
                yield name, value


def normalised(type_name: str, value: str) -> str:
    """What all spellings of one identifier have in common."""
    if type_name == "email":
        return value.strip().lower()
    if type_name == "phone":
        return _NO_DIGIT.sub("", value)
    return value.strip()


def hash_of(key: bytes, type_name: str, value: str) -> str:
    """The id of an identifier's suppression, under the key of a workspace: 32 digits of 0-9a-f."""
    text = f"{type_name}/{normalised(type_name, value)}"
    return hmac.digest(key, text.encode(), "sha256").hex()[:32]


def hashes_of(key: bytes, opened: Opened) -> set[str]:
    """The ids of the suppressions that would concern a customer event."""
    return {
        hash_of(key, type_name, value)
        for type_name, value in identifiers_of(opened)
        if value.strip()
    }
