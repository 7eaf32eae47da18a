"""The questions about quotes, answered from the view `quotes`, now or as of a moment.

That a quote has expired is seen on the day of the reading, by UTC, and so is which quote is the
primary one of its deal: a filter asks for what is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rapport.deals.v1.lines_pb2 import QuoteDetails, Totals
from rapport.deals.v1.quotes_pb2 import (
    QUOTE_STATE_EXPIRED,
    ListQuotesRequest,
    ListQuotesResponse,
    Quote,
    QuoteState,
)
from services.deals.deciders.quote import DECIDER
from services.deals.projections.quote_rows import (
    COLUMNS,
    QUOTE_ROWS,
    QUOTE_VERSIONS,
    Row,
)
from services.deals.quote import EXPIRING
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.log import read_heads
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_versions import CURRENT_AT

if TYPE_CHECKING:
    from datetime import date, datetime

    from asyncpg import Pool

    from services.deals.quote import State

# Counted, not asked for by `exists`: that would be hashed, from the primary quotes of everybody.
_IS_PRIMARY = """(
    select count(*) > 0 from quotes.primaries kept
    where kept.workspace = {row}.workspace and kept.quote = 'quotes/' || {row}.quote_id
        and {current}
)"""

_SHOWN = """(
select quotes.*, {is_primary} as is_primary,
    case when quotes.state = any('{expiring}'::int[]) and quotes.valid_until < '{day}'
        then {expired} else quotes.state end as shown_state
from quotes.{table} quotes where quotes.workspace = {{workspace}}
) as quotes"""

_PRIMARY = "select {is_primary} from (select $1::text as workspace, $2::text as quote_id) asked"

_STATES = enum_values(QuoteState)


def _time(column: str) -> Field:
    return Field(column, Kind.TIMESTAMP, sortable=True)


_FIELDS = Fields(
    {
        "number": Field("number", Kind.TEXT, nullable=False),
        "revision": Field("revision", Kind.INTEGER, nullable=False),
        "deal": Field("deal", Kind.TEXT, nullable=False),
        "display_name": Field("display_name", Kind.TEXT, sortable=True),
        "contact": Field("contact", Kind.TEXT),
        "company": Field("company", Kind.TEXT, sortable=True),
        "currency": Field("currency", Kind.TEXT, nullable=False),
        "total_minor": Field("total_minor", Kind.INTEGER, sortable=True, nullable=False),
        "state": Field("shown_state", Kind.ENUM, values=_STATES, nullable=False),
        "primary": Field("is_primary", Kind.BOOLEAN, nullable=False),
        "valid_until": Field("valid_until", Kind.TEXT, sortable=True),
        "approver": Field("approver", Kind.TEXT),
        "accepted_by": Field("accepted_by", Kind.TEXT),
        "send_time": _time("send_time"),
        "accept_time": _time("accept_time"),
        "create_time": Field(
            "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
    },
    searched=("display_name", "number"),
)

_LISTED = COLUMNS.replace("details, summary,", "summary as details,")


def _listing(day: date, moment: datetime | None) -> Listing:
    """Quotes as they are seen on a day, at a moment of it."""
    seen = {
        "expiring": "{" + ",".join(str(state) for state in sorted(EXPIRING)) + "}",
        "expired": QUOTE_STATE_EXPIRED,
        "day": day.isoformat(),
        "is_primary": _IS_PRIMARY.format(row="quotes", current=_current(moment)),
    }
    return Listing(
        method="ListQuotes",
        table=Table(
            _SHOWN.format(table="quotes", **seen),
            key="quote_id",
            positions=Positions(partition="partition"),
            versions=_SHOWN.format(table="quotes_versions", **seen),
        ),
        columns=f"workspace, {_LISTED}, is_primary",
        fields=_FIELDS,
        default_order="create_time",
    )


def _current(moment: datetime | None) -> str:
    """What is true of the primary quote of a moment, which is no word of the caller's."""
    if moment is None:
        return "kept.to_time = 'infinity'"
    return CURRENT_AT.format(moment=f"timestamptz '{moment.isoformat()}'")


async def existing_quote(
    pool: Pool, workspace: str, name: str, moment: datetime | None = None
) -> Row:
    """A quote as it is, or as it was at a moment; else NotFound."""
    if moment is None:
        return await QUOTE_ROWS.existing(pool, workspace, name)
    return await QUOTE_VERSIONS.existing_at(pool, workspace, name, moment)


async def is_primary(
    pool: Pool, workspace: str, quote_id: str, moment: datetime | None = None
) -> bool:
    """Whether a quote says what its deal is worth, or did at a moment."""
    asked = _IS_PRIMARY.format(row="asked", current=_current(moment))
    return bool(await pool.fetchval(_PRIMARY.format(is_primary=asked), workspace, quote_id))


async def list_quotes(
    pool: Pool, workspace: str, request: ListQuotesRequest, day: date, moment: datetime | None
) -> ListQuotesResponse:
    """Returns a page of quotes as they are on a day, or as they were at a moment of it."""
    heads = await read_heads(pool)
    query = _listing(day, moment).query(
        workspace=workspace,
        positions=tuple(heads.values()),
        filter=request.filter,
        order_by=request.order_by,
        page_size=request.page_size,
        page_token=request.page_token,
        moment=moment,
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    rows: list[Any] = [(QUOTE_ROWS.row(record), record["is_primary"]) for record in page.rows]
    quotes = [quote_of(row.aggregate_id, row, day, primary=primary) for row, primary in rows]
    return ListQuotesResponse(quotes=quotes, next_page_token=page.next_page_token)


def quote_of(quote_id: str, known: Row | Decided[State], day: date, *, primary: bool) -> Quote:
    """Returns a quote as the API shows it on a day."""
    state = known.state
    quote = Quote(
        name=DECIDER.name(quote_id),
        number=state.number_text,
        revision=state.revision,
        deal=state.deal,
        details=QuoteDetails.FromString(state.details),
        totals=Totals.FromString(state.totals),
        state=state.state_on(day),
        primary=primary,
        previous_revision=state.earlier_revisions[-1] if state.earlier_revisions else "",
        next_revision=state.next_revision,
        rejected_reason=state.rejected_reason,
        approver=state.approver,
        accepted_by=state.accepted_by,
        declined_reason=state.declined_reason,
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )
    if state.send_time is not None:
        quote.send_time.CopyFrom(timestamp_of(state.send_time))
    if state.accept_time is not None:
        quote.accept_time.CopyFrom(timestamp_of(state.accept_time))
    return quote
