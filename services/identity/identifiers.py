"""Identifiers: typed values that point to a person, and the nodes they are in the graph.

Two spellings of one value are one identifier, and a value that everybody has ("null", "guest",
zeros) is none. A node is named by a hash of workspace, type and normalised value: the same in
every rebuild, different in every workspace, and no text that a log or a feed must not carry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from services.identity.rules import (
    BLOCKED_VALUES,
    CONTACT_ID,
    EMAIL,
    PHONE,
    Rules,
)

GROUP_ID = "group_id"

NODE_BYTES = 16
PHONE_DIGITS_MIN = 5
WORKSPACE_KEYS_MAX = 10_000
IDENTIFIERS_REMEMBERED_MAX = 50_000

_ONLY_ZEROS = re.compile(r"[+\-0]+")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_NO_DIGIT = re.compile(r"[^0-9]+", re.ASCII)


class Identifier(NamedTuple):
    """A live identifier: its type, its normalised value, and the node it is.

    The strongest of several is the least.
    """

    rank: int
    node: str
    type: str
    value: str


class Group(NamedTuple):
    """A group of people as sources call it, and the account that it is."""

    account: str
    group_id: str

    @property
    def name(self) -> str:
        """The account's resource name."""
        return account_name(self.account)


# The same people come again and again.
@lru_cache(maxsize=IDENTIFIERS_REMEMBERED_MAX)
def identifier(rules: Rules, workspace: str, type_name: str, raw: str) -> Identifier | None:
    """Returns the identifier a raw value stands for, or None when it points to nobody."""
    known = rules.named(type_name)
    if known is None:
        return None
    value = _NORMALISED.get(type_name, _as_given)(raw.replace("\0", "").strip())
    if value is None:
        return None
    # What the CRM itself numbers is never junk, whatever it looks like.
    if type_name != CONTACT_ID and is_blocked(value):
        return None
    node = node_of(workspace, type_name, value)
    return Identifier(known.rank, node, type_name, value)


def account_name(account: str) -> str:
    """Returns the resource name of an account."""
    return f"accounts/{account}"


# And the same groups.
@lru_cache(maxsize=IDENTIFIERS_REMEMBERED_MAX)
def group(workspace: str, raw: str) -> Group | None:
    """Returns the group that a raw id stands for, or None when it is nobody's."""
    value = raw.replace("\0", "").strip()
    if not value or is_blocked(value):
        return None
    return Group(node_of(workspace, GROUP_ID, value), value)


def is_blocked(value: str) -> bool:
    """Tells whether a value is one that everybody has."""
    return value.casefold() in BLOCKED_VALUES or _ONLY_ZEROS.fullmatch(value) is not None


def node_of(workspace: str, type_name: str, value: str) -> str:
    """Names the node of an identifier in a workspace: 32 hexadecimal digits."""
    digest = hashlib.blake2b(
        f"{type_name}|{value}".encode(), digest_size=NODE_BYTES, key=_workspace_key(workspace)
    )
    return digest.hexdigest()


@lru_cache(maxsize=WORKSPACE_KEYS_MAX)
def _workspace_key(workspace: str) -> bytes:
    return hashlib.blake2b(workspace.encode(), person=b"rapport/identity").digest()


def _as_given(value: str) -> str | None:
    return value or None


def _email(value: str) -> str | None:
    lowered = value.lower()
    return lowered if _EMAIL.fullmatch(lowered) else None


def _phone(value: str) -> str | None:
    digits = _NO_DIGIT.sub("", value)
    if len(digits) < PHONE_DIGITS_MIN:
        return None
    return f"+{digits}" if value.startswith("+") else digits


_NORMALISED: dict[str, Callable[[str], str | None]] = {
    EMAIL: _email,
    PHONE: _phone,
}
