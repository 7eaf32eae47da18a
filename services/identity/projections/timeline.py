"""The timeline: every activity, under the atom it belongs to for ever.

Profiles merge and split without a row of it being touched. It also knows which facts were seen:
one that comes again adds no row, and so has no second effect anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from asyncpg import Pool, UniqueViolationError

from rapport.identity.v1.service_pb2 import (
    ListTimelineRequest,
    ListTimelineResponse,
    TimelineEntry,
)
from services.identity.facts import Fact
from services.kernel.lists.filter import Field, Kind
from services.kernel.lists.page_token import InvalidPageToken, PageToken, fingerprint_of
from services.kernel.lists.paging import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.timeline (
    workspace text not null,
    node text collate "C" not null,
    occur_time timestamptz not null,
    activity_id uuid not null,
    kind smallint not null,
    activity text not null,
    resource text not null,
    details text not null,
    primary key (workspace, node, occur_time, activity_id)
);
"""

_COLUMNS = (
    "workspace",
    "node",
    "occur_time",
    "activity_id",
    "kind",
    "activity",
    "resource",
    "details",
)

_ADD = f"""
insert into {{schema}}.timeline ({", ".join(_COLUMNS)})
select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::uuid[], $5::smallint[],
                     $6::text[], $7::text[], $8::text[])
on conflict do nothing
returning activity_id
"""

# Each atom's newest rows are read along the key; only these few are sorted once more.
_NEWEST = """
select t.*
from profiles.nodes n
cross join lateral (
    select occur_time, activity_id, kind, activity, resource, details
    from profiles.timeline
    where workspace = n.workspace and node = n.node
        and (occur_time, activity_id) < ($3::timestamptz, $4::uuid)
    order by occur_time desc, activity_id desc
    limit $5
) t
where n.workspace = $1 and n.profile = $2
order by occur_time desc, activity_id desc
limit $5
"""

_CURSOR = (
    Field("occur_time", Kind.TIMESTAMP, nullable=False),
    Field("activity_id", Kind.TEXT, nullable=False),
)
_BEFORE_ALL = (datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))


async def add_activities(tx: Tx, schema: str, facts: Sequence[Fact]) -> list[Fact]:
    """Adds the facts' activities; returns the facts that are new, in their order."""
    by_id = {fact.activity_id: fact for fact in facts}
    rows = [_row(fact) for fact in by_id.values()]
    if not rows:
        return []
    try:
        # The checkpoint gives each fact once, so COPY, which is far cheaper, nearly always serves.
        async with tx.transaction():
            await tx.copy_records_to_table(
                "timeline", schema_name=schema, columns=_COLUMNS, records=rows
            )
        return list(by_id.values())
    except UniqueViolationError:
        added = await tx.fetch(_ADD.format(schema=schema), *columns(rows))
        fresh = {record[0] for record in added}
        return [fact for activity_id, fact in by_id.items() if activity_id in fresh]


async def list_timeline(
    pool: Pool, workspace: str, profile: str, request: ListTimelineRequest
) -> ListTimelineResponse:
    """Returns a page of a profile's timeline, newest first."""
    # Bound to the name that was asked for: a merge in the middle of a walk does not end it.
    fingerprint = fingerprint_of("ListTimeline", workspace, request.name)
    before: tuple[object, ...] = _BEFORE_ALL
    if request.page_token:
        token = PageToken.decoded(request.page_token, fingerprint, _CURSOR)
        before = (token.values[0], _activity_id(token.values[1]))
    size = min(request.page_size, PAGE_SIZE_MAX) or PAGE_SIZE_DEFAULT
    rows = await pool.fetch(_NEWEST, workspace, profile, *before, size + 1)
    entries = [
        TimelineEntry(
            activity_id=str(row["activity_id"]),
            kind=row["kind"],
            activity=row["activity"],
            resource=row["resource"],
            occur_time=timestamp_of(row["occur_time"]),
            details=row["details"],
        )
        for row in rows[:size]
    ]
    response = ListTimelineResponse(entries=entries)
    if len(rows) > size:
        last = rows[size - 1]
        values = (last["occur_time"], str(last["activity_id"]))
        token = PageToken(fingerprint, positions=(), is_moved=False, values=values)
        response.next_page_token = token.encoded(_CURSOR)
    return response


def _row(fact: Fact) -> tuple[object, ...]:
    return (
        fact.workspace,
        fact.atom,
        fact.occur_time,
        fact.activity_id,
        fact.activity.kind,
        fact.activity.name,
        fact.activity.resource,
        fact.activity.details,
    )


def _activity_id(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise InvalidPageToken("this is no page token of ours") from None
