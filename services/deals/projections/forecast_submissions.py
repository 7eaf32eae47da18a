"""The view `forecast_submissions`: what people said they expect, each word of theirs a row.

It is read at once. What was said is never changed, so a row has one version that lasts for ever,
and as of a moment there is what had been said by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rapport.deals.v1.events_pb2 import ForecastSubmitted
from rapport.deals.v1.forecasts_pb2 import (
    ForecastSubmission,
    ListForecastSubmissionsResponse,
)
from services.deals.deciders.forecast_submission import AMOUNTS, DECIDER, State
from services.deals.projections.quotas import subject_in
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.log import read_heads
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncpg import Pool

    from rapport.deals.v1.forecasts_pb2 import ListForecastSubmissionsRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TABLES = """
create table {schema}.forecast_submissions (
    workspace text not null,
    submission_id text collate "C" not null,
    owner text collate "C" not null,
    team text collate "C" not null,
    period text collate "C" not null,
    pipeline text collate "C" not null,
    commit_minor bigint,
    most_likely_minor bigint,
    best_case_minor bigint,
    currency text collate "C" not null,
    note text not null,
    submitter text collate "C" not null,
    partition int not null,
    create_position bigint not null,
    create_time timestamptz not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, submission_id)
);
create index forecast_submissions_by_create_time
    on {schema}.forecast_submissions (workspace, create_time, submission_id);
create index forecast_submissions_by_period
    on {schema}.forecast_submissions (workspace, period, pipeline, owner, team, create_position);
"""

COLUMNS = """submission_id, owner, team, period, pipeline, commit_minor, most_likely_minor,
    best_case_minor, currency, note, submitter, partition, create_position, create_time"""

_ADD = f"""
insert into {{schema}}.forecast_submissions (workspace, {COLUMNS}, from_time, to_time)
select *, create_time, 'infinity' from unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::int[], $14::bigint[],
    $15::timestamptz[]
) as added (workspace, {COLUMNS})
"""


def _unchanged(column: str, kind: Kind = Kind.TEXT) -> Field:
    return Field(column, kind, sortable=True, immutable=True, nullable=False)


_TABLE = "forecast_submissions.forecast_submissions"

FORECAST_SUBMISSIONS = Listing(
    method="ListForecastSubmissions",
    table=Table(
        _TABLE,
        key="submission_id",
        positions=Positions(changed="create_position", partition="partition"),
        versions=_TABLE,
    ),
    columns=COLUMNS,
    fields=Fields(
        {
            "owner": _unchanged("owner"),
            "team": _unchanged("team"),
            "period": _unchanged("period"),
            "pipeline": _unchanged("pipeline"),
            "submitter": _unchanged("submitter"),
            "create_time": _unchanged("create_time", Kind.TIMESTAMP),
        }
    ),
    default_order="create_time desc",
)


class ForecastSubmissionsView:
    """Keeps what was said."""

    name = "forecast_submissions"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Adds a row for each submission."""
        rows = [_row(event) for event in events if isinstance(event.event, ForecastSubmitted)]
        if rows:
            await tx.execute(_ADD.format(schema=schema), *columns(rows))


def _row(recorded: Recorded) -> tuple[object, ...]:
    event: Any = recorded.event
    state = DECIDER.evolve(DECIDER.initial, event)
    return (
        recorded.workspace,
        f"{DECIDER.id_of(recorded.stream)}@{recorded.version}",
        event.owner,
        event.team,
        event.period,
        event.pipeline,
        *state.amounts_minor,
        state.currency,
        state.note,
        recorded.actor,
        recorded.partition,
        recorded.position,
        recorded.record_time,
    )


async def list_forecast_submissions(
    pool: Pool,
    workspace: str,
    request: ListForecastSubmissionsRequest,
    moment: datetime | None,
) -> ListForecastSubmissionsResponse:
    """Returns a page of submissions, those there are or had been by a moment."""
    heads = await read_heads(pool)
    query = FORECAST_SUBMISSIONS.query(
        workspace=workspace,
        positions=tuple(heads.values()),
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
        moment=moment,
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    return ListForecastSubmissionsResponse(
        submissions=[submission_in(row) for row in page.rows],
        next_page_token=page.next_page_token,
    )


def submission_in(record: Any) -> ForecastSubmission:
    """Returns a row as the API shows it."""
    state = State(
        subject=subject_in(record),
        amounts_minor=tuple(record[f"{name}_minor"] for name in AMOUNTS),
        currency=record["currency"],
        note=record["note"],
    )
    return submission_of(record["submission_id"], state, record["submitter"], record["create_time"])


def submission_of(
    submission_id: str, state: State, submitter: str, create_time: datetime
) -> ForecastSubmission:
    """Returns what was said as the API shows it."""
    return ForecastSubmission(
        name=DECIDER.name(submission_id),
        owner=state.subject.owner,
        team=state.subject.team,
        period=state.subject.period,
        pipeline=state.subject.pipeline,
        call=state.call,
        submitter=submitter,
        create_time=timestamp_of(create_time),
    )
