"""What customer events say about consent: `context.consent.categoryPreferences`. Pure."""

from __future__ import annotations

import msgspec

CATEGORIES_GRANTED_MAX = 100
CATEGORY_CHARACTERS_MAX = 200


class _Consent(msgspec.Struct):
    """`context.consent`, as far as it matters."""

    categoryPreferences: dict[str, object] | None = None  # noqa: N815, so it is called outside


_CONSENT = msgspec.json.Decoder(_Consent)


def granted_categories(consent: bytes | None) -> tuple[str, ...] | None:
    """Returns the categories that are granted; all others are not. None: nothing is said.

    Only `true` is a grant. What is beyond the limits is not granted.
    """
    if consent is None:
        return None
    try:
        preferences = _CONSENT.decode(consent).categoryPreferences
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if preferences is None:
        return None
    granted = (name for name, value in preferences.items() if value is True and _is_category(name))
    return tuple(sorted(granted)[:CATEGORIES_GRANTED_MAX])


def _is_category(name: str) -> bool:
    return 0 < len(name) <= CATEGORY_CHARACTERS_MAX and "\0" not in name
