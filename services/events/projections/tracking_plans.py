"""The view `tracking_plans`: tracking plans and every version of them.

It is read at once: what was published is in force at the doors a moment later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.events.v1.events_pb2 import TrackingPlanContent, TrackingPlanPublished
from rapport.events.v1.tracking_plans_pb2 import (
    ListTrackingPlansResponse,
    TrackingPlan,
    TrackingPlanState,
)
from services.events.deciders.tracking_plan import DECIDER, State
from services.events.plans import CompiledPlan, published_plan
from services.kernel.command.decider import Decided, etag_of
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import columns
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool

    from rapport.events.v1.tracking_plans_pb2 import ListTrackingPlansRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_ACTIVE = TrackingPlanState.TRACKING_PLAN_STATE_ACTIVE
_ARCHIVED = TrackingPlanState.TRACKING_PLAN_STATE_ARCHIVED

_TABLES = """
create table {schema}.tracking_plans (
    workspace text not null,
    tracking_plan_id text collate "C" not null,
    display_name text collate "C" not null,
    draft bytea not null,
    published bytea not null,
    latest int not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, tracking_plan_id)
);
create index tracking_plans_by_create_time
    on {schema}.tracking_plans (workspace, create_time, tracking_plan_id);
create index tracking_plans_by_update_position
    on {schema}.tracking_plans (workspace, update_position);
create table {schema}.versions (
    workspace text not null,
    tracking_plan_id text collate "C" not null,
    number int not null,
    content bytea not null,
    publish_time timestamptz not null,
    primary key (workspace, tracking_plan_id, number)
);
"""

_REST = """latest, state, version, partition, create_position, update_position,
    create_time, update_time"""
_COLUMNS = f"tracking_plan_id, display_name, draft, published, {_REST}"

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.tracking_plans
join unnest($1::text[], $2::text[]) as asked (workspace, tracking_plan_id)
    using (workspace, tracking_plan_id)
"""

_SAVE = f"""
insert into {{schema}}.tracking_plans (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::int[], $7::int[],
    $8::bigint[], $9::int[], $10::bigint[], $11::bigint[], $12::timestamptz[], $13::timestamptz[]
)
on conflict (workspace, tracking_plan_id) do update set
    draft = excluded.draft, published = excluded.published, latest = excluded.latest,
    state = excluded.state, version = excluded.version,
    update_position = excluded.update_position, update_time = excluded.update_time
"""

_ONE = f"""
select workspace, {_COLUMNS} from tracking_plans.tracking_plans
where workspace = $1 and tracking_plan_id = $2
"""

_ADD_VERSIONS = """
insert into {schema}.versions (workspace, tracking_plan_id, number, content, publish_time)
select * from unnest($1::text[], $2::text[], $3::int[], $4::bytea[], $5::timestamptz[])
"""

_VERSION = """
select content, publish_time from tracking_plans.versions
where workspace = $1 and tracking_plan_id = $2 and number = $3
"""

_IN_FORCE = f"""
select tracking_plan_id, latest, published from tracking_plans.tracking_plans
where workspace = $1 and latest > 0 and state = {_ACTIVE}
"""

_COUNT = "select count(*) from tracking_plans.tracking_plans where workspace = $1"

_STATES = {
    "ACTIVE": _ACTIVE,
    "ARCHIVED": _ARCHIVED,
    "TRACKING_PLAN_STATE_ACTIVE": _ACTIVE,
    "TRACKING_PLAN_STATE_ARCHIVED": _ARCHIVED,
}

TRACKING_PLANS = Listing(
    method="ListTrackingPlans",
    table=Table(
        "tracking_plans.tracking_plans",
        key="tracking_plan_id",
        positions=Positions(partition="partition"),
    ),
    # A page of whole contents would be too large to send.
    columns=f"""workspace, tracking_plan_id, display_name, ''::bytea as draft,
    ''::bytea as published, {_REST}""",
    fields=Fields(
        {
            "display_name": Field("display_name", Kind.TEXT, sortable=True, nullable=False),
            "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        },
        searched=("display_name",),
    ),
    default_order="create_time",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        exists=True,
        display_name=record["display_name"],
        draft=record["draft"],
        published=record["published"],
        latest=record["latest"],
        is_archived=record["state"] == _ARCHIVED,
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return state.display_name, state.draft, state.published, state.latest, state_of(state)


TRACKING_PLAN_ROWS = AggregateRows(
    DECIDER,
    key="tracking_plan_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class TrackingPlansView:
    """Keeps tracking plans and their versions."""

    name = "tracking_plans"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of tracking plans; what was published is a row of its own."""
        own = TRACKING_PLAN_ROWS.own(events)
        if not own:
            return
        await TRACKING_PLAN_ROWS.fold(tx, schema, own)
        versions = [
            (
                event.workspace,
                DECIDER.id_of(event.stream),
                event.event.version,
                event.event.content.SerializeToString(deterministic=True),
                event.record_time,
            )
            for event in own
            if isinstance(event.event, TrackingPlanPublished)
        ]
        if versions:
            await tx.execute(_ADD_VERSIONS.format(schema=schema), *columns(versions))


async def load_plans(connection: Tx | Pool, workspace: str) -> dict[str, CompiledPlan]:
    """The version in force of each tracking plan of a workspace, by `trackingPlans/{id}`."""
    return {
        DECIDER.name(row["tracking_plan_id"]): published_plan(
            f"{DECIDER.name(row['tracking_plan_id'])}@{row['latest']}", row["published"]
        )
        for row in await connection.fetch(_IN_FORCE, workspace)
    }


async def count_plans(pool: Pool, workspace: str) -> int:
    """How many tracking plans a workspace has."""
    return int(await pool.fetchval(_COUNT, workspace))


async def list_tracking_plans(
    pool: Pool, workspace: str, request: ListTrackingPlansRequest
) -> ListTrackingPlansResponse:
    """Returns a page of tracking plans, archived ones too, without their contents."""
    rows, next_page_token = await TRACKING_PLAN_ROWS.page(pool, TRACKING_PLANS, workspace, request)
    plans = []
    for row in rows:
        plan = tracking_plan_of(row.aggregate_id, row)
        plan.ClearField("draft")
        plan.ClearField("published")
        plans.append(plan)
    return ListTrackingPlansResponse(tracking_plans=plans, next_page_token=next_page_token)


async def existing_plan(pool: Pool, workspace: str, name: str) -> TrackingPlan:
    """A tracking plan, or the version of it that a name says; else NotFound."""
    plan_name, number = split_name(name)
    row = await TRACKING_PLAN_ROWS.existing(pool, workspace, plan_name)
    plan = tracking_plan_of(row.aggregate_id, row)
    if number is None:
        return plan
    found = await pool.fetchrow(_VERSION, workspace, row.aggregate_id, number)
    if found is None:
        raise NotFound(name)
    plan.name, plan.version = name, number
    plan.ClearField("draft")
    plan.published.ParseFromString(found["content"])
    plan.create_time.CopyFrom(timestamp_of(found["publish_time"]))
    return plan


def tracking_plan_of(plan_id: str, known: Row | Decided[State]) -> TrackingPlan:
    """Returns a tracking plan as the API shows it."""
    state = known.state
    plan = TrackingPlan(
        name=DECIDER.name(plan_id),
        display_name=state.display_name,
        draft=TrackingPlanContent.FromString(state.draft),
        version=state.latest,
        state=state_of(state),
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
    if state.latest:
        plan.published.ParseFromString(state.published)
    return plan


def state_of(state: State) -> TrackingPlanState.ValueType:
    """Returns what the API calls the state of a tracking plan that exists."""
    return _ARCHIVED if state.is_archived else _ACTIVE


def split_name(name: str) -> tuple[str, int | None]:
    """`trackingPlans/x@3` → `trackingPlans/x`, 3; without a version, None."""
    plan_name, at, number = name.partition("@")
    if not at:
        return name, None
    if not (number.isascii() and number.isdigit() and number == str(int(number[:9]))):
        raise InvalidArgument.of("name", "must look like trackingPlans/{id}@{version}")
    return plan_name, int(number)
