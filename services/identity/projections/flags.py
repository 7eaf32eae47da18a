"""The last flag of each identifier: whether people block it, or allow it however shared it looks.

A flag is in force while facts name its identifier; until then it waits in its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asyncpg import Pool

from rapport.identity.v1.flags_pb2 import (
    FlagKind,
    IdentifierFlag,
    ListIdentifierFlagsRequest,
    ListIdentifierFlagsResponse,
)
from rapport.identity.v1.service_pb2 import Identifier
from services.identity.erasures import ErasedKeys
from services.identity.facts import received_at
from services.identity.flags import Flag, FlaggedPlace, Kind
from services.identity.projections.graph_rows import Place
from services.kernel.lists.filter import Field, Fields
from services.kernel.lists.filter import Kind as FieldKind
from services.kernel.lists.paging import Listing, Row, Table
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.flags (
    workspace text not null,
    node text collate "C" not null,
    type text collate "C" not null,
    kind smallint not null,
    key bytea not null,
    decide_time timestamptz not null,
    actor text not null,
    reason text not null,
    primary key (workspace, node)
);
"""

_FIND = """
select workspace, node, key
from {schema}.flags
join unnest($1::text[], $2::text[]) asked (workspace, node) using (workspace, node)
"""

_SAVE = """
insert into {schema}.flags (workspace, node, type, kind, key, decide_time, actor, reason)
select * from unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::bytea[],
                     $6::timestamptz[], $7::text[], $8::text[])
on conflict (workspace, node) do update set
    kind = excluded.kind, key = excluded.key, decide_time = excluded.decide_time,
    actor = excluded.actor, reason = excluded.reason
"""

_HELD = """
select node, kind
from {schema}.flags
join unnest($1::text[], $2::text[]) asked (workspace, node) using (workspace, node)
where kind <> 0
"""

# First such flags hold no longer, and when it is seen what that changes, they are removed.
_SILENCE = """
update {schema}.flags f set kind = 0
from unnest($1::text[], $2::text[], $3::bytea[]) gone (workspace, node, key)
where f.workspace = gone.workspace and f.node = gone.node and f.key <= gone.key
returning f.workspace, f.node
"""

_FORGET = """
delete from {schema}.flags f
using unnest($1::text[], $2::text[], $3::bytea[]) gone (workspace, node, key)
where f.workspace = gone.workspace and f.node = gone.node and f.key <= gone.key
"""

_VALUES = "select node, value from profiles.nodes where workspace = $1 and node = any($2::text[])"

_FLAG = "node, type, kind, decide_time, actor, reason"

_OF_NODES = f"""
select {_FLAG} from profiles.flags where workspace = $1 and node = any($2::text[]) and kind <> 0
"""

FLAGS = Listing(
    method="ListIdentifierFlags",
    # No positions: the id is never changed, so a walk along it needs none.
    table=Table(
        "(select * from profiles.flags where workspace = {workspace} and kind <> 0) flags",
        key="node",
        positions=None,
    ),
    columns=_FLAG,
    fields=Fields(
        {
            "kind": Field(
                "kind",
                FieldKind.ENUM,
                nullable=False,
                values={
                    "FLAG_KIND_BLOCK": FlagKind.FLAG_KIND_BLOCK,
                    "FLAG_KIND_ALLOW": FlagKind.FLAG_KIND_ALLOW,
                },
            ),
            "identifier_type": Field("type", FieldKind.TEXT, nullable=False),
            "decide_time": Field("decide_time", FieldKind.TIMESTAMP, nullable=False),
        }
    ),
)


async def keep_flags(tx: Tx, schema: str, flags: Mapping[FlaggedPlace, Flag]) -> Sequence[Flag]:
    """Lets flags win or lose against those known; returns those that won."""
    places = sorted(flags)
    found = await tx.fetch(_FIND.format(schema=schema), *columns(places))
    known = {(row[0], row[1]): row[2] for row in found}
    won = [flags[place] for place in places if flags[place].key > known.get(place, b"")]
    if won:
        rows = [row_of(flag) for flag in won]
        await tx.execute(_SAVE.format(schema=schema), *columns(rows))
    return won


async def silence_flags(tx: Tx, schema: str, keys: ErasedKeys) -> set[Place]:
    """Lets the flags that are erased not hold; returns their places."""
    if not keys:
        return set()
    gone = columns([(*place, keys[place]) for place in sorted(keys)])
    rows = await tx.fetch(_SILENCE.format(schema=schema), *gone)
    return {(workspace, node) for workspace, node in rows}


async def forget_flags(tx: Tx, schema: str, keys: ErasedKeys) -> None:
    """Removes the flags that are erased."""
    if keys:
        gone = columns([(*place, keys[place]) for place in sorted(keys)])
        await tx.execute(_FORGET.format(schema=schema), *gone)


def row_of(flag: Flag) -> tuple[object, ...]:
    """Returns the row of a flag."""
    time = received_at(flag.key)
    about = *flag.place, flag.type, flag.kind, flag.key, time
    return *about, flag.event.actor, flag.reason


async def load_flags(tx: Tx, schema: str, places: Iterable[Place]) -> dict[str, bool]:
    """Loads the flags of nodes that hold: True blocks one, False allows it."""
    asked = sorted(places)
    if not asked:
        return {}
    rows = await tx.fetch(_HELD.format(schema=schema), *columns(asked))
    return {node: kind == Kind.BLOCK for node, kind in rows}


async def flags_of(tx: Tx, workspace: str, nodes: Iterable[str]) -> dict[str, IdentifierFlag]:
    """Returns the flags of nodes that hold, as they are answered."""
    rows = await tx.fetch(_OF_NODES, workspace, sorted(nodes))
    return await _told(tx, workspace, rows)


async def list_flags(
    pool: Pool, workspace: str, request: ListIdentifierFlagsRequest
) -> ListIdentifierFlagsResponse:
    """Returns a page of flags, by the nodes of their identifiers."""
    query = FLAGS.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    async with one_moment(pool) as tx:
        page = query.page(await tx.fetch(query.sql, *query.args))
        told = await _told(tx, workspace, page.rows)
    return ListIdentifierFlagsResponse(flags=told.values(), next_page_token=page.next_page_token)


async def _told(tx: Tx, workspace: str, rows: Sequence[Row]) -> dict[str, IdentifierFlag]:
    """Returns flags by their nodes, each with the identifier's value, if anybody tells of it."""
    found = await tx.fetch(_VALUES, workspace, [row["node"] for row in rows])
    values = {row["node"]: row["value"] for row in found}
    return {
        row["node"]: IdentifierFlag(
            identifier=Identifier(type=row["type"], value=values.get(row["node"], "")),
            kind=FlagKind.ValueType(row["kind"]),
            reason=row["reason"],
            actor=row["actor"],
            decide_time=timestamp_of(row["decide_time"]),
        )
        for row in rows
    }
