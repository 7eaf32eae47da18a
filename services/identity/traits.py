"""Traits: what is known about a person, by name; the latest word wins, whenever it arrives. Pure.

A value stays the JSON text that was sent. A trait that was taken back stays known as such, with
its time, so that an older value that arrives late does not bring it to life again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

TRAIT_NAME_CHARACTERS_MAX = 200

OPEN_DEAL_COUNT = "open_deal_count"
WON_DEAL_COUNT = "won_deal_count"
LOST_DEAL_COUNT = "lost_deal_count"
DEAL_STAGES = "deal_stages"
PRODUCTS_OWNED = "products_owned"
LAST_WON_TIME = "last_won_time"

# Names of what identity computes: nobody else can say such a trait.
_COMPUTED = re.compile(
    r"(open|won|lost)_deal_count|deal_stages|lifetime_value_[a-z]{3}_minor|last_won_time"
    r"|products_owned"
)

Traits = tuple[tuple[str, str | None], ...]

# A JSON value that PostgreSQL's jsonb takes as it is; everything else is looked at more closely.
_PLAIN = re.compile(rb'"[^"\\]*"|-?[0-9]{1,300}(\.[0-9]{1,300})?|true|false')
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str | int)
# `json.dumps` makes one for each text that it may leave as it is.
_QUOTING = json.JSONEncoder(ensure_ascii=False)


class Said(msgspec.Struct, frozen=True):
    """A trait's value (None: it has none any more), with when it was said, and by which fact."""

    value: str | None
    occur_time: datetime
    key: bytes

    @property
    def order(self) -> tuple[datetime, bytes]:
        """The greatest wins."""
        return self.occur_time, self.key


def later(one: Said | None, other: Said) -> Said:
    """Returns the one that was said later."""
    return other if one is None or other.order > one.order else one


def merged(atoms: Iterable[Mapping[str, Said]]) -> dict[str, Said]:
    """Returns what several atoms together say."""
    found: dict[str, Said] = {}
    for atom in atoms:
        for name, said in atom.items():
            found[name] = later(found.get(name), said)
    return found


def read_object(text: str | bytes) -> dict[str, bytes]:
    """Returns the top-level values of a JSON object as they are written; none of anything else."""
    if not text:
        return {}
    try:
        return {name: bytes(raw) for name, raw in _OBJECT.decode(text).items()}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}


def text_of(raw: bytes | None) -> str:
    """Returns a JSON text, or whole number, as plain text; empty for everything else."""
    if not raw:
        return ""
    try:
        return str(_TEXT.decode(raw))
    except (msgspec.MsgspecError, UnicodeError):
        return ""


def traits_of(values: Mapping[str, bytes]) -> Traits:
    """Returns the traits that JSON values say, sorted by name; null takes a trait back."""
    if not values:
        return ()
    return tuple(
        (name, None if raw == b"null" else _stored(raw))
        for name, raw in sorted(values.items())
        if _is_name(name)
    )


def traits_of_texts(texts: Mapping[str, str | None]) -> Traits:
    """Returns the traits that plain texts say; None takes a trait back."""
    return tuple(
        (name, None if text is None else quoted(text.replace("\0", "")))
        for name, text in sorted(texts.items())
        if _is_name(name)
    )


def quoted(text: str) -> str:
    """Returns a text as JSON."""
    return _QUOTING.encode(text)


def lifetime_value(currency: str) -> str:
    """Returns the name of the trait for what was won in a currency, in its minor units."""
    return f"lifetime_value_{currency.lower()}_minor"


def is_computed(name: str) -> bool:
    """Tells whether a trait is computed, and so not for others to say."""
    return _COMPUTED.fullmatch(name) is not None


def _is_name(name: str) -> bool:
    is_plain = bool(name) and "\0" not in name and len(name) <= TRAIT_NAME_CHARACTERS_MAX
    return is_plain and not is_computed(name)


def _stored(raw: bytes) -> str:
    """Returns JSON that can be stored, the same text wherever possible."""
    if _PLAIN.fullmatch(raw):
        return raw.decode()
    # A number beyond a double is kept as its text.
    parsed = json.loads(raw, parse_float=lambda text: _finite(text), parse_int=_whole)
    return json.dumps(_clean(parsed), ensure_ascii=False, separators=(",", ":"))


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _whole(text: str) -> int | str:
    return int(text) if len(text) <= 300 else text  # noqa: PLR2004, as in _PLAIN


def _clean(value: Any) -> Any:
    """Returns the value without U+0000 and halves of surrogate pairs, which nothing can store."""
    match value:
        case str():
            return value.replace("\0", "").encode("utf-8", "replace").decode()
        case list():
            return [_clean(each) for each in value]
        case dict():
            return {_clean(name): _clean(each) for name, each in value.items()}
        case _:
            return value
