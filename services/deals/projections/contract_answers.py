"""What is answered of contracts: how they stand on a day, told of a row and asked in SQL.

The two must agree for every contract and day; a test holds them together.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

from rapport.deals.v1.contract_terms_pb2 import ContractBillingPeriod
from rapport.deals.v1.contracts_pb2 import (
    CONTRACT_STATE_ACTIVE,
    Contract,
    ContractReminder,
    ContractSignature,
    ContractState,
    ListContractsResponse,
)
from services.deals.deciders.contract import DECIDER
from services.deals.deciders.contract_state import (
    Reminder,
    Signature,
    State,
    last_notice_date,
    next_reminder,
    standing_of,
)
from services.deals.projections.contracts import COLUMNS, CONTRACT_ROWS, CONTRACT_VERSIONS, Row
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from datetime import datetime

    from asyncpg import Pool

    from rapport.deals.v1.contracts_pb2 import ListContractsRequest

# The first number of months that do not end before the day; see services/deals/terms.py.
_MONTHS_PAST = """(extract(year from {day}) - extract(year from counted_from)) * 12
    + extract(month from {day}) - extract(month from counted_from)
    + case when extract(day from counted_from) > extract(day from {day}) then 0 else 1 end"""
_TERM_MONTHS = """case when recorded_state = {active} and renewal_months > 0
    then months + greatest(0, ceil(({months_past} - months) / renewal_months)) * renewal_months
    else months end"""
# A month that lacks the day is followed by another of the same year, which begins instead.
_TERM_END = """(counted_from + make_interval(months => term_months::int))::date - 1
    + case when extract(day from counted_from + make_interval(months => term_months::int))
        = extract(day from counted_from) then 0 else 1 end"""
_SHOWN = """(
    select {table}.*, to_char({day}, 'YYYY-MM-DD') as day,
        case when last_date < {day} then ending else recorded_state end as state,
        to_char(least({term_end}, last_date), 'YYYY-MM-DD') collate "C" as end_date
    from contracts.{table}
    cross join lateral (select {term_months} as term_months) as counted
) as contracts"""

_STATES = enum_values(ContractState)
_BILLING_PERIODS = enum_values(ContractBillingPeriod)

FIELDS = Fields(
    {
        "reference": Field("reference", Kind.TEXT, sortable=True, nullable=False),
        "display_name": Field("display_name", Kind.TEXT, sortable=True),
        "company": Field("company", Kind.TEXT),
        "contact": Field("contact", Kind.TEXT),
        "deal": Field("deal", Kind.TEXT),
        "quote": Field("quote", Kind.TEXT),
        "owner": Field("owner", Kind.TEXT),
        "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
        "is_approved": Field("is_approved", Kind.BOOLEAN, nullable=False),
        "start_date": Field("start_date", Kind.TEXT, sortable=True, nullable=False),
        "end_date": Field("end_date", Kind.TEXT, sortable=True, nullable=False),
        "amount_minor": Field("amount_minor", Kind.INTEGER, sortable=True),
        "currency": Field("currency", Kind.TEXT),
        "billing_period": Field("billing_period", Kind.ENUM, values=_BILLING_PERIODS),
        "auto_renew": Field("auto_renew", Kind.BOOLEAN, nullable=False),
        "notice_date": Field("notice_date", Kind.TEXT),
        "terminate_date": Field("terminate_date", Kind.TEXT),
        "renews": Field("renews", Kind.TEXT),
        "renewed_by": Field("renewed_by", Kind.TEXT),
        "next_reminder_date": Field("next_reminder_date", Kind.TEXT, sortable=True),
        "last_reminder_date": Field("last_reminder_date", Kind.TEXT, sortable=True),
        "custom_fields": Field("custom_fields", Kind.STRUCT),
        "create_time": Field(
            "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
    },
    searched=("reference", "display_name"),
)


@lru_cache(maxsize=8)
def listing_on(day: date) -> Listing:
    """How contracts are listed as they are on a day."""
    return Listing(
        method="ListContracts",
        table=Table(
            shown_on(day, "contracts"),
            key="contract_id",
            positions=Positions(partition="partition"),
            versions=shown_on(day, CONTRACT_VERSIONS.name),
        ),
        columns=f"workspace, {COLUMNS}",
        fields=FIELDS,
        default_order="create_time",
    )


def shown_on(day: date, table: str) -> str:
    """A table of the view's with what contracts are on a day: `state` and `end_date`."""
    said = f"date '{day.isoformat()}'"
    months = _TERM_MONTHS.format(
        active=CONTRACT_STATE_ACTIVE, months_past=_MONTHS_PAST.format(day=said)
    )
    return _SHOWN.format(table=table, day=said, term_months=months, term_end=_TERM_END)


async def list_contracts(
    pool: Pool,
    workspace: str,
    request: ListContractsRequest,
    day: date,
    moment: datetime | None = None,
) -> ListContractsResponse:
    """Returns a page of contracts as they are on a day, or were at a moment of it.

    A walk in the order of what moves on with the days is bound to its day.
    """
    where = {"day": day.isoformat()} if "end_date" in request.order_by else None
    rows, next_page_token = await CONTRACT_ROWS.page(
        pool, listing_on(day), workspace, request, moment, where
    )
    return ListContractsResponse(
        contracts=[contract_of(row.aggregate_id, row, day) for row in rows],
        next_page_token=next_page_token,
    )


def contract_of(contract_id: str, known: Row | Decided[State], day: date) -> Contract:
    """Returns a contract as the API shows it on a day."""
    state = known.state
    standing = standing_of(state)
    term, notice = standing.term_on(day), last_notice_date(state, day)
    return Contract(
        name=DECIDER.name(contract_id),
        terms=state.said(),
        state=standing.state_on(day),
        end_date=term.end.isoformat(),
        term_number=term.number,
        last_notice_date="" if notice is None else notice.isoformat(),
        is_approved=state.is_approved,
        approver=state.approver,
        reject_reason=state.reject_reason,
        customer_signature=_signature(state.customer),
        company_signature=_signature(state.company),
        activate_date=state.activate_date,
        notice_date=state.notice_date,
        notice_party=state.notice_party,
        terminate_date=state.terminate_date,
        terminate_reason=state.terminate_reason,
        renews=state.renews,
        renewed_by=state.renewed_by,
        next_reminder=_reminder(next_reminder(state)),
        last_reminder=_reminder(state.last_reminder),
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def _signature(signature: Signature) -> ContractSignature | None:
    if not signature.sign_date:
        return None
    return ContractSignature(signatory=signature.signatory, sign_date=signature.sign_date)


def _reminder(reminder: Reminder | None) -> ContractReminder | None:
    if reminder is None:
        return None
    return ContractReminder(
        kind=reminder.kind,
        due_date=reminder.due_date,
        term_end_date=reminder.term_end_date,
    )
