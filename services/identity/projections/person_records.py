"""What identity holds about a person: the rows of all that their profile is made of, and its facts.

The rows are of one moment.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncpg import Pool

from rapport.common.v1.subjects_pb2 import SubjectRecord
from services.identity.changes import name_of
from services.identity.identifiers import Identifier
from services.identity.projections.consent_answers import Person, profile_name
from services.identity.verdicts import pair_id
from services.kernel.erasing.exports import streams_told
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import EventTypes, timestamp_of

ROWS_PER_PART = 500

# What is held of nodes ($2) or of a profile ($3): the system, what a row is, and the rows.
_HELD = (
    ("profiles", "Profile", "profiles.profiles where profile = $3"),
    ("profiles", "Identifier", "profiles.nodes where node = any($2)"),
    ("profiles", "Trait", "profiles.traits where node = any($2)"),
    ("profiles", "Atom", "profiles.atoms where node = any($2)"),
    ("profiles", "Assertion", "profiles.assertions where record = any($2)"),
    (
        "profiles",
        "Connection",
        "profiles.edges where weak = any($2) or is_rejected and strong = any($2)",
    ),
    ("verdicts", "Verdict", "profiles.verdicts where weak = any($2) or strong = any($2)"),
    ("flags", "IdentifierFlag", "profiles.flags where node = any($2)"),
    (
        "suggestions",
        "MatchSuggestion",
        "match_suggestions.suggestions where one_node = any($2) or other_node = any($2)",
    ),
    (
        "consents",
        "ConsentWord",
        """profiles.consent_words where nodes && $2 and atom in (
            select atom from profiles.consents where workspace = $1 and node = any($2)
        )""",
    ),
    ("consents", "Consent", "profiles.consent_statuses where profile = $3"),
    ("accounts", "Membership", "profiles.memberships where profile = $3"),
    ("accounts", "AccountWord", "profiles.account_words where node = any($2)"),
    ("deals", "DealWord", "profiles.deal_words where node = any($2)"),
    ("timeline", "Activity", "profiles.timeline where node = any($2)"),
)

# What is kept in short beside these is in other fields, too.
_ROWS = """
select to_jsonb(held) - '{{workspace,said,evidence}}'::text[] as content
from (select * from {}) held
where workspace = $1 and $2::text[] is not null and $3::text is not null
"""

_KNOWN_BY = """
select type, value from profiles.nodes where workspace = $1 and node = any($2::text[])
"""

_JUDGED = """
select weak, strong from profiles.verdicts
where workspace = $1 and (weak = any($2::text[]) or strong = any($2::text[]))
"""

_SUGGESTED = """
select suggestion_id from match_suggestions.suggestions
where workspace = $1 and (one_node = any($2::text[]) or other_node = any($2::text[]))
"""


async def person_records(
    pool: Pool, event_types: EventTypes, workspace: str, person: Person
) -> AsyncIterator[Sequence[SubjectRecord]]:
    """Yields everything that is held about a person, in parts."""
    nodes, resource = list(person.types), profile_name(person)
    async with one_moment(pool) as connection:
        judged = await connection.fetch(_JUDGED, workspace, nodes)
        suggested = await connection.fetch(_SUGGESTED, workspace, nodes)
        for system, kind, rows in _HELD:
            statement, part = _ROWS.format(rows), []
            asked = (workspace, nodes, person.profile)
            async for row in connection.cursor(statement, *asked, prefetch=ROWS_PER_PART):
                part.append(_record(system, kind, resource, row["content"]))
                if len(part) == ROWS_PER_PART:
                    yield part
                    part = []
            yield part
    streams = {f"profile-{node}": name_of(node) for node in nodes}
    streams |= {f"consent-{node}": resource for node in nodes}
    streams |= {f"flag-{node}": resource for node in nodes}
    for row in judged:
        stream = f"verdict-{pair_id(_named(row['strong']), _named(row['weak']))}"
        streams[stream] = resource
    for row in suggested:
        named = row["suggestion_id"]
        streams[f"matchSuggestion-{named}"] = f"matchSuggestions/{named}"
    async for records in streams_told(pool, event_types, workspace, streams.items()):
        yield records


async def identifiers_of(
    pool: Pool, workspace: str, person: Person, name: str
) -> list[tuple[str, str]]:
    """Returns what a person is known by, and what was asked for, by type and value."""
    rows = await pool.fetch(_KNOWN_BY, workspace, list(person.types))
    known = {(row["type"], row["value"]) for row in rows}
    type_name, _, value = name.partition("/")[2].partition(":")
    if value:
        known.add((type_name, value))
    return sorted(known)


def profiles_of(person: Person) -> list[tuple[str, str]]:
    """Returns all ids by which a person's profile is and was known: each is that of a node."""
    return [("profile", node) for node in person.types]


def _named(node: str) -> Identifier:
    """Returns an identifier of which nothing but its node is asked."""
    return Identifier(0, node, "", "")


def _record(system: str, kind: str, resource: str, content: str) -> SubjectRecord:
    held = json.loads(content)
    record = SubjectRecord(system=system, resource=resource, kind=kind, content=content)
    for field, name in ((record.occur_time, "occur_time"), (record.record_time, "receive_time")):
        moment = _moment(held, name)
        if moment is not None:
            field.CopyFrom(timestamp_of(moment))
    return record


def _moment(held: Mapping[str, Any], name: str) -> datetime | None:
    text = held.get(name)
    return datetime.fromisoformat(text) if isinstance(text, str) else None
