"""Which identifiers a customer event names a person by, wherever in it. Pure.

Wider than what identity joins profiles by: whoever is erased must be found wherever a source may
have put them. So what a value is called says what it may be, however deep it lies, and a custom
type of identifier needs no configuration here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from services.events.schema import read_json
from services.events.suppressed import TYPES_BY_KEY, external_ids, identifiers_of, texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from services.events.schema import Opened
    from services.kernel.erasing.subjects import Subject

DEVICE_ID = "device_id"
# Sources call things by few names; those that make some up are not remembered for ever.
KEYS_REMEMBERED_MAX = 10_000
_PLACES = frozenset({"externalIds", "device"})


def opened_again(
    recorded: CustomerEvent,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The properties, traits and context of a customer event that was let in before."""
    properties, traits, context = (
        read_json(name, getattr(recorded, name)) for name in ("properties", "traits", "context")
    )
    # What was recorded by an earlier rule may break one of today's: then it names nobody there.
    return _object(properties), _object(traits), _object(context)


def named_in(opened: Opened) -> Iterator[tuple[str, str]]:
    """The identifiers of a customer event at the door, and all that could be one."""
    yield from identifiers_of(opened)
    yield from _named_among((opened.properties, opened.traits, opened.context))


def names(subject: Subject, recorded: CustomerEvent) -> bool:
    """Whether a customer event in the log names a person."""
    fields = (
        ("user_id", recorded.user_id),
        ("anonymous_id", recorded.anonymous_id),
        ("user_id", recorded.previous_id),
        ("anonymous_id", recorded.previous_id),
    )
    # Nobody knows the types of mere hashes.
    types = frozenset(name for name, _ in subject.forms) if subject.is_by_value else None
    return subject.is_named(fields) or subject.is_named(_named_among(opened_again(recorded), types))


def named_in_row(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the cells of an imported row could name a person by: a mail address whatever its column.

    Columns such as `Contact Email` are called as people like.
    """
    yield from _named_among((row,))
    for value in row.values():
        if isinstance(value, str) and "@" in value:
            yield "email", value


def _object(read: object) -> dict[str, Any]:
    return read if isinstance(read, dict) else {}


def _named_among(
    objects: Iterable[dict[str, Any]], types: frozenset[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Every value under its name, however deep inside, and under what the name stands for.

    Of these `types` only, where they are given.
    """
    waiting = list(objects)
    while waiting:
        found = waiting.pop()
        for key, value in found.items():
            if key in _PLACES:
                yield from _listed(found, key, value)
            if isinstance(value, dict):
                waiting.append(value)
                continue
            if isinstance(value, list):
                waiting += _objects_in(value)
            for type_name in _types_of(key, isinstance(value, list)):
                if types is None or type_name in types:
                    for each in value if isinstance(value, list) else (value,):
                        yield from texts_of(type_name, each)


def _objects_in(items: list[Any]) -> Iterator[dict[str, Any]]:
    """The objects in a list, and in the lists in it."""
    for each in items:
        if isinstance(each, dict):
            yield each
        elif isinstance(each, list):
            yield from _objects_in(each)


def _listed(found: dict[str, Any], key: str, value: object) -> Iterator[tuple[str, str]]:
    """The ids that the tracking protocol has a place of their own for."""
    if key == "externalIds":
        yield from external_ids(found)
    elif isinstance(value, dict):
        yield from texts_of(DEVICE_ID, value.get("id"))


@lru_cache(maxsize=KEYS_REMEMBERED_MAX)
def _types_of(key: str, are_several: bool) -> tuple[str, ...]:  # noqa: FBT001, for the cache
    """What a value of this name may be; several are called so, too: `emails`."""
    name = key.lower()
    names_of_one = [name]
    if are_several and name.endswith("s"):
        names_of_one.append(name[:-1])
    known = (TYPES_BY_KEY.get(each, each) for each in names_of_one)
    return tuple(dict.fromkeys((*names_of_one, *known)))
