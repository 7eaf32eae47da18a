"""Ids of a person that a customer event carries in its context. Pure.

`context.externalIds` are ids that other systems gave, each with its type; `context.device.id` is
that of the device. What does not have all that an id needs, or is the id of an account, is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from services.identity.rules import CONTACT_ID, DEVICE_ID
from services.identity.traits import read_object, text_of

EXTERNAL_IDS_MAX = 20

_DECODER = msgspec.json.Decoder()


def sent_ids(context: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Yields ids, by type and value, from a context's top-level values."""
    yield DEVICE_ID, text_of(read_object(context.get("device", b"")).get("id"))
    try:
        listed: Any = _DECODER.decode(context.get("externalIds", b"[]"))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return
    for each in listed[:EXTERNAL_IDS_MAX] if isinstance(listed, list) else ():
        match each:
            case {
                "id": str() | int() as given,
                "type": str() as type_name,
                "collection": "users",
                "encoding": "none",
            } if type_name.lower() != CONTACT_ID and not isinstance(given, bool):
                # A record of the CRM is for the CRM to name.
                yield type_name.lower(), str(given)
