"""The view `pipelines`: what each pipeline is, what it was at every moment, and its stages for SQL.

It is read at once. A workspace begins with a pipeline that has no row before its first change: it
is shown beside the rows, as the first of them by creation, in all that is asked of now or of then.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from rapport.deals.v1 import pipelines_pb2 as pb
from services.deals.deciders.pipeline import DECIDER, Others
from services.deals.pipeline import (
    STARTING,
    STARTING_ID,
    Pipeline,
    Stage,
    settings_of,
    stage_name,
)
from services.kernel.command.decider import Decided, etag_of
from services.kernel.errors import NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import columns
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable
from services.kernel.views.aggregate_versions import CURRENT_AT, AggregateVersions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Pool

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_ACTIVE = pb.PipelineState.PIPELINE_STATE_ACTIVE
_ARCHIVED = pb.PipelineState.PIPELINE_STATE_ARCHIVED

PIPELINES_PER_PAGE_MAX = 50
"""So many of the largest there may be are a message that can be sent."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When the pipeline that every workspace begins with was created, as lists have it."""

_TABLES = """
create table {schema}.pipelines (
    workspace text not null,
    pipeline_id text collate "C" not null,
    display_name text collate "C" not null,
    stages jsonb not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, pipeline_id)
);
"""

PIPELINES_TABLE = AggregateTable(
    "pipelines",
    "pipelines",
    "pipeline_id",
    {"display_name": "text", "stages": "jsonb", "state": "int"},
)
_COLUMNS = PIPELINES_TABLE.columns

_ALL = "select pipeline_id, display_name, stages, state, version"
_ALL_NOW = f"{_ALL} from pipelines.pipelines where workspace = $1 order by pipeline_id"
_ALL_AT = f"""
{_ALL} from pipelines.pipelines_versions
where workspace = $1 and {CURRENT_AT.format(moment="$2")}
order by pipeline_id
"""

_COUNTS = f"""
select count(*) as pipelines, count(*) filter (where state = {_ACTIVE}) as active,
       count(*) filter (where pipeline_id = '{STARTING_ID}') as starting
from pipelines.pipelines where workspace = $1
"""

# The pipeline that every workspace begins with was there before all others, changed or not.
_SHOWN = f"""
    workspace, pipeline_id, display_name, stages, state, version, partition,
    case pipeline_id when '{STARTING_ID}' then 0 else create_position end as create_position,
    update_position,
    case pipeline_id when '{STARTING_ID}' then 'epoch' else create_time end as create_time,
    update_time"""
_STARTING = f"""
    {{workspace}}, '{STARTING_ID}', '{STARTING.display_name}', null::jsonb, {_ACTIVE}, 0, 0, 0, 0,
    'epoch'::timestamptz, 'epoch'::timestamptz"""
_STARTED = f"workspace = {{workspace}} and pipeline_id = '{STARTING_ID}'"

_NOW = f"""(
select {_SHOWN} from pipelines.pipelines
union all
select {_STARTING} where not exists (select from pipelines.pipelines where {_STARTED})
) as pipelines"""

_THEN = f"""(
select {_SHOWN}, from_time, to_time from pipelines.pipelines_versions
union all
select {_STARTING}, '-infinity', coalesce(min(from_time), 'infinity')
from pipelines.pipelines_versions where {_STARTED}
) as pipelines"""

_STATES = {
    "ACTIVE": _ACTIVE,
    "ARCHIVED": _ARCHIVED,
    "PIPELINE_STATE_ACTIVE": _ACTIVE,
    "PIPELINE_STATE_ARCHIVED": _ARCHIVED,
}

PIPELINES = Listing(
    method="ListPipelines",
    table=Table(
        _NOW, key="pipeline_id", positions=Positions(partition="partition"), versions=_THEN
    ),
    columns=f"workspace, {_COLUMNS}",
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
    page_size_max=PIPELINES_PER_PAGE_MAX,
)

_STAGE_COLUMNS = {
    "stage": "text",
    "pipeline_id": "text",
    "place": "int",
    "kind": "int",
    "likely_bp": "int",
    "category": "int",
    "rot_after_s": "bigint",
    "is_archived": "bool",
    "display_name": "text",
}

Row: TypeAlias = AggregateRow[Pipeline]


def _state_in(record: Any) -> Pipeline:
    if not record["version"]:
        return STARTING
    return Pipeline(
        exists=True,
        display_name=record["display_name"],
        stages=msgspec.json.decode(record["stages"], type=tuple[Stage, ...]),
        is_archived=record["state"] == _ARCHIVED,
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return state.display_name, msgspec.json.encode(state.stages).decode(), state_of(state)


PIPELINE_ROWS = PIPELINES_TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)
PIPELINE_VERSIONS = AggregateVersions(PIPELINE_ROWS, PIPELINES_TABLE)


class PipelinesView:
    """Keeps pipelines, and what each of them was."""

    name = "pipelines"
    shape = 1

    def tables(self, schema: str) -> str:
        return (_TABLES + PIPELINE_VERSIONS.tables()).format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        own = PIPELINE_ROWS.own(events)
        if own:
            versions = await PIPELINE_ROWS.fold(tx, schema, own)
            await PIPELINE_VERSIONS.add(tx, schema, versions)


async def load_pipelines(
    connection: Tx | Pool, workspace: str, moment: datetime | None = None
) -> dict[str, Pipeline]:
    """All pipelines of a workspace by id, as they are or as they were at a (sealed) moment."""
    if moment is None:
        records = await connection.fetch(_ALL_NOW, workspace)
    else:
        records = await connection.fetch(_ALL_AT, workspace, moment)
    found = {record["pipeline_id"]: _state_in(record) for record in records}
    return {STARTING_ID: STARTING, **found}


def stages_from(first: int) -> str:
    """What SQL joins to for the stages of pipelines; `stage_columns` are its parameters.

    They are numbered from `first`. A stage has the `stage` that deals name, its `pipeline_id`, its
    `place` among the pipeline's, from 1, and its `kind`, `likely_bp`, `category`, `rot_after_s`,
    `is_archived` and `display_name`.
    """
    arrays = ", ".join(
        f"${place}::{kind}[]" for place, kind in enumerate(_STAGE_COLUMNS.values(), start=first)
    )
    return f"unnest({arrays}) as stages ({', '.join(_STAGE_COLUMNS)})"


def stage_columns(pipelines: Mapping[str, Pipeline]) -> list[list[object]]:
    """The stages of pipelines by id as the parameters of `stages_from`, always as many."""
    rows = [
        (
            stage_name(pipeline_id, stage.stage_id),
            pipeline_id,
            place,
            stage.kind,
            stage.likely_bp,
            stage.category,
            stage.rot_after_s,
            stage.is_archived,
            stage.display_name,
        )
        for pipeline_id, pipeline in pipelines.items()
        for place, stage in enumerate(pipeline.stages, start=1)
    ]
    return columns(rows) or [[] for _ in _STAGE_COLUMNS]


async def count_pipelines(pool: Pool, workspace: str) -> Others:
    """How many pipelines a workspace has, the one it begins with too."""
    counts: Any = await pool.fetchrow(_COUNTS, workspace)
    unseen = 0 if counts["starting"] else 1
    return Others(pipelines=counts["pipelines"] + unseen, active=counts["active"] + unseen)


async def existing_pipeline(
    pool: Pool, workspace: str, name: str, moment: datetime | None
) -> pb.Pipeline:
    """A pipeline as it is or as it was at a moment, else NotFound."""
    pipeline_id = DECIDER.aggregate_id(name)
    try:
        row = await PIPELINE_VERSIONS.existing_at(pool, workspace, name, moment)
    except NotFound:
        if pipeline_id != STARTING_ID:
            raise
        row = AggregateRow(workspace, STARTING_ID, STARTING, 0, 0, 0, 0, EPOCH, EPOCH)
    return pipeline_of(pipeline_id, row)


async def list_pipelines(
    pool: Pool, workspace: str, request: pb.ListPipelinesRequest, moment: datetime | None
) -> pb.ListPipelinesResponse:
    """Returns a page of pipelines, archived ones too, as they are or as they were at a moment."""
    rows, next_page_token = await PIPELINE_ROWS.page(pool, PIPELINES, workspace, request, moment)
    pipelines = [pipeline_of(row.aggregate_id, row) for row in rows]
    return pb.ListPipelinesResponse(pipelines=pipelines, next_page_token=next_page_token)


def pipeline_of(pipeline_id: str, known: Row | Decided[Pipeline]) -> pb.Pipeline:
    """Returns a pipeline as the API shows it."""
    state = known.state if known.version else STARTING
    pipeline = pb.Pipeline(
        name=DECIDER.name(pipeline_id),
        display_name=state.display_name,
        stages=(_stage_of(pipeline_id, stage) for stage in state.stages),
        state=state_of(state),
    )
    if known.version:
        pipeline.etag = etag_of(known.version)
        pipeline.update_time.CopyFrom(timestamp_of(known.update_time))
    if pipeline_id != STARTING_ID:
        pipeline.create_time.CopyFrom(timestamp_of(known.create_time))
    return pipeline


def state_of(kept: Pipeline | Stage) -> pb.PipelineState.ValueType:
    """Returns what the API calls the state of a pipeline or a stage that exists."""
    return _ARCHIVED if kept.is_archived else _ACTIVE


def _stage_of(pipeline_id: str, stage: Stage) -> pb.Stage:
    return pb.Stage(
        name=stage_name(pipeline_id, stage.stage_id),
        settings=settings_of(stage),
        state=state_of(stage),
    )
