"""Which identifiers a customer event names a person by, wherever in it. Pure.

Wider than what identity joins profiles by: whoever is erased must be found wherever a source may
have put them. So what a value is called says what it may be, however deep it lies, and a custom
type of identifier needs no configuration here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.events.schema import read_json
from services.events.suppressed import TYPES_BY_KEY, external_ids, identifiers_of, texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from services.events.schema import Opened
    from services.kernel.erasing.subjects import Subject

DEVICE_ID = "device_id"


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
    return subject.is_named(fields) or subject.is_named(_named_among(opened_again(recorded)))


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


def _named_among(objects: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Every value under its name, however deep inside, and under what the name stands for."""
    waiting: list[Any] = list(objects)
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += [each for each in found if isinstance(each, dict | list)]
            continue
        for key, value in found.items():
            if isinstance(value, dict | list):
                waiting.append(value)
                if key == "device" and isinstance(value, dict):
                    yield from texts_of(DEVICE_ID, value.get("id"))
                elif key == "externalIds":
                    yield from external_ids(found)
                continue
            name = key.lower()
            known = TYPES_BY_KEY.get(name)
            if known is not None:
                yield from texts_of(known, value)
            if known != name:
                yield from texts_of(name, value)
