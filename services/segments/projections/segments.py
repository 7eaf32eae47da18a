"""The view `segments`: definitions and members, and the questions they answer.

It is read at once: its rows change in the transaction that appends the events, whoever appends
them. A member is a row; who exits leaves none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from asyncpg import Pool
from google.protobuf.message import Message

from rapport.segments.v1.events_pb2 import ProfileEnteredSegment, ProfileExitedSegment
from rapport.segments.v1.rule_pb2 import Rule
from rapport.segments.v1.service_pb2 import (
    SEGMENT_STATE_ACTIVE,
    SEGMENT_STATE_ARCHIVED,
    ListProfileSegmentsRequest,
    ListProfileSegmentsResponse,
    ListSegmentMembersRequest,
    ListSegmentMembersResponse,
    ListSegmentsRequest,
    ListSegmentsResponse,
    Segment,
    SegmentMember,
    SegmentState,
)
from services.kernel.command.decider import Decided, etag_of
from services.kernel.errors import InvalidArgument
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.log.sql import Tx, columns
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows
from services.segments.decider import DECIDER, State

_TABLES = """
create table {schema}.segments (
    workspace text not null,
    segment_id text collate "C" not null,
    display_name text collate "C",
    rule bytea not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, segment_id)
);
create index segments_by_create_time
    on {schema}.segments (workspace, create_time, segment_id);
create table {schema}.members (
    workspace text not null,
    segment_id text collate "C" not null,
    profile_id text collate "C" not null,
    enter_time timestamptz not null,
    primary key (workspace, segment_id, profile_id)
);
create index members_by_profile on {schema}.members (workspace, profile_id, segment_id);
"""

_COLUMNS = """segment_id, display_name, rule, state, version, partition,
    create_position, update_position, create_time, update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.segments
join unnest($1::text[], $2::text[]) as asked (workspace, segment_id) using (workspace, segment_id)
"""

_SAVE = f"""
insert into {{schema}}.segments (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::bytea[], $5::int[], $6::bigint[], $7::int[],
    $8::bigint[], $9::bigint[], $10::timestamptz[], $11::timestamptz[]
)
on conflict (workspace, segment_id) do update set
    state = excluded.state, version = excluded.version,
    update_position = excluded.update_position, update_time = excluded.update_time
"""

_ENTER = """
insert into {schema}.members (workspace, segment_id, profile_id, enter_time)
select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
on conflict (workspace, segment_id, profile_id) do update set enter_time = excluded.enter_time
"""

_EXIT = """
delete from {schema}.members m
using unnest($1::text[], $2::text[], $3::text[]) as gone (workspace, segment_id, profile_id)
where (m.workspace, m.segment_id, m.profile_id)
    = (gone.workspace, gone.segment_id, gone.profile_id)
"""

_FORGET = """
delete from {schema}.members where workspace = $1 and profile_id = any($2::text[])
"""

_ONE = f"""
select workspace, {_COLUMNS} from segments.segments where workspace = $1 and segment_id = $2
"""

_STATES = {
    "ACTIVE": SEGMENT_STATE_ACTIVE,
    "ARCHIVED": SEGMENT_STATE_ARCHIVED,
    "SEGMENT_STATE_ACTIVE": SEGMENT_STATE_ACTIVE,
    "SEGMENT_STATE_ARCHIVED": SEGMENT_STATE_ARCHIVED,
}

FIELDS = Fields(
    {
        "display_name": Field("display_name", Kind.TEXT, sortable=True, immutable=True),
        "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
        "create_time": Field(
            "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
    },
    searched=("display_name",),
)

SEGMENTS = Listing(
    method="ListSegments",
    table=Table("segments.segments", key="segment_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_COLUMNS}",
    fields=FIELDS,
    default_order="create_time",
)

MEMBERS = Listing(
    method="ListSegmentMembers",
    table=Table("segments.members", key="profile_id", positions=None),
    columns="profile_id, enter_time",
    fields=Fields({}),
)

PROFILE_SEGMENTS = Listing(
    method="ListProfileSegments",
    table=Table(
        "segments.members join segments.segments using (workspace, segment_id)",
        key="segment_id",
        positions=None,
    ),
    columns=f"workspace, {_COLUMNS}",
    fields=Fields({}),
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        exists=True,
        display_name=record["display_name"] or "",
        rule=record["rule"],
        is_archived=record["state"] == SEGMENT_STATE_ARCHIVED,
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    return row.state.display_name or None, row.state.rule, state_of(row.state)


SEGMENT_ROWS = AggregateRows(
    DECIDER,
    key="segment_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class SegmentsView:
    """Keeps definitions and members."""

    name = "segments"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds events: definitions one read and one write, members one write each way."""
        transitions = [event for event in events if _is_transition(event.event)]
        definitions = [event for event in events if not _is_transition(event.event)]
        if definitions:
            await SEGMENT_ROWS.fold(tx, schema, definitions)
        if transitions:
            await self._move(tx, schema, transitions)

    async def _move(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """The last transition of a member decides: it is in since then, or out."""
        last: dict[tuple[str, str, str], Recorded] = {}
        for event in events:
            fact = event.event
            assert isinstance(fact, ProfileEnteredSegment | ProfileExitedSegment)
            last[event.workspace, id_of(fact.segment), id_of(fact.profile)] = event
        exited = [key for key, event in last.items() if not _is_entry(event.event)]
        entered = [(*k, e.occur_time) for k, e in last.items() if _is_entry(e.event)]
        if exited:
            await tx.execute(_EXIT.format(schema=schema), *columns(exited))
        if entered:
            await tx.execute(_ENTER.format(schema=schema), *columns(entered))


async def forget_members(tx: Tx, schema: str, workspace: str, profiles: Iterable[str]) -> None:
    """Removes the memberships of profiles."""
    await tx.execute(_FORGET.format(schema=schema), workspace, sorted(profiles))


async def list_segments(
    pool: Pool, workspace: str, request: ListSegmentsRequest
) -> ListSegmentsResponse:
    """Returns a page of segments, archived ones too."""
    rows, next_page_token = await SEGMENT_ROWS.page(pool, SEGMENTS, workspace, request)
    return ListSegmentsResponse(
        segments=[segment_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


async def list_members(
    pool: Pool, workspace: str, segment_id: str, request: ListSegmentMembersRequest
) -> ListSegmentMembersResponse:
    """Returns a page of a segment's members in the order of their ids."""
    query = MEMBERS.query(
        workspace=workspace,
        page_size=request.page_size,
        page_token=request.page_token,
        where={"segment_id": segment_id},
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    members = [
        SegmentMember(
            profile=f"profiles/{row['profile_id']}", enter_time=timestamp_of(row["enter_time"])
        )
        for row in page.rows
    ]
    return ListSegmentMembersResponse(members=members, next_page_token=page.next_page_token)


async def list_profile_segments(
    pool: Pool, workspace: str, request: ListProfileSegmentsRequest
) -> ListProfileSegmentsResponse:
    """Returns a page of the segments that a profile is a member of, in the order of their ids."""
    query = PROFILE_SEGMENTS.query(
        workspace=workspace,
        page_size=request.page_size,
        page_token=request.page_token,
        where={"profile_id": profile_id_of(request.profile)},
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    return ListProfileSegmentsResponse(
        segments=[segment_of(row.aggregate_id, row) for row in map(SEGMENT_ROWS.row, page.rows)],
        next_page_token=page.next_page_token,
    )


def segment_of(segment_id: str, known: Row | Decided[State]) -> Segment:
    """Returns a segment as the API shows it."""
    return Segment(
        name=DECIDER.name(segment_id),
        display_name=known.state.display_name,
        rule=Rule.FromString(known.state.rule),
        state=state_of(known.state),
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def state_of(state: State) -> SegmentState.ValueType:
    """Returns what the API calls the state of a segment that exists."""
    return SEGMENT_STATE_ARCHIVED if state.is_archived else SEGMENT_STATE_ACTIVE


def id_of(name: str) -> str:
    """`profiles/7` → `7`."""
    return name.partition("/")[2]


def profile_id_of(name: str) -> str:
    """The id inside a profile's name that a caller gave, else InvalidArgument."""
    collection, _, profile_id = name.partition("/")
    if collection != "profiles" or not profile_id or "/" in profile_id:
        raise InvalidArgument.of("profile", "must look like profiles/{id}")
    return profile_id


def _is_transition(fact: Message) -> bool:
    return isinstance(fact, ProfileEnteredSegment | ProfileExitedSegment)


def _is_entry(fact: Message) -> bool:
    return isinstance(fact, ProfileEnteredSegment)
