"""The questions about the past that are lists: what became of a profile, and verdicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from asyncpg import Pool

from rapport.identity.v1 import history_pb2 as pb
from rapport.identity.v1.flags_pb2 import FlagKind, IdentifierFlag
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.verdicts_pb2 import (
    ListVerdictsRequest,
    ListVerdictsResponse,
    Verdict,
    VerdictKind,
)
from services.identity.changes import id_of, name_of
from services.identity.flags import FACTS as FLAGS
from services.identity.flags import flag_of
from services.identity.identifiers import Identifier
from services.identity.projections.profiles import find_profile_id, is_id
from services.kernel.errors import NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.database import one_moment
from services.kernel.log.log import envelope_of
from services.kernel.log.recorded import EventTypes, timestamp_of
from services.kernel.log.sql import Tx

_IS_KNOWN = "select exists (select from history.entries where workspace = $1 and profile = $2)"

_VERDICTS_OF_EVENTS = """
select * from history.verdicts where workspace = $1 and event_id = any($2::text[])
"""

_FLAGS_OF_EVENTS = """
select * from kernel.events
where workspace = $1 and event_id = any($2::uuid[]) and type = any($3::text[])
"""
_FLAG_TYPES = [fact.DESCRIPTOR.full_name for fact in FLAGS.values()]

_VALUES = "select node, value from profiles.nodes where workspace = $1 and node = any($2::text[])"

# As they are named elsewhere: filters know other profiles by their names.
_ENTRIES = "(select *, 'profiles/' || other as other_profile from history.entries) as entries"

ENTRIES = Listing(
    method="ListProfileHistory",
    table=Table(_ENTRIES, key="place", positions=None),
    columns="*",
    fields=Fields(
        {
            "kind": Field("kind", Kind.ENUM, values=dict(pb.ProfileHistoryKind.items())),
            "other_profile": Field("other_profile", Kind.TEXT),
            "record_time": Field(
                "record_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "activity": Field("activity", Kind.TEXT),
            "resource": Field("resource", Kind.TEXT),
        }
    ),
    default_order="record_time desc",
)

_VERDICT_FIELDS = Fields(
    {
        "kind": Field("kind", Kind.ENUM, values=dict(VerdictKind.items())),
        "actor": Field("actor", Kind.TEXT, nullable=False),
        "decide_time": Field(
            "decide_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "end_time": Field("end_time", Kind.TIMESTAMP),
        "end_actor": Field("end_actor", Kind.TEXT),
        "is_in_force": Field("is_in_force", Kind.BOOLEAN, nullable=False),
    }
)

_ALL = "(select *, end_time is null as is_in_force from history.verdicts) as verdicts"

_BY_NODE = """(
    select *, weak as node, end_time is null as is_in_force from history.verdicts
    union all
    select *, strong, end_time is null from history.verdicts
) as verdicts"""

VERDICTS, VERDICTS_ON = (
    Listing(
        method="ListVerdicts",
        table=Table(table, key="event_id", positions=None),
        columns="*",
        fields=_VERDICT_FIELDS,
        default_order="decide_time desc",
    )
    for table in (_ALL, _BY_NODE)
)


async def list_profile_history(
    pool: Pool, event_types: EventTypes, workspace: str, request: pb.ListProfileHistoryRequest
) -> pb.ListProfileHistoryResponse:
    """Returns a page of what became of a profile, newest first; InvalidArgument or NotFound."""
    if is_id(request.name):
        profile = id_of(request.name)
    else:
        profile = await find_profile_id(pool, workspace, request.name)
    query = ENTRIES.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
        where={"profile": profile},
    )
    async with one_moment(pool) as tx:
        if not await tx.fetchval(_IS_KNOWN, workspace, profile):
            raise NotFound(request.name)
        page = query.page(await tx.fetch(query.sql, *query.args))
        causes = [row["cause_id"] for row in page.rows]
        rows = await tx.fetch(_VERDICTS_OF_EVENTS, workspace, causes)
        values = await _values(tx, workspace, rows)
        flags = await _flags_of_events(tx, event_types, workspace, causes)
    verdicts = {row["event_id"]: _verdict(row, values) for row in rows}
    return pb.ListProfileHistoryResponse(
        entries=[
            _entry(row, verdicts.get(row["cause_id"]), flags.get(row["cause_id"]))
            for row in page.rows
        ],
        next_page_token=page.next_page_token,
    )


async def list_verdicts(
    pool: Pool, workspace: str, request: ListVerdictsRequest, on: Identifier | None
) -> ListVerdictsResponse:
    """Returns a page of verdicts, newest first, all of them or those on an identifier."""
    listing = VERDICTS if on is None else VERDICTS_ON
    query = listing.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
        where=None if on is None else {"node": on.node},
    )
    async with one_moment(pool) as tx:
        page = query.page(await tx.fetch(query.sql, *query.args))
        values = await _values(tx, workspace, page.rows)
    return ListVerdictsResponse(
        verdicts=[_verdict(row, values) for row in page.rows],
        next_page_token=page.next_page_token,
    )


async def _flags_of_events(
    tx: Tx, event_types: EventTypes, workspace: str, event_ids: Collection[str]
) -> Mapping[str, IdentifierFlag]:
    """Returns the flags that facts of our own log gave, by their ids; empty what was erased."""
    asked = sorted({event_id for event_id in event_ids if event_id})
    found: dict[str, IdentifierFlag] = {}
    nodes: dict[str, str] = {}
    for row in await tx.fetch(_FLAGS_OF_EVENTS, workspace, asked, _FLAG_TYPES):
        event_id = str(row["event_id"])
        found[event_id] = IdentifierFlag()
        if row["erasure"] is None:
            flag = flag_of(event_types.decode(envelope_of(row)))
            assert flag is not None
            nodes[event_id] = flag.node
            found[event_id] = IdentifierFlag(
                identifier=Named(type=flag.type),
                kind=FlagKind.ValueType(flag.kind),
                reason=flag.reason,
                actor=flag.event.actor,
                decide_time=timestamp_of(flag.event.record_time),
            )
    values = await _values_of(tx, workspace, nodes.values())
    for event_id, node in nodes.items():
        found[event_id].identifier.value = values.get(node, "")
    return found


async def _values(tx: Tx, workspace: str, verdicts: Collection[Any]) -> Mapping[str, str]:
    """Returns the values of the identifiers that verdicts are on, where anybody tells of them."""
    nodes = {row[side] for row in verdicts for side in ("weak", "strong")}
    return await _values_of(tx, workspace, nodes)


async def _values_of(tx: Tx, workspace: str, nodes: Collection[str]) -> Mapping[str, str]:
    rows = await tx.fetch(_VALUES, workspace, sorted(nodes)) if nodes else []
    return {row["node"]: row["value"] for row in rows}


def _entry(
    row: Any, verdict: Verdict | None, flag: IdentifierFlag | None
) -> pb.ProfileHistoryEntry:
    is_decided = verdict is not None or flag is not None
    return pb.ProfileHistoryEntry(
        kind=row["kind"],
        other_profile="" if row["other"] is None else name_of(row["other"]),
        record_time=timestamp_of(row["record_time"]),
        event_id=str(row["event_id"]),
        cause=pb.ProfileHistoryCause(
            event_id=row["cause_id"],
            activity=row["activity"] or "",
            resource=row["resource"] or "",
            # Every other fact is told as an activity in the same transaction.
            is_retraction=bool(row["cause_id"]) and row["activity"] is None and not is_decided,
            verdict=verdict,
            flag=flag,
        ),
    )


def _verdict(row: Any, values: Mapping[str, str]) -> Verdict:
    found = Verdict(
        one=Named(type=row["strong_type"], value=values.get(row["strong"], "")),
        other=Named(type=row["weak_type"], value=values.get(row["weak"], "")),
        kind=VerdictKind.ValueType(row["kind"]),
        reason=row["reason"],
        actor=row["actor"],
        decide_time=timestamp_of(row["decide_time"]),
    )
    if row["end_time"] is not None:
        found.end_time.CopyFrom(timestamp_of(row["end_time"]))
        found.end_actor = row["end_actor"]
        found.end_reason = row["end_reason"]
    return found
