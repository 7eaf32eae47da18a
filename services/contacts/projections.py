"""The view `contacts`: a row per contact as its events leave it, and the questions it answers.

It is read at once: its rows change in the transaction that appends the events. It folds with the
decider's own `evolve`, so a row and a decision cannot disagree. What is unset is null, as filters
want it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from asyncpg import Pool
from google.protobuf.json_format import MessageToJson

from rapport.contacts.v1.events_pb2 import ContactErased
from rapport.contacts.v1.service_pb2 import (
    CONTACT_STATE_ACTIVE,
    CONTACT_STATE_ARCHIVED,
    Contact,
    ContactChange,
    ContactState,
    ListContactHistoryRequest,
    ListContactHistoryResponse,
    ListContactsRequest,
    ListContactsResponse,
)
from services.contacts.decider import DECIDER, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Filter, Kind
from services.kernel.lists.page_token import PageToken, fingerprint_of
from services.kernel.lists.paging import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Listing, Positions, Table
from services.kernel.log.log import read_heads, read_stream
from services.kernel.log.recorded import EventTypes, Recorded, short_type, timestamp_of
from services.kernel.log.sql import Tx, columns
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

# The index on custom fields cannot begin with the workspace; every query names it all the same.
_TABLES = """
create table {schema}.contacts (
    workspace text not null,
    contact_id text collate "C" not null,
    state int not null,
    given_name text collate "C",
    family_name text collate "C",
    email text collate "C",
    phone text collate "C",
    custom_fields jsonb not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, contact_id)
);
create index contacts_by_create_time
    on {schema}.contacts (workspace, create_time, contact_id);
create index contacts_by_update_position
    on {schema}.contacts (workspace, update_position);
create index contacts_by_family_name
    on {schema}.contacts (workspace, family_name, contact_id);
create index contacts_by_email
    on {schema}.contacts (workspace, email, contact_id);
create index contacts_by_custom_fields
    on {schema}.contacts using gin (custom_fields jsonb_path_ops);
"""

_COLUMNS = """contact_id, state, given_name, family_name, email, phone, custom_fields, version,
    partition, create_position, update_position, create_time, update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.contacts
join unnest($1::text[], $2::text[]) as asked (workspace, contact_id) using (workspace, contact_id)
"""

_SAVE = f"""
insert into {{schema}}.contacts (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::jsonb[], $9::bigint[], $10::int[], $11::bigint[], $12::bigint[],
    $13::timestamptz[], $14::timestamptz[]
)
on conflict (workspace, contact_id) do update set
    state = excluded.state, given_name = excluded.given_name, family_name = excluded.family_name,
    email = excluded.email, phone = excluded.phone, custom_fields = excluded.custom_fields,
    version = excluded.version, update_position = excluded.update_position,
    update_time = excluded.update_time
"""

_REMOVE = """
delete from {schema}.contacts c using unnest($1::text[], $2::text[]) gone (workspace, contact_id)
where (c.workspace, c.contact_id) = (gone.workspace, gone.contact_id)
"""

_ONE = f"""
select workspace, {_COLUMNS} from contacts.contacts where workspace = $1 and contact_id = $2
"""

_SEVERAL = f"""
select workspace, {_COLUMNS} from contacts.contacts where workspace = $1 and contact_id = any($2)
"""

_STATES = {
    "ACTIVE": CONTACT_STATE_ACTIVE,
    "ARCHIVED": CONTACT_STATE_ARCHIVED,
    "CONTACT_STATE_ACTIVE": CONTACT_STATE_ACTIVE,
    "CONTACT_STATE_ARCHIVED": CONTACT_STATE_ARCHIVED,
}

FIELDS = Fields(
    {
        "given_name": Field("given_name", Kind.TEXT),
        "family_name": Field("family_name", Kind.TEXT, sortable=True),
        "email": Field("email", Kind.TEXT, sortable=True),
        "phone": Field("phone", Kind.TEXT),
        "custom_fields": Field("custom_fields", Kind.STRUCT),
        "state": Field("state", Kind.ENUM, values=_STATES, nullable=False),
        "create_time": Field(
            "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
    },
    searched=("given_name", "family_name", "email", "phone"),
)

CONTACTS = Listing(
    method="ListContacts",
    table=Table("contacts.contacts", key="contact_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_COLUMNS}",
    fields=FIELDS,
    default_order="create_time",
)

_VERSION = Field("version", Kind.INTEGER, nullable=False)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        exists=True,
        given_name=record["given_name"] or "",
        family_name=record["family_name"] or "",
        email=record["email"] or "",
        phone=record["phone"] or "",
        custom_fields=json.loads(record["custom_fields"]),
        is_archived=record["state"] == CONTACT_STATE_ARCHIVED,
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return (
        state_of(state),
        state.given_name or None,
        state.family_name or None,
        state.email or None,
        state.phone or None,
        json.dumps(state.custom_fields, sort_keys=True),
    )


CONTACT_ROWS = AggregateRows(
    DECIDER,
    key="contact_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class ContactsView:
    """Keeps the rows."""

    name = "contacts"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        erased = {
            (event.workspace, event.stream): event.version
            for event in events
            if isinstance(event.event, ContactErased)
        }
        if erased:
            gone = [(workspace, DECIDER.id_of(stream)) for workspace, stream in sorted(erased)]
            await tx.execute(_REMOVE.format(schema=schema), *columns(gone))
        # What follows an erasure begins anew.
        left = [e for e in events if e.version > erased.get((e.workspace, e.stream), 0)]
        if left:
            await CONTACT_ROWS.fold(tx, schema, left)


async def list_contacts(
    pool: Pool, workspace: str, request: ListContactsRequest
) -> ListContactsResponse:
    """Returns a page of contacts."""
    heads = await read_heads(pool)
    query = CONTACTS.query(
        workspace=workspace,
        positions=tuple(heads.values()),
        filter=request.filter,
        order_by=request.order_by,
        page_size=request.page_size,
        page_token=request.page_token,
        where={} if request.show_archived else {"state": CONTACT_STATE_ACTIVE},
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    return ListContactsResponse(
        contacts=[contact_of(row.aggregate_id, row) for row in map(CONTACT_ROWS.row, page.rows)],
        next_page_token=page.next_page_token,
    )


async def list_history(
    pool: Pool, event_types: EventTypes, contact: Row, request: ListContactHistoryRequest
) -> ListContactHistoryResponse:
    """Returns a page of what happened to a contact, newest first, out of the log itself.

    Versions are dense, so a page is a range of them and needs no cursor but its first version.
    What was erased is not told.
    """
    fingerprint = fingerprint_of("ListContactHistory", contact.workspace, request.name)
    newest = contact.version
    if request.page_token:
        token = PageToken.decoded(request.page_token, fingerprint, [_VERSION])
        newest = min(newest, max(int(str(token.values[0])), 0))
    size = min(request.page_size, PAGE_SIZE_MAX) or PAGE_SIZE_DEFAULT
    oldest = max(newest - size, 0)
    envelopes = await read_stream(
        pool,
        contact.workspace,
        DECIDER.stream(contact.aggregate_id),
        after_version=oldest,
        limit=newest - oldest,
    )
    changes = [change_of(event) for event in reversed(event_types.decode_all(envelopes))]
    following = PageToken(fingerprint, positions=(), is_moved=False, values=(oldest,))
    return ListContactHistoryResponse(
        changes=changes, next_page_token=following.encoded([_VERSION]) if oldest else ""
    )


async def changed_contacts(
    pool: Pool, workspace: str, events: Sequence[Recorded], wanted: Filter
) -> list[Contact]:
    """Returns the contacts that events changed and that are wanted, as they are now.

    Each comes once, in the order of their last changes.
    """
    changed = {DECIDER.id_of(event.stream): place for place, event in enumerate(events)}
    records = await pool.fetch(_SEVERAL, workspace, list(changed))
    rows = [CONTACT_ROWS.row(record) for record in records if wanted.matches(record)]
    rows.sort(key=lambda row: changed[row.aggregate_id])
    return [contact_of(row.aggregate_id, row) for row in rows]


def contact_of(contact_id: str, known: Row | Decided[State]) -> Contact:
    """Returns a contact as the API shows it."""
    state = known.state
    return Contact(
        name=DECIDER.name(contact_id),
        given_name=state.given_name,
        family_name=state.family_name,
        email=state.email,
        phone=state.phone,
        custom_fields=state.custom_fields,
        state=state_of(state),
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def state_of(state: State) -> ContactState.ValueType:
    """Returns what the API calls the state of a contact that exists."""
    return CONTACT_STATE_ARCHIVED if state.is_archived else CONTACT_STATE_ACTIVE


def change_of(event: Recorded) -> ContactChange:
    """Returns an event as a contact's history shows it."""
    return ContactChange(
        type=short_type(event.type),
        version=event.version,
        actor=event.actor,
        occur_time=timestamp_of(event.occur_time),
        record_time=timestamp_of(event.record_time),
        details=MessageToJson(event.event, indent=None, always_print_fields_with_no_presence=True),
    )
