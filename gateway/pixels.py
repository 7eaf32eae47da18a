"""Customer events that come in the query of an image: from e-mails, and pages without JavaScript.

As `data=<base64 of JSON>`, the way Segment's pixel has it, or as plain parameters, the way
RudderStack's has it: a dot leads into an object (`properties.sku=X1`). Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Final

from gateway.tracking import read_document, refusal_of_body
from gateway.tracking_items import Document

GIF: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent picture of one by one pixel."""

DEPTH_MAX: Final = 10

_DATA: Final = "data"
_KNOWN: Final = frozenset(
    """accountId anonymousId category channel context event groupId integrations messageId name
    originalTimestamp previousId properties sentAt timestamp traits type userId version
    writeKey""".split()  # noqa: SIM905, a list of forty lines says no more
)
# What nobody has a name for describes the person or group in these calls, else what was done.
_ABOUT_TRAITS: Final = frozenset({"identify", "group", "account"})


def read_query(call: str, pairs: Iterable[tuple[str, str]]) -> Document:
    """Reads a query as the body of a call; raises InvalidArgument when its data is none."""
    said = dict(pairs)
    document: dict[str, Any] = dict(_data(said.pop(_DATA))) if said.get(_DATA) else {}
    others = "traits" if call in _ABOUT_TRAITS else "properties"
    for name, text in said.items():
        path = name.split(".")
        _put(document, path if path[0] in _KNOWN else [others, name], text)
    return document


def _data(text: str) -> Document:
    """Reads base64 in either alphabet, padded or not; a plus may have become a blank."""
    packed = text.strip().replace(" ", "+").replace("+", "-").replace("/", "_").rstrip("=")
    try:
        body = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise refusal_of_body("invalid_data", "data must be JSON in base64") from error
    return read_document(body)


def _put(document: dict[str, Any], path: list[str], text: str) -> None:
    """Puts a text where a path leads; one that is said already, or leads nowhere, stays away."""
    place = document
    for step in path[:-1][:DEPTH_MAX]:
        inner = place.setdefault(step, {})
        if not isinstance(inner, dict):
            return
        place = inner
    place.setdefault(path[-1], text)
