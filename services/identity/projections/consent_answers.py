"""Questions about consent: what it is and was, and what was said. Each answer shows one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asyncpg import Pool

from rapport.identity.v1 import consents_pb2 as pb
from rapport.identity.v1.events_pb2 import IdentifierNode
from services.identity.changes import name_of
from services.identity.consents import (
    FOR_EVER,
    OF_CATEGORIES,
    Purpose,
    Standing,
    Status,
    Word,
    standing,
)
from services.identity.facts import received_at
from services.identity.projections.consents import WORD_COLUMNS, word_in
from services.identity.projections.profiles import is_id, node_named
from services.identity.projections.purposes import active_purpose, load_rows, purpose_in
from services.identity.projections.rules_in_force import rules_of
from services.kernel.errors import NotFound
from services.kernel.lists.filter import Field, Kind
from services.kernel.lists.page_token import InvalidPageToken, PageToken, fingerprint_of
from services.kernel.lists.paging import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx

_MEMBERS = """
select node, type, profile from profiles.nodes
where workspace = $1 and profile = (
    select profile from profiles.nodes where workspace = $1 and node = $2
)
"""

_NOW = f"""
select c.node, {WORD_COLUMNS}
from profiles.consents c join profiles.consent_words w using (workspace, atom, occur_time, key)
where c.workspace = $1 and c.node = any($2::text[])
"""

_THEN = f"""
select c.node, {WORD_COLUMNS}
from profiles.consents c
cross join lateral (
    select * from profiles.consent_words
    where workspace = c.workspace and atom = c.atom and purpose_id = c.purpose_id
        and c.node = any(nodes) and occur_time <= $3
    order by occur_time desc, key desc
    limit 1
) w
where c.workspace = $1 and c.node = any($2::text[])
"""

# Somebody else's word under an identifier of the person can count only where it refuses.
_SAID = f"""
select {WORD_COLUMNS} from profiles.consent_words w
where w.workspace = $1
    and w.atom in (
        select atom from profiles.consents where workspace = $1 and node = any($2::text[])
    )
    and w.nodes && $2::text[] and (w.atom = any($2::text[]) or w.status <> {Status.GRANTED})
    and (w.occur_time, w.key) < ($3::timestamptz, $4::bytea)
order by w.occur_time desc, w.key desc
limit $5
"""

_CURSOR = (
    Field("occur_time", Kind.TIMESTAMP, nullable=False),
    Field("key", Kind.TEXT, nullable=False),
)
_BEFORE_ALL = (datetime(9999, 12, 31, tzinfo=UTC), b"\xff" * 25)


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a name means: the nodes by type, the named one first; of a profile if there is one."""

    types: dict[str, str]
    profile: str = ""

    @property
    def identifiers(self) -> tuple[IdentifierNode, ...]:
        """The nodes, the named one first."""
        return tuple(IdentifierNode(type=name, node=node) for node, name in self.types.items())


async def find_person(connection: Tx | Pool, workspace: str, name: str) -> Person:
    """Returns whom a name means; raises InvalidArgument, or NotFound where it means nobody.

    An identifier means somebody, even if nobody has told of it yet.
    """
    node = node_named(await rules_of(connection, workspace), workspace, name)
    rows = await connection.fetch(_MEMBERS, workspace, node)
    types = {row["node"]: row["type"] for row in rows}
    if node in types:
        return Person({node: types.pop(node), **dict(sorted(types.items()))}, rows[0]["profile"])
    if is_id(name):
        raise NotFound(name)
    return Person({node: name.partition("/")[2].partition(":")[0]})


async def consents_of(
    pool: Pool, workspace: str, name: str, moment: datetime | None, purpose: str = ""
) -> tuple[Person, list[tuple[Purpose, Standing]]]:
    """Returns a person's consent, as it is or was, to one purpose or to all that are active.

    Raises InvalidArgument, NotFound, or FailedPrecondition when the purpose is archived.
    """
    async with one_moment(pool) as connection:
        person = await find_person(connection, workspace, name)
        if purpose:
            purposes = [await active_purpose(connection, workspace, purpose)]
        else:
            rows = await load_rows(connection, workspace)
            purposes = [purpose_in(row) for row in rows if not row.state.is_archived]
        asked: list[object] = [workspace, list(person.types)]
        if moment is None:
            found = await connection.fetch(_NOW, *asked)
        else:
            found = await connection.fetch(_THEN, *asked, moment)
    words = [(row["node"], word_in(row)) for row in found]
    return person, [(each, standing(person.types, words, each)) for each in purposes]


async def list_consent_words(
    pool: Pool, workspace: str, request: pb.ListConsentWordsRequest
) -> pb.ListConsentWordsResponse:
    """Returns a page of what was said about a person's consent, the last word first."""
    fingerprint = fingerprint_of("ListConsentWords", workspace, request.name)
    before: tuple[object, ...] = _BEFORE_ALL
    if request.page_token:
        token = PageToken.decoded(request.page_token, fingerprint, _CURSOR)
        before = (token.values[0], _key(token.values[1]))
    size = min(request.page_size, PAGE_SIZE_MAX) or PAGE_SIZE_DEFAULT
    async with one_moment(pool) as connection:
        person = await find_person(connection, workspace, request.name)
        nodes = list(person.types)
        rows = await connection.fetch(_SAID, workspace, nodes, *before, size + 1)
    words = [word_in(row) for row in rows[:size]]
    response = pb.ListConsentWordsResponse(words=[word_of(word) for word in words])
    if len(rows) > size:
        values = (words[-1].occur_time, words[-1].key.hex())
        token = PageToken(fingerprint, positions=(), is_moved=False, values=values)
        response.next_page_token = token.encoded(_CURSOR)
    return response


def consent_of(purpose: Purpose, stands: Standing, moment: datetime) -> pb.Consent:
    """Returns a consent as the API shows it."""
    consent = pb.Consent(
        purpose=f"purposes/{purpose.purpose_id}",
        status=pb.ConsentStatus.ValueType(stands.at(moment)),
        lawful_basis=pb.LawfulBasis.ValueType(purpose.basis),
    )
    word = stands.word
    if word is not None:
        consent.occur_time.CopyFrom(timestamp_of(word.occur_time))
        consent.source = word.source
        consent.identifier_type = word.types[word.nodes.index(stands.node)]
    if stands.expire_time != FOR_EVER:
        consent.expire_time.CopyFrom(timestamp_of(stands.expire_time))
    return consent


def word_of(word: Word) -> pb.ConsentWord:
    """Returns a word as the API shows it."""
    said = pb.ConsentWord(
        granted_categories=word.granted,
        occur_time=timestamp_of(word.occur_time),
        receive_time=timestamp_of(received_at(word.key)),
        source=word.source,
        actor=word.actor,
        identifier_types=word.types,
    )
    if word.purpose_id != OF_CATEGORIES:
        said.purpose = f"purposes/{word.purpose_id}"
        said.status = pb.ConsentStatus.ValueType(word.status)
    if word.expire_time is not None:
        said.expire_time.CopyFrom(timestamp_of(word.expire_time))
    return said


def profile_name(person: Person) -> str:
    """Returns the resource name of a person's profile; empty without one."""
    return name_of(person.profile) if person.profile else ""


def _key(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise InvalidPageToken("this is no page token of ours") from None
