"""Identifiers: typed values that point to a person, and the nodes they are in the graph.

Two spellings of one value are one identifier, and a value that everybody has ("null", "guest",
zeros) is none. A node is named by a hash of workspace, type and normalised value: the same in
every rebuild, different in every workspace, and no text that a log or a feed must not carry.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import idna
import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat

from services.identity.rules import (
    BLOCKED_VALUES,
    CONTACT_ID,
    EMAIL,
    PHONE,
    IdentifierType,
    Rules,
)

GROUP_ID = "group_id"

NODE_BYTES = 16
PHONE_DIGITS_MIN = 5
# A longer value is what somebody put into the wrong field.
VALUE_CHARACTERS_MAX = 1_000
WORKSPACE_KEYS_MAX = 10_000
IDENTIFIERS_REMEMBERED_MAX = 50_000
BLOCKERS_REMEMBERED_MAX = 1_000

_ONLY_ZEROS = re.compile(r"[+\-0]+")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_NO_DIGIT = re.compile(r"[^0-9]+", re.ASCII)
_WHOLE = re.compile(r"(-?[0-9]+)\.0+", re.ASCII)


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
    if known is None or len(raw) > VALUE_CHARACTERS_MAX:
        return None
    given = raw.replace("\0", "").strip()
    if known.is_numeric and (whole := _WHOLE.fullmatch(given)):
        given = whole[1]
    value = _NORMALISED.get(type_name, _as_given)(rules, given)
    if value is None:
        return None
    # What the CRM itself numbers is never junk, whatever it looks like.
    if type_name != CONTACT_ID and (is_blocked(value) or _is_blocked_by(known, value)):
        return None
    return Identifier(known.rank, node_of(workspace, type_name, value), type_name, value)


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


def _is_blocked_by(known: IdentifierType, value: str) -> bool:
    """Tells whether a workspace blocks a value of a type."""
    blocks = known.blocked_values or known.blocked_patterns
    return bool(blocks) and _blocker(known)(value.casefold())


@lru_cache(maxsize=BLOCKERS_REMEMBERED_MAX)
def _blocker(known: IdentifierType) -> Callable[[str], bool]:
    """Returns what tells whether a workspace blocks a casefolded value of a type."""
    values = {value.casefold() for value in known.blocked_values}
    # Only the stars and question marks of a pattern mean something else than they are.
    plain = (pattern.casefold().replace("[", "[[]") for pattern in known.blocked_patterns)
    patterns = re.compile("|".join(map(fnmatch.translate, plain)) or r"(?!)")
    return lambda value: value in values or patterns.match(value) is not None


def node_of(workspace: str, type_name: str, value: str) -> str:
    """Names the node of an identifier in a workspace: 32 hexadecimal digits."""
    digest = _keyed(workspace).copy()
    digest.update(f"{type_name}|{value}".encode())
    return digest.hexdigest()


@lru_cache(maxsize=WORKSPACE_KEYS_MAX)
def _keyed(workspace: str) -> hashlib.blake2b:
    """Returns the beginning of all hashes of a workspace, which has taken in its key."""
    key = hashlib.blake2b(workspace.encode(), person=b"rapport/identity").digest()
    return hashlib.blake2b(digest_size=NODE_BYTES, key=key)


def _as_given(_: Rules, value: str) -> str | None:
    return value or None


def _email(_: Rules, value: str) -> str | None:
    lowered = value.lower()
    if not _EMAIL.fullmatch(lowered):
        return None
    name, _at, domain = lowered.rpartition("@")
    if domain.isascii():
        return lowered
    try:
        return f"{name}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError:
        return lowered


def _phone(rules: Rules, value: str) -> str | None:
    """Returns a number in E.164; one that is none, or of no known country, stays its digits."""
    digits = _NO_DIGIT.sub("", value)
    if len(digits) < PHONE_DIGITS_MIN:
        return None
    plain = f"+{digits}" if value.startswith("+") else digits
    try:
        read = phonenumbers.parse(value, rules.default_region or None)
    except NumberParseException:
        return plain
    if not read.national_number:
        return None
    is_number = phonenumbers.is_possible_number(read)
    return phonenumbers.format_number(read, PhoneNumberFormat.E164) if is_number else plain


def national_number(rules: Rules, value: str) -> str | None:
    """Returns how a phone number of the workspace's own region is written within it, if it is one.

    A system that knows of no region has it as it was typed.
    """
    if not rules.default_region or not value.startswith("+"):
        return None
    try:
        read = phonenumbers.parse(value, None)
    except NumberParseException:
        return None
    if read.country_code != phonenumbers.country_code_for_region(rules.default_region):
        return None
    return phonenumbers.national_significant_number(read)


_NORMALISED: dict[str, Callable[[Rules, str], str | None]] = {EMAIL: _email, PHONE: _phone}
