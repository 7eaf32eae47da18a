"""The view `quotas`: what is to be won, now and at any moment before.

It is read at once. A quota that was removed keeps its row, without an amount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.deals.v1.forecasts_pb2 import ListQuotasResponse, Quota
from services.deals.deciders.quota import DECIDER, State
from services.deals.forecast_subject import Subject
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable
from services.kernel.views.aggregate_versions import AggregateVersions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncpg import Pool

    from rapport.deals.v1.forecasts_pb2 import ListQuotasRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TABLE = """
create table {schema}.quotas (
    workspace text not null,
    quota_id text collate "C" not null,
    owner text collate "C" not null,
    team text collate "C" not null,
    period text collate "C" not null,
    pipeline text collate "C" not null,
    amount_minor bigint,
    currency text collate "C",
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, quota_id)
);
"""

# After the table of versions.
_INDEXES = """
create index quotas_by_create_time
    on {schema}.quotas (workspace, create_time, quota_id) where currency is not null;
create index quotas_by_update_position
    on {schema}.quotas (workspace, update_position);
create index quotas_by_period
    on {schema}.quotas (workspace, period, pipeline, owner, team);
create index quotas_versions_by_period
    on {schema}.quotas_versions (workspace, period, pipeline, owner, team);
"""

QUOTAS_TABLE = AggregateTable(
    "quotas",
    "quotas",
    "quota_id",
    {
        "owner": "text",
        "team": "text",
        "period": "text",
        "pipeline": "text",
        "amount_minor": "bigint",
        "currency": "text",
    },
)
_COLUMNS = QUOTAS_TABLE.columns


def _unchanged(column: str) -> Field:
    return Field(column, Kind.TEXT, sortable=True, immutable=True, nullable=False)


# A removed one is kept, and is in no list.
_LISTED = "(select * from {} where currency is not null) as quotas"

QUOTAS = Listing(
    method="ListQuotas",
    table=Table(
        _LISTED.format("quotas.quotas"),
        key="quota_id",
        positions=Positions(partition="partition"),
        versions=_LISTED.format("quotas.quotas_versions"),
    ),
    columns=f"workspace, {_COLUMNS}",
    fields=Fields(
        {
            "owner": _unchanged("owner"),
            "team": _unchanged("team"),
            "period": _unchanged("period"),
            "pipeline": _unchanged("pipeline"),
            "amount_minor": Field("amount_minor", Kind.INTEGER, sortable=True),
            "currency": Field("currency", Kind.TEXT),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        }
    ),
    default_order="create_time",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        subject=subject_in(record),
        amount_minor=record["amount_minor"] or 0,
        currency=record["currency"] or "",
    )


def subject_in(record: Any) -> Subject:
    """What a row of a quota or a submission is about."""
    return Subject(record["owner"], record["team"], record["period"], record["pipeline"])


def _state_columns(row: Row) -> tuple[object, ...]:
    state, subject = row.state, row.state.subject
    return (
        subject.owner,
        subject.team,
        subject.period,
        subject.pipeline,
        state.amount_minor if state.currency else None,
        state.currency or None,
    )


QUOTA_ROWS = QUOTAS_TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)

QUOTA_VERSIONS = AggregateVersions(QUOTA_ROWS, QUOTAS_TABLE)


class QuotasView:
    """Keeps quotas, and what they were."""

    name = "quotas"
    shape = 1

    def tables(self, schema: str) -> str:
        return (_TABLE + QUOTA_VERSIONS.tables() + _INDEXES).format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of quotas."""
        if own := QUOTA_ROWS.own(events):
            await QUOTA_VERSIONS.add(tx, schema, await QUOTA_ROWS.fold(tx, schema, own))


async def list_quotas(
    pool: Pool, workspace: str, request: ListQuotasRequest, moment: datetime | None
) -> ListQuotasResponse:
    """Returns a page of quotas, as they are or were."""
    rows, next_page_token = await QUOTA_ROWS.page(pool, QUOTAS, workspace, request, moment)
    return ListQuotasResponse(
        quotas=[quota_of(row.aggregate_id, row) for row in rows],
        next_page_token=next_page_token,
    )


def quota_of(quota_id: str, known: Row | Decided[State]) -> Quota:
    """Returns a quota as the API shows it."""
    state, subject = known.state, known.state.subject
    return Quota(
        name=DECIDER.name(quota_id),
        owner=subject.owner,
        team=subject.team,
        period=subject.period,
        pipeline=subject.pipeline,
        amount=state.amount,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
