"""The timeline: every activity, under the atom it belongs to for ever.

Profiles merge and split without a row of it being touched. It also knows which facts were seen:
one that comes again adds no row, and so has no second effect anywhere. And it keeps what a fact
said, so that others can be taken back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from asyncpg import Pool, Record, UniqueViolationError

from rapport.identity.v1.service_pb2 import (
    ListTimelineRequest,
    ListTimelineResponse,
    TimelineEntry,
    TimelineKind,
)
from services.identity.erasures import Place
from services.identity.facts import Fact, key_of, resource_of
from services.identity.projections.timeline_rows import COLUMNS, encoded, row_of
from services.identity.retraction import Kept, Lost, Message
from services.kernel.lists.filter import Arguments, Field, Fields, Kind
from services.kernel.lists.page_token import InvalidPageToken, PageToken, fingerprint_of
from services.kernel.lists.paging import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from services.kernel.log.copying import copy_encoded
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.log.sql import Tx, columns

TABLES = f"""
create table {{schema}}.timeline (
    workspace text not null,
    node text collate "C" not null,
    occur_time timestamptz not null,
    receive_time timestamptz not null,
    activity_id uuid not null,
    kind smallint not null,
    is_imported boolean not null,
    activity text not null,
    source text not null,
    resource text not null,
    account text,
    details text not null,
    said bytea,
    primary key (workspace, node, occur_time, activity_id)
);
create index timeline_imported on {{schema}}.timeline (workspace, resource) where is_imported;
create index timeline_of_contacts on {{schema}}.timeline (workspace)
    where kind = {TimelineKind.TIMELINE_KIND_CONTACT} and said is not null;
"""

FACTS_PER_FETCH = 5_000

_ADD = f"""
insert into {{schema}}.timeline ({", ".join(COLUMNS)})
select * from unnest($1::text[], $2::smallint[], $3::boolean[], $4::text[], $5::text[],
                     $6::text[], $7::timestamptz[], $8::timestamptz[], $9::uuid[], $10::text[],
                     $11::text[], $12::text[], $13::bytea[])
on conflict do nothing
returning activity_id
"""

_REMOVE = """
delete from {schema}.timeline t
using unnest($1::text[], $2::text[]) gone (workspace, resource)
where t.workspace = gone.workspace and t.resource = gone.resource and t.is_imported
returning t.workspace, t.resource, t.activity_id, t.activity, t.account,
    t.node, t.receive_time, t.occur_time, t.said
"""

_FACTS = """
select t.node, t.receive_time, t.activity_id, t.occur_time, t.said
from unnest($1::text[], $2::text[]) asked (workspace, node)
join {schema}.timeline t using (workspace, node)
"""

# What a record asserted before is no edge any more, but it still names somebody.
_NAMING = f"""
with asked as (select * from unnest($1::text[], $2::text[]) asked (workspace, node))
select workspace, node from asked
union
select e.workspace, e.strong
from asked join {{schema}}.edges e on e.workspace = asked.workspace and e.weak = asked.node
union
select t.workspace, t.node
from {{schema}}.timeline t
where t.kind = {TimelineKind.TIMELINE_KIND_CONTACT} and t.said is not null
    and t.workspace = any($1::text[]) and exists (
        select from asked
        where asked.workspace = t.workspace
            and position(convert_to(asked.node, 'UTF8') in t.said) > 0
    )
"""

# No index leads there: it would cost at each event, and this is asked when somebody is erased.
_HAVING = """
select distinct workspace, node from {schema}.timeline
where workspace = $1 and activity_id = any($2::uuid[])
"""

_STORED = """
select t.workspace, t.node, t.receive_time, t.activity_id, t.occur_time, t.said,
    t.activity, t.account, t.kind, t.resource
from unnest($1::text[], $2::text[]) asked (workspace, node)
join {schema}.timeline t using (workspace, node)
"""

_FORGET = """
delete from {schema}.timeline t
using unnest($1::text[], $2::text[], $3::timestamptz[], $4::uuid[])
    gone (workspace, node, occur_time, activity_id)
where (t.workspace, t.node, t.occur_time, t.activity_id)
    = (gone.workspace, gone.node, gone.occur_time, gone.activity_id)
"""

# Each atom's newest rows are read along the key; only these few are sorted once more.
_NEWEST = """
select t.*
from profiles.nodes n
cross join lateral (
    select {shown}
    from profiles.timeline
    where workspace = n.workspace and node = n.node
        and (occur_time, activity_id) < ($3::timestamptz, $4::uuid) and {wanted}
    order by occur_time desc, activity_id desc
    limit $5
) t
where n.workspace = $1 and n.profile = $2
order by occur_time desc, activity_id desc
limit $5
"""

SHOWN = "occur_time, receive_time, activity_id, kind, activity, source, resource, account, details"

FIELDS = Fields(
    {
        "kind": Field("kind", Kind.ENUM, values=dict(TimelineKind.items()), nullable=False),
        "activity": Field("activity", Kind.TEXT, nullable=False),
        "source": Field("source", Kind.TEXT, nullable=False),
        "resource": Field("resource", Kind.TEXT, nullable=False),
        "account": Field("account", Kind.TEXT),
        "occur_time": Field("occur_time", Kind.TIMESTAMP, nullable=False),
        "receive_time": Field("receive_time", Kind.TIMESTAMP, nullable=False),
    },
    searched=("activity",),
)

_CURSOR = (
    Field("occur_time", Kind.TIMESTAMP, nullable=False),
    Field("activity_id", Kind.TEXT, nullable=False),
)
_BEFORE_ALL = (datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))


class Stored(NamedTuple):
    """An activity as it is stored, with what its fact says."""

    workspace: str
    activity_id: UUID
    activity: str
    account: str
    kind: int
    resource: str
    fact: Kept

    def lost(self, event: Recorded) -> Lost:
        """What it is after an event has taken it back."""
        return Lost(event, self.fact, self.activity_id, self.activity, self.account)


async def add_activities(tx: Tx, schema: str, facts: Sequence[Fact]) -> list[Fact]:
    """Adds the facts' activities; returns the facts that are new, in their order."""
    by_key = {fact.key: fact for fact in facts}
    if not by_key:
        return []
    try:
        # The checkpoint gives each fact once, so COPY, which is far cheaper, nearly always serves.
        async with tx.transaction():
            await copy_encoded(tx, schema, "timeline", COLUMNS, encoded(by_key.values()))
        return list(by_key.values())
    except UniqueViolationError:
        rows = [row_of(fact) for fact in by_key.values()]
        added = await tx.fetch(_ADD.format(schema=schema), *columns(rows))
        fresh = {record[0] for record in added}
        return [fact for fact in by_key.values() if fact.activity_id in fresh]


async def remove_activities(
    tx: Tx, schema: str, retractions: Mapping[Message, Recorded]
) -> list[Lost]:
    """Removes the activities of messages that are retracted, and returns their facts."""
    asked = {
        (workspace, resource_of(message)): event
        for (workspace, message), event in retractions.items()
    }
    if not asked:
        return []
    rows = await tx.fetch(_REMOVE.format(schema=schema), *columns(sorted(asked)))
    return [
        Lost(
            event=asked[row["workspace"], row["resource"]],
            fact=_kept(row),
            activity_id=row["activity_id"],
            activity=row["activity"],
            account=row["account"] or "",
        )
        for row in sorted(rows, key=lambda row: row["activity_id"])
    ]


async def facts_of(tx: Tx, schema: str, atoms: Sequence[tuple[str, str]]) -> AsyncIterator[Kept]:
    """Yields the facts of atoms, by workspace and node, as they are kept."""
    statement = _FACTS.format(schema=schema)
    async for row in tx.cursor(statement, *columns(atoms), prefetch=FACTS_PER_FETCH):
        yield _kept(row)


async def atoms_naming(tx: Tx, schema: str, nodes: Iterable[Place]) -> set[Place]:
    """Returns the atoms that may have facts which name one of some nodes."""
    asked = sorted(nodes)
    if not asked:
        return set()
    rows = await tx.fetch(_NAMING.format(schema=schema), *columns(asked))
    return {(workspace, node) for workspace, node in rows}


async def atoms_having(tx: Tx, schema: str, activities: Iterable[tuple[str, UUID]]) -> set[Place]:
    """Returns the atoms that have one of some activities."""
    asked: dict[str, list[UUID]] = defaultdict(list)
    for workspace, activity_id in sorted(activities):
        asked[workspace].append(activity_id)
    found: set[Place] = set()
    for place in asked.items():
        rows = await tx.fetch(_HAVING.format(schema=schema), *place)
        found.update((workspace, node) for workspace, node in rows)
    return found


async def stored_facts(tx: Tx, schema: str, atoms: Iterable[Place]) -> AsyncIterator[Stored]:
    """Yields the activities of atoms."""
    statement = _STORED.format(schema=schema)
    async for row in tx.cursor(statement, *columns(sorted(atoms)), prefetch=FACTS_PER_FETCH):
        yield Stored(
            row["workspace"],
            row["activity_id"],
            row["activity"],
            row["account"] or "",
            row["kind"],
            row["resource"],
            _kept(row),
        )


async def forget_activities(tx: Tx, schema: str, lost: Sequence[Lost]) -> None:
    """Removes activities."""
    rows = [
        (fact.event.workspace, fact.atom, fact.fact.occur_time, fact.activity_id) for fact in lost
    ]
    if rows:
        await tx.execute(_FORGET.format(schema=schema), *columns(sorted(rows)))


async def list_timeline(
    pool: Pool, workspace: str, profile: str, request: ListTimelineRequest
) -> ListTimelineResponse:
    """Returns a page of a profile's timeline, newest first."""
    # Bound to the name that was asked for: a merge in the middle of a walk does not end it.
    wanted = FIELDS.filter(request.filter)
    fingerprint = fingerprint_of("ListTimeline", workspace, request.name, wanted.text)
    before: tuple[object, ...] = _BEFORE_ALL
    if request.page_token:
        token = PageToken.decoded(request.page_token, fingerprint, _CURSOR)
        before = (token.values[0], _activity_id(token.values[1]))
    size = min(request.page_size, PAGE_SIZE_MAX) or PAGE_SIZE_DEFAULT
    arguments = Arguments((workspace, profile, *before, size + 1))
    statement = _NEWEST.format(shown=SHOWN, wanted=wanted.sql(arguments))
    rows = await pool.fetch(statement, *arguments.values)
    response = ListTimelineResponse(entries=[entry(row) for row in rows[:size]])
    if len(rows) > size:
        last = rows[size - 1]
        values = (last["occur_time"], str(last["activity_id"]))
        token = PageToken(fingerprint, positions=(), is_moved=False, values=values)
        response.next_page_token = token.encoded(_CURSOR)
    return response


def entry(row: Record) -> TimelineEntry:
    """Returns a row as the API shows it."""
    return TimelineEntry(
        activity_id=str(row["activity_id"]),
        kind=row["kind"],
        activity=row["activity"],
        source=row["source"],
        resource=row["resource"],
        account=row["account"] or "",
        occur_time=timestamp_of(row["occur_time"]),
        receive_time=timestamp_of(row["receive_time"]),
        details=row["details"],
    )


def _kept(row: Record) -> Kept:
    key = key_of(row["receive_time"], row["activity_id"])
    return Kept.of(row["node"], key, row["occur_time"], row["said"])


def _activity_id(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise InvalidPageToken("this is no page token of ours") from None
