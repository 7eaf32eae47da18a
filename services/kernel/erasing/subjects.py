"""Subjects: the person an erasure or an export is about, and how a fact that names one is known.

Every service compares the same form of an identifier, however it is spelled. Registers keep keyed
hashes of these forms, the same in every service, so that an erasure can be repeated when nobody
knows the values any more. Pure.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from uuid import UUID

HASH_DIGITS = 32
HASHES_REMEMBERED_MAX = 100_000

_NO_DIGIT = re.compile(r"[^0-9]+", re.ASCII)


class FactKey(NamedTuple):
    """The place of a fact among all facts of the platform: when it was received, and its id."""

    receive_time: datetime
    event_id: UUID


def normal_form(type_name: str, raw: str) -> str:
    """What all spellings of an identifier have in common; empty for one that is none."""
    text = raw.replace("\0", "").strip()
    if type_name == "email":
        name, at, domain = text.lower().rpartition("@")
        return f"{name}{at}{_ascii_domain(domain)}"
    if type_name == "phone":
        # With or without a plus, or the zeros that stand for it.
        return _NO_DIGIT.sub("", text).lstrip("0")
    return text


@lru_cache(maxsize=HASHES_REMEMBERED_MAX)
def hash_of(key: bytes, type_name: str, form: str) -> str:
    """The hash of an identifier's normal form under the key of a workspace."""
    return hmac.digest(key, f"{type_name}/{form}".encode(), "sha256").hex()[:HASH_DIGITS]


def hash_key_of(derive_key: Callable[[str], bytes], workspace: str) -> bytes:
    """The key of a workspace's hashes: the same in every service of a platform."""
    return derive_key(f"erased/{workspace}")


@dataclass(frozen=True, slots=True)
class Subject:
    """A person of a workspace, by identifiers or, where nobody knows these any more, by hashes.

    `forms` are normal forms by type; whatever has one of them or one of the hashes is the person's.
    """

    workspace: str
    hash_key: bytes = field(repr=False)
    forms: frozenset[tuple[str, str]] = field(repr=False)
    hashes: frozenset[str]

    @classmethod
    def of(
        cls,
        workspace: str,
        hash_key: bytes,
        identifiers: Iterable[tuple[str, str]],
        hashes: Iterable[str] = (),
    ) -> Subject:
        """The person with these identifiers, by type and in any spelling."""
        found = {(name, normal_form(name, raw)) for name, raw in identifiers}
        forms = frozenset(known for known in found if known[1])
        own = {hash_of(hash_key, name, form) for name, form in forms}
        return cls(workspace, hash_key, forms, frozenset({*own, *hashes}))

    @property
    def is_by_value(self) -> bool:
        """Whether every hash is that of a known form, so that an index by value finds all."""
        return len(self.hashes) == len(self.forms)

    def forms_of(self, type_name: str) -> list[str]:
        """The known normal forms of one type, in order."""
        return sorted(form for name, form in self.forms if name == type_name)

    def is_named(self, identifiers: Iterable[tuple[str, str]]) -> bool:
        """Whether any of these identifiers, by type and in any spelling, is the person's."""
        return any(self.has(name, raw) for name, raw in identifiers if raw)

    def has(self, type_name: str, raw: str) -> bool:
        """Whether an identifier is the person's."""
        form = normal_form(type_name, raw)
        if (type_name, form) in self.forms:
            return True
        # To hash is only worth it where there are hashes without values.
        return (
            not self.is_by_value
            and form != ""
            and hash_of(self.hash_key, type_name, form) in self.hashes
        )


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure: whose facts go, up to which one, and what these people's nodes are.

    One that anonymises leaves what is no person's, if the service can tell. One by age leaves the
    bytes to the next compaction.
    """

    name: str
    subject: Subject
    key: FactKey
    nodes: tuple[str, ...] = ()
    anonymises: bool = False
    is_by_age: bool = False

    @property
    def workspace(self) -> str:
        """The workspace it is confined to."""
        return self.subject.workspace

    def covers(self, receive_time: datetime, event_id: UUID) -> bool:
        """Whether a fact came early enough to go."""
        return (receive_time, event_id) <= self.key


def _ascii_domain(domain: str) -> str:
    """A domain as it is looked up, so that both ways to write it are one."""
    if domain.isascii():
        return domain
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain
