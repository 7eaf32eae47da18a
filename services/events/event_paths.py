"""Paths into a customer event, and what is found there. Pure.

A path leads to a text of the customer event itself (`user_id`) or into one of its JSON objects,
written with dots (`properties.card.number`) or as a JSON pointer (`/properties/card/number`, for
names that hold dots). Where it meets a list it goes on in each of the list's objects.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from services.events.schema import Opened

PATH_CHARACTERS_MAX = 500
PATH_PARTS_MAX = 32
PLACES_MAX = 100
"""Places that one path may give a value to."""

TEXTS = ("name", "user_id", "anonymous_id", "previous_id", "group_id")
OBJECTS = ("properties", "traits", "context")

Path: TypeAlias = tuple[str, ...]


class PathError(ValueError):
    """When a text is no path, or nothing can be at one; says why."""


class Texts:
    """The texts of a customer event, as if they were members of an object; empty ones are not."""

    def __init__(self, event: CustomerEvent) -> None:
        self._event = event

    def __contains__(self, name: str) -> bool:
        return bool(getattr(self._event, name))

    def __getitem__(self, name: str) -> str:
        text: str = getattr(self._event, name)
        return text

    def __setitem__(self, name: str, value: object) -> None:
        if not isinstance(value, str):
            raise PathError(f"{name} can only be a text")
        setattr(self._event, name, value)

    def __delitem__(self, name: str) -> None:
        setattr(self._event, name, "")


Holder: TypeAlias = dict[str, Any] | Texts
Place: TypeAlias = tuple[Holder, Path]
"""What has a place in it, and the way there, of which nothing but the end may be there."""


def read_path(text: str) -> Path:
    """A path as its parts, else PathError."""
    if len(text) > PATH_CHARACTERS_MAX:
        raise PathError(f"is longer than {PATH_CHARACTERS_MAX} characters")
    if text.startswith("/"):
        parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
    else:
        parts = tuple(text.split("."))
    if len(parts) > PATH_PARTS_MAX:
        raise PathError(f"has more than {PATH_PARTS_MAX} parts")
    if "\0" in text:
        raise PathError("contains the character U+0000")
    is_text = len(parts) == 1 and parts[0] in TEXTS
    is_inside = len(parts) > 1 and parts[0] in OBJECTS
    if not (is_text or is_inside):
        raise PathError(f"must be one of {', '.join(TEXTS)}, or begin with {', '.join(OBJECTS)}")
    return parts


def found_at(opened: Opened, path: Path) -> list[Holder]:
    """What has a last part of a path as its member."""
    if len(path) == 1:
        texts = Texts(opened.event)
        return [texts] if path[0] in texts else []
    level = [getattr(opened, path[0])]
    for part in path[1:-1]:
        level = [inner for holder in level if part in holder for inner in _objects_in(holder[part])]
    return [holder for holder in level if path[-1] in holder]


def places_at(opened: Opened, path: Path) -> list[Place]:
    """Where a path may give a value to; PathError when what is in the way is no object."""
    if len(path) == 1:
        return [(Texts(opened.event), path)]
    level: list[tuple[dict[str, Any], Path]] = [(getattr(opened, path[0]), path[1:])]
    ends: list[Place] = []
    while level:
        holder, rest = level.pop()
        if len(rest) == 1 or rest[0] not in holder:
            ends.append((holder, rest))
            continue
        if not isinstance(holder[rest[0]], dict | list):
            raise PathError(f"{rest[0]} is no object")
        level += [(inner, rest[1:]) for inner in _objects_in(holder[rest[0]])]
    if len(ends) > PLACES_MAX:
        raise PathError(f"leads to more than {PLACES_MAX} places")
    return ends


def put(places: Iterable[Place], value: Any) -> None:
    """Gives each place a value of its own; objects that are missing on the way are made."""
    for place, rest in places:
        holder = place
        for part in rest[:-1]:
            inner: dict[str, Any] = {}
            holder[part] = inner
            holder = inner
        holder[rest[-1]] = copy.deepcopy(value)


def _objects_in(value: Any) -> list[dict[str, Any]]:
    """The object, or those of a list, however deep lists lie in each other."""
    if isinstance(value, dict):
        return [value]
    found: list[dict[str, Any]] = []
    pending = [value] if isinstance(value, list) else []
    while pending:
        for item in pending.pop():
            if isinstance(item, dict):
                found.append(item)
            elif isinstance(item, list):
                pending.append(item)
    return found
