"""The view `webhooks`: webhooks, their secrets, and which of them has an address.

It is read at once: an address takes deliveries as soon as it was answered. A secret that expired
keeps its row; it is only believed no longer.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from rapport.events.v1.events_pb2 import (
    WebhookCreated,
    WebhookMapping,
    WebhookSecretRotated,
    WebhookSignature,
)
from rapport.events.v1.webhooks_pb2 import (
    ListWebhooksResponse,
    Webhook,
    WebhookSecret,
    WebhookState,
)
from services.events.deciders.webhook import DECIDER, State
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from asyncpg import Pool, Record

    from rapport.events.v1.webhooks_pb2 import ListWebhooksRequest
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

SECRETS_TRIED_MAX = 5
"""Secrets of a webhook that a signature may be of, the newest first."""
SECRETS_TOLD_MAX = 20

_TABLES = """
create table {schema}.webhooks (
    workspace text not null,
    webhook_id text collate "C" not null,
    display_name text collate "C" not null,
    source text collate "C" not null,
    signature bytea not null,
    mapping bytea not null,
    is_disabled boolean not null,
    address_id text collate "C" not null unique,
    secret_id text not null,
    is_secret_given boolean not null,
    state int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, webhook_id)
);
create index webhooks_by_create_time on {schema}.webhooks (workspace, create_time, webhook_id);
create index webhooks_by_update_position on {schema}.webhooks (workspace, update_position);
create table {schema}.secrets (
    workspace text not null,
    webhook_id text collate "C" not null,
    secret_id text collate "C" not null,
    sealed bytea not null,
    create_position bigint not null,
    create_time timestamptz not null,
    expire_time timestamptz,
    primary key (workspace, webhook_id, secret_id)
);
"""

_COLUMNS = """webhook_id, display_name, source, signature, mapping, is_disabled, address_id,
    secret_id, is_secret_given, state, version, partition, create_position, update_position,
    create_time, update_time"""

_ROWS = f"""
select workspace, {_COLUMNS}
from {{schema}}.webhooks
join unnest($1::text[], $2::text[]) as asked (workspace, webhook_id) using (workspace, webhook_id)
"""

_SAVE = f"""
insert into {{schema}}.webhooks (workspace, {_COLUMNS})
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bool[],
    $8::text[], $9::text[], $10::bool[], $11::int[], $12::bigint[], $13::int[], $14::bigint[],
    $15::bigint[], $16::timestamptz[], $17::timestamptz[]
)
on conflict (workspace, webhook_id) do update set
    display_name = excluded.display_name, signature = excluded.signature,
    mapping = excluded.mapping, is_disabled = excluded.is_disabled,
    secret_id = excluded.secret_id, is_secret_given = excluded.is_secret_given,
    state = excluded.state, version = excluded.version,
    update_position = excluded.update_position, update_time = excluded.update_time
"""

_ONE = f"""
select workspace, {_COLUMNS} from webhooks.webhooks where workspace = $1 and webhook_id = $2
"""

_BY_ADDRESS = f"select workspace, {_COLUMNS} from webhooks.webhooks where address_id = $1"

_ADD_ISSUED = """
insert into {schema}.secrets
    (workspace, webhook_id, secret_id, sealed, create_position, create_time)
values ($1, $2, $3, $4, $5, $6)
"""

_EXPIRE_OTHERS = """
update {schema}.secrets set expire_time = least(expire_time, $4)
where workspace = $1 and webhook_id = $2 and secret_id <> $3
"""

_SECRETS = """
select webhook_id, secret_id, sealed, create_time, expire_time
from unnest($2::text[]) as asked (webhook_id)
cross join lateral (
    select secret_id, sealed, create_position, create_time, expire_time from webhooks.secrets s
    where s.workspace = $1 and s.webhook_id = asked.webhook_id
    order by create_position desc limit $3
) as found
order by create_position desc
"""

_STATES = {
    "ENABLED": WebhookState.WEBHOOK_STATE_ENABLED,
    "DISABLED": WebhookState.WEBHOOK_STATE_DISABLED,
    "WEBHOOK_STATE_ENABLED": WebhookState.WEBHOOK_STATE_ENABLED,
    "WEBHOOK_STATE_DISABLED": WebhookState.WEBHOOK_STATE_DISABLED,
}

WEBHOOKS = Listing(
    method="ListWebhooks",
    table=Table("webhooks.webhooks", key="webhook_id", positions=Positions(partition="partition")),
    columns=f"workspace, {_COLUMNS}",
    fields=Fields(
        {
            "display_name": Field("display_name", Kind.TEXT, sortable=True, nullable=False),
            "source": Field("source", Kind.TEXT, sortable=True, immutable=True, nullable=False),
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


class Secret(NamedTuple):
    """A secret as it is kept: sealed, or not at all when it is ours."""

    secret_id: str
    sealed: bytes
    create_time: datetime
    expire_time: datetime | None


def _state_in(record: Any) -> State:
    return State(
        exists=True,
        display_name=record["display_name"],
        source=record["source"],
        signature=record["signature"],
        mapping=record["mapping"],
        is_disabled=record["is_disabled"],
        address_id=record["address_id"],
        secret_id=record["secret_id"],
        is_secret_given=record["is_secret_given"],
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return (
        state.display_name,
        state.source,
        state.signature,
        state.mapping,
        state.is_disabled,
        state.address_id,
        state.secret_id,
        state.is_secret_given,
        state_of(state),
    )


WEBHOOK_ROWS = AggregateRows(
    DECIDER,
    key="webhook_id",
    several=_ROWS,
    save=_SAVE,
    one=_ONE,
    state_of=_state_in,
    state_columns=_state_columns,
)


class WebhooksView:
    """Keeps webhooks and their secrets."""

    name = "webhooks"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of webhooks; those of secrets change rows of theirs."""
        own = WEBHOOK_ROWS.own(events)
        if not own:
            return
        await WEBHOOK_ROWS.fold(tx, schema, own)
        for event in own:
            await _apply_to_secrets(tx, schema, event)


async def _apply_to_secrets(tx: Tx, schema: str, event: Recorded) -> None:
    fact, now = event.event, event.record_time
    if not isinstance(fact, WebhookCreated | WebhookSecretRotated):
        return
    webhook = event.workspace, DECIDER.id_of(event.stream)
    secret = fact.secret.secret_id, fact.secret.sealed
    await tx.execute(_ADD_ISSUED.format(schema=schema), *webhook, *secret, event.position, now)
    if isinstance(fact, WebhookSecretRotated):
        until = now + timedelta(seconds=fact.grace_s)
        statement = _EXPIRE_OTHERS.format(schema=schema)
        await tx.execute(statement, *webhook, fact.secret.secret_id, until)


async def list_webhooks(
    pool: Pool, workspace: str, request: ListWebhooksRequest
) -> ListWebhooksResponse:
    """Returns a page of webhooks, disabled ones too."""
    rows, next_page_token = await WEBHOOK_ROWS.page(pool, WEBHOOKS, workspace, request)
    found = await secrets_of(pool, workspace, [row.aggregate_id for row in rows])
    webhooks = [webhook_of(row.aggregate_id, row, found.get(row.aggregate_id, ())) for row in rows]
    return ListWebhooksResponse(webhooks=webhooks, next_page_token=next_page_token)


async def secrets_of(
    pool: Pool, workspace: str, webhook_ids: Sequence[str]
) -> dict[str, list[Secret]]:
    """The newest secrets of webhooks, the newest first."""
    found: dict[str, list[Secret]] = {}
    for row in await pool.fetch(_SECRETS, workspace, webhook_ids, SECRETS_TOLD_MAX):
        found.setdefault(row["webhook_id"], []).append(_secret(row))
    return found


def believed(secrets: Iterable[Secret], now: datetime) -> list[Secret]:
    """Those that a signature may be of at a moment."""
    found = [it for it in secrets if it.expire_time is None or it.expire_time > now]
    return found[:SECRETS_TRIED_MAX]


async def webhook_at(pool: Pool, address_id: str) -> Row | None:
    """The webhook that has an address: of all workspaces, as its address is."""
    record = await pool.fetchrow(_BY_ADDRESS, address_id)
    return None if record is None else WEBHOOK_ROWS.row(record)


def webhook_of(webhook_id: str, known: Row | Decided[State], secrets: Iterable[Secret]) -> Webhook:
    """Returns a webhook as the API shows it."""
    state = known.state
    return Webhook(
        name=DECIDER.name(webhook_id),
        display_name=state.display_name,
        source=state.source,
        signature=WebhookSignature.FromString(state.signature),
        mapping=WebhookMapping.FromString(state.mapping),
        state=state_of(state),
        address_id=state.address_id,
        secrets=map(_told, secrets),
        etag=etag_of(known.version),
        create_time=timestamp_of(known.create_time),
        update_time=timestamp_of(known.update_time),
    )


def state_of(state: State) -> WebhookState.ValueType:
    """Returns what the API calls the state of a webhook that exists."""
    if state.is_disabled:
        return WebhookState.WEBHOOK_STATE_DISABLED
    return WebhookState.WEBHOOK_STATE_ENABLED


def _secret(row: Record) -> Secret:
    return Secret(row["secret_id"], row["sealed"], row["create_time"], row["expire_time"])


def _told(secret: Secret) -> WebhookSecret:
    told = WebhookSecret(
        secret_id=secret.secret_id,
        is_given=bool(secret.sealed),
        create_time=timestamp_of(secret.create_time),
    )
    if secret.expire_time is not None:
        told.expire_time.CopyFrom(timestamp_of(secret.expire_time))
    return told
