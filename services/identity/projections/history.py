"""The view `history`: what profiles were at every moment, folded from the own log.

Spans of record time say which nodes, values of traits, accounts and whole a profile had in
[from_time, to_time); entries say what became of it. No table holds an identifier's value. All rows
are found by profile or by node, so that a person can be taken out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from rapport.identity.v1.events_pb2 import ProfileErased
from services.identity.changes import id_of
from services.identity.chronicle import Cause, Chronicle, Entry, Spans, Whole
from services.identity.verdicts import Kind, Ruling
from services.kernel.log.recorded import Recorded, parts_behind
from services.kernel.log.sql import Tx, columns

V = TypeVar("V")

_TABLES = """
create table {schema}.nodes (
    workspace text not null,
    profile text collate "C" not null,
    node text collate "C" not null,
    type text not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, node, profile, from_time)
);
create index nodes_by_profile on {schema}.nodes (workspace, profile);
create table {schema}.traits (
    workspace text not null,
    profile text collate "C" not null,
    trait text collate "C" not null,
    value text not null,
    occur_time timestamptz not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, profile, trait, from_time)
);
create table {schema}.accounts (
    workspace text not null,
    profile text collate "C" not null,
    account text collate "C" not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, profile, account, from_time)
);
create table {schema}.wholes (
    workspace text not null,
    profile text collate "C" not null,
    whole text not null,
    create_time timestamptz not null,
    last_activity_time timestamptz,
    activity_count bigint not null,
    version bigint not null,
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, profile, from_time)
);
create table {schema}.entries (
    workspace text not null,
    profile text collate "C" not null,
    record_time timestamptz not null,
    place text collate "C" not null,
    kind smallint not null,
    other text collate "C",
    event_id uuid not null,
    cause_id text not null,
    activity text,
    resource text,
    primary key (workspace, profile, record_time, place)
);
create index entries_by_other on {schema}.entries (workspace, other) where other is not null;
create index entries_without_cause on {schema}.entries (workspace, cause_id)
    where activity is null;
create table {schema}.verdicts (
    workspace text not null,
    weak text collate "C" not null,
    strong text collate "C" not null,
    weak_type text not null,
    strong_type text not null,
    kind smallint not null,
    event_id text collate "C" not null,
    actor text not null,
    reason text not null,
    decide_time timestamptz not null,
    end_time timestamptz,
    end_actor text,
    end_reason text,
    primary key (workspace, event_id)
);
create index verdicts_by_weak on {schema}.verdicts (workspace, weak, strong);
create index verdicts_by_strong on {schema}.verdicts (workspace, strong);
create index verdicts_by_time on {schema}.verdicts (workspace, decide_time, event_id);
"""

_ADD_ENTRIES = """
insert into {schema}.entries
    (workspace, profile, record_time, place, kind, other, event_id, cause_id, activity, resource)
select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::smallint[],
                     $6::text[], $7::uuid[], $8::text[], $9::text[], $10::text[])
"""

# A batch may begin amid a transaction: what merged was told before it, and because of what in it.
_FIND_CAUSES = """
update {schema}.entries e
set activity = known.activity, resource = known.resource
from unnest($1::text[], $2::text[], $3::text[], $4::text[])
    known (workspace, cause_id, activity, resource)
where e.activity is null and (e.workspace, e.cause_id) = (known.workspace, known.cause_id)
"""

_END_VERDICT = """
update {schema}.verdicts set end_time = $4, end_actor = $5, end_reason = $6
where (workspace, weak, strong) = ($1, $2, $3) and end_time is null
"""

_FORGET = """
delete from {schema}.{table} t using unnest($1::text[], $2::text[]) gone (workspace, profile)
where (t.workspace, t.profile) = (gone.workspace, gone.profile)
"""

_FORGET_VERDICTS = """
delete from {schema}.verdicts where workspace = $1 and event_id = any($2::text[])
"""

_ADD_VERDICT = """
insert into {schema}.verdicts
    (workspace, weak, strong, weak_type, strong_type, kind, event_id, actor, reason, decide_time)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""


@dataclass(frozen=True, slots=True)
class SpanTable(Generic[V]):
    """How spans are kept: `about` is the column of what they are about, `types` are the values'."""

    name: str
    about: str
    types: Mapping[str, str]
    values: Callable[[V], tuple[object, ...]]

    async def keep(self, tx: Tx, schema: str, spans: Spans[V], began: datetime) -> None:
        """Ends spans that are kept, and adds new ones; `began` is when the batch was recorded."""
        ended = [(*place, about, time) for (place, about), time in spans.ended.items()]
        await self._end(tx, schema, ended, ("workspace", "profile", self.about), began)
        all_ended = [(*place, time) for place, time in spans.all_ended.items()]
        await self._end(tx, schema, all_ended, ("workspace", "profile"), began)
        rows = [
            (*place, about, since, until, *self.values(value))
            for place, about, since, until, value in spans.added()
        ]
        if rows:
            await tx.execute(self._add(schema), *columns(rows))

    async def _end(
        self,
        tx: Tx,
        schema: str,
        ended: Sequence[tuple[Any, ...]],
        key: tuple[str, ...],
        began: datetime,
    ) -> None:
        """Ends what goes on; what a batch before began in the same transaction never was."""
        arrays = ", ".join(f"${number}::text[]" for number in range(1, len(key) + 1))
        given = (
            f"unnest({arrays}, ${len(key) + 1}::timestamptz[]) ended ({', '.join(key)}, end_time) "
            "where t.to_time = 'infinity' and "
            + " and ".join(f"t.{column} = ended.{column}" for column in key)
        )
        table = f"{schema}.{self.name}"
        unseen = [row for row in ended if row[-1] == began]
        if unseen:
            statement = f"delete from {table} t using {given} and t.from_time = end_time"
            await tx.execute(statement, *columns(unseen))
        if ended:
            statement = f"update {table} t set to_time = end_time from {given}"
            await tx.execute(statement, *columns(ended))

    def _add(self, schema: str) -> str:
        types = ["text", "text", "text", "timestamptz", "timestamptz", *self.types.values()]
        arrays = ", ".join(f"${number}::{name}[]" for number, name in enumerate(types, start=1))
        shown = ", ".join(["workspace", "profile", self.about, "from_time", *self.types])
        given = ", ".join(
            ["workspace", "profile", self.about, "from_time", "end_time", *self.types]
        )
        return (
            f"insert into {schema}.{self.name} ({shown}, to_time) "
            f"select {shown}, coalesce(end_time, 'infinity') from unnest({arrays}) added ({given})"
        )


NODES: SpanTable[str] = SpanTable("nodes", "node", {"type": "text"}, lambda type_name: (type_name,))
TRAITS: SpanTable[Any] = SpanTable(
    "traits", "trait", {"value": "text", "occur_time": "timestamptz"}, lambda said: said
)
ACCOUNTS: SpanTable[None] = SpanTable("accounts", "account", {}, lambda _: ())
WHOLES: SpanTable[Whole] = SpanTable(
    "wholes",
    "whole",
    {
        "create_time": "timestamptz",
        "last_activity_time": "timestamptz",
        "activity_count": "bigint",
        "version": "bigint",
    },
    lambda whole: (
        whole.create_time,
        whole.last_activity_time,
        whole.activity_count,
        whole.version,
    ),
)


class HistoryView:
    """Keeps the tables."""

    name = "history"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds facts of our own into the tables."""
        for void, part in parts_behind(ProfileErased, events):
            await _forget_profiles(tx, schema, void)
            if part:
                await _keep(tx, schema, part)


async def forget_verdicts(tx: Tx, schema: str, workspace: str, event_ids: Iterable[str]) -> None:
    """Removes verdicts whose facts are erased, by the ids of these."""
    await tx.execute(_FORGET_VERDICTS.format(schema=schema), workspace, sorted(event_ids))


async def _forget_profiles(tx: Tx, schema: str, void: Sequence[Recorded]) -> None:
    """Removes all that was known of profiles."""
    rows = [
        (event.workspace, id_of(event.event.profile))
        for event in void
        if isinstance(event.event, ProfileErased)
    ]
    if rows:
        for table in ("nodes", "traits", "accounts", "wholes", "entries"):
            statement = _FORGET.format(schema=schema, table=table)
            await tx.execute(statement, *columns(sorted(rows)))


async def _keep(tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
    told = Chronicle.of(events)
    began = events[0].record_time
    await NODES.keep(tx, schema, told.nodes, began)
    await TRAITS.keep(tx, schema, told.traits, began)
    await ACCOUNTS.keep(tx, schema, told.accounts, began)
    await WHOLES.keep(tx, schema, told.wholes, began)
    await _find_causes(tx, schema, told.late_causes)
    rows = [_entry_row(entry) for entry in told.entries()]
    if rows:
        await tx.execute(_ADD_ENTRIES.format(schema=schema), *columns(rows))
    for ruling in told.rulings:
        await _rule(tx, schema, ruling)


async def _find_causes(tx: Tx, schema: str, causes: Mapping[tuple[str, str], Cause]) -> None:
    rows = [(*fact, cause.activity, cause.resource) for fact, cause in causes.items()]
    if rows:
        await tx.execute(_FIND_CAUSES.format(schema=schema), *columns(rows))


async def _rule(tx: Tx, schema: str, ruling: Ruling) -> None:
    """Ends the verdict on a pair, and keeps the one that takes its place."""
    event = ruling.event
    await tx.execute(
        _END_VERDICT.format(schema=schema),
        *ruling.place,
        event.record_time,
        event.actor,
        ruling.reason,
    )
    if ruling.kind is not Kind.NONE:
        await tx.execute(
            _ADD_VERDICT.format(schema=schema),
            *ruling.place,
            *ruling.types,
            ruling.kind,
            str(event.event_id),
            event.actor,
            ruling.reason,
            event.record_time,
        )


def _entry_row(entry: Entry) -> tuple[object, ...]:
    event, cause = entry.event, entry.cause
    return (
        *entry.place,
        event.record_time,
        f"{event.position:016x}-{event.partition}",
        entry.kind,
        entry.other,
        event.event_id,
        event.causation_id,
        *((cause.activity, cause.resource) if cause else (None, None)),
    )
