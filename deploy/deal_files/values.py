"""Cells as values: times, names of what is elsewhere, contacts. Pure.

A ValueError says what to do.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from datetime import UTC, datetime
from typing import Final

from rapport.deals.v1.values_pb2 import DealContact, ForecastCategory

ID_LENGTH_MAX: Final = 63
_ID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_OTHERS: Final = re.compile(r"[^a-z0-9]+")
_MILLISECONDS: Final = re.compile(r"[0-9]{12,13}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CATEGORY: Final = "FORECAST_CATEGORY_"


def id_of(text: str) -> str:
    """`Acme Corp.` → `acme-corp`; what is an id already stays as it is.

    Of a text without any letter of an id, such as `株式会社`, it is made of its checksum.
    """
    if _ID.fullmatch(text):
        return text
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    found = _OTHERS.sub("-", letters).strip("-")[:ID_LENGTH_MAX].rstrip("-")
    return found or f"x-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def name_of(collection: str, text: str) -> str:
    """`members/kim` for `Kim`; a resource name stays as it is, and nothing stays nothing."""
    text = text.strip()
    if not text:
        return ""
    return f"{collection}/{id_of(text.removeprefix(f'{collection}/'))}"


def moment_of(text: str, date_format: str = "") -> datetime:
    """A moment: ISO 8601, milliseconds since 1970, or as `date_format` says; UTC unless it says."""
    text = text.strip()
    try:
        if date_format:
            found = datetime.strptime(text, date_format)  # noqa: DTZ007 -- the next line says it
        elif _MILLISECONDS.fullmatch(text):
            found = datetime.fromtimestamp(int(text) / 1000, UTC)
        else:
            found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        wanted = date_format or "2026-03-01: say how it is written, such as DATES=%d.%m.%Y"
        raise ValueError(f"{text!r} is no time such as {wanted}") from error


def is_day(text: str) -> bool:
    """Whether a cell says the day only."""
    return bool(_DAY.fullmatch(text.strip()))


def contacts_of(text: str) -> list[DealContact]:
    """`{"contacts/ada": "decision maker"}`, or names with semicolons between them."""
    if text.lstrip().startswith("{"):
        pairs = pairs_of(text).items()
        return [DealContact(contact=name_of("contacts", name), role=role) for name, role in pairs]
    return [
        DealContact(contact=name_of("contacts", name)) for name in text.split(";") if name.strip()
    ]


def pairs_of(text: str) -> dict[str, str]:
    """A JSON object of texts."""
    try:
        found = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{text[:40]!r} is no JSON object of texts") from error
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ValueError(f"{text[:40]!r} is no JSON object of texts")
    return found


def category_of(text: str) -> ForecastCategory.ValueType:
    """`COMMIT`, `Best case`; unspecified for nothing."""
    name = _OTHERS.sub("_", text.strip().lower()).upper() or "UNSPECIFIED"
    try:
        return ForecastCategory.Value(f"{_CATEGORY}{name}")
    except ValueError as error:
        known = ", ".join(each.removeprefix(_CATEGORY) for each in ForecastCategory.keys()[1:])
        raise ValueError(f"{text!r} is no forecast category: {known}") from error


def whole_of(text: str) -> int | None:
    """A whole number; None for nothing."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no whole number") from error
