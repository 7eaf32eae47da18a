"""The view `match_runs`: what each run was asked and what became of it. It is read at once.

How far a run that goes on is, is no fact but progress, which is kept beside the log
(`match_progress.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.identity.v1.match_pb2 import MatchRunCounts
from rapport.identity.v1.match_runs_pb2 import (
    ListMatchRunsRequest,
    ListMatchRunsResponse,
    MatchRun,
    MatchRunState,
)
from services.identity.deciders.match_run import DECIDER, RUNNING, State
from services.identity.projections.match_progress import NO_PROGRESS, Progress, read_progress
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TABLES = f"""
create table {{schema}}.runs (
    workspace text not null,
    run_id text collate "C" not null,
    state int not null,
    filter text not null,
    counts bytea not null,
    model_version text not null,
    reason text not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, run_id)
);
create index runs_by_create_time on {{schema}}.runs (workspace, create_time, run_id);
create index runs_by_update_position on {{schema}}.runs (workspace, update_position);
create index runs_at_work on {{schema}}.runs (create_time) where state = {RUNNING};
"""

_RUNS = AggregateTable(
    "match_runs",
    "runs",
    "run_id",
    {
        "state": "int",
        "filter": "text",
        "counts": "bytea",
        "model_version": "text",
        "reason": "text",
    },
)

_COUNT_OPEN = f"select count(*) from match_runs.runs where workspace = $1 and state = {RUNNING}"

_STATES = enum_values(MatchRunState)

_LISTING = Listing(
    method="ListMatchRuns",
    table=Table("match_runs.runs", key="run_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_RUNS.columns}",
    fields=Fields(
        {
            "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        }
    ),
    default_order="create_time desc",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        state=record["state"],
        filter=record["filter"],
        counts=record["counts"],
        model_version=record["model_version"],
        reason=record["reason"],
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return state.state, state.filter, state.counts, state.model_version, state.reason


RUN_ROWS = _RUNS.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)


class MatchRunsView:
    """Keeps runs, those that ended too."""

    name = "match_runs"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of runs."""
        if own := RUN_ROWS.own(events):
            await RUN_ROWS.fold(tx, schema, own)


async def count_open(pool: Pool, workspace: str) -> int:
    """How many runs of a workspace go on or wait."""
    count: int = await pool.fetchval(_COUNT_OPEN, workspace)
    return count


async def get_run(pool: Pool, workspace: str, name: str) -> MatchRun:
    """Returns a run with its progress; raises NotFound."""
    row = await RUN_ROWS.existing(pool, workspace, name)
    progress = await read_progress(pool, workspace, [row.aggregate_id])
    return run_of(row.aggregate_id, row, progress.get(row.aggregate_id, NO_PROGRESS))


async def list_runs(
    pool: Pool, workspace: str, request: ListMatchRunsRequest
) -> ListMatchRunsResponse:
    """Returns a page of runs, each with its progress."""
    rows, next_page_token = await RUN_ROWS.page(pool, _LISTING, workspace, request)
    progress = await read_progress(pool, workspace, [row.aggregate_id for row in rows])
    shown = [
        run_of(row.aggregate_id, row, progress.get(row.aggregate_id, NO_PROGRESS)) for row in rows
    ]
    return ListMatchRunsResponse(match_runs=shown, next_page_token=next_page_token)


def run_of(run_id: str, known: Row | Decided[State], progress: Progress) -> MatchRun:
    """Returns a run as the API shows it."""
    state = known.state
    goes_on = state.state == RUNNING
    counts = progress.counts if goes_on else MatchRunCounts.FromString(state.counts)
    return MatchRun(
        name=DECIDER.name(run_id),
        filter=state.filter,
        state=MatchRunState.ValueType(state.state),
        stage=progress.stage if goes_on else NO_PROGRESS.stage,
        counts=counts,
        model_version=state.model_version,
        reason=state.reason,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
