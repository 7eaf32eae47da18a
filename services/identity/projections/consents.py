"""Words on consent: each once, with its atom, and which of them was the last under which node.

A word of an import that is taken back leaves the place to the last one before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.identity.consents import Status, Word, word_of_event, word_of_fact
from services.identity.erasures import Erased, Place
from services.identity.facts import Fact
from services.identity.retraction import Lost
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx, columns
from services.kernel.views.bulk import BULK_STATEMENT_TIMEOUT_S

TABLES = """
create table {schema}.consent_words (
    workspace text not null,
    atom text collate "C" not null,
    occur_time timestamptz not null,
    key bytea not null,
    purpose_id text collate "C" not null,
    status smallint not null,
    granted text not null,
    expire_time timestamptz,
    source text not null,
    actor text not null,
    nodes text[] not null,
    types text[] not null,
    primary key (workspace, atom, occur_time, key)
);
create table {schema}.consents (
    workspace text not null,
    node text collate "C" not null,
    atom text collate "C" not null,
    purpose_id text collate "C" not null,
    occur_time timestamptz not null,
    key bytea not null,
    primary key (workspace, node, atom, purpose_id)
) with (fillfactor = 80);
"""

COLUMNS = (
    "workspace",
    "atom",
    "nodes",
    "key",
    "occur_time",
    "purpose_id",
    "status",
    "granted",
    "expire_time",
    "source",
    "actor",
    "types",
)

WORD_COLUMNS = "w.atom, w.nodes, w.key, w.occur_time, w.purpose_id, w.status, w.granted, \
w.expire_time, w.source, w.actor, w.types"

# Arrays of arrays are one long array to PostgreSQL, hence texts that it reads as arrays.
_ADD = f"""
insert into {{schema}}.consent_words ({", ".join(COLUMNS)})
select workspace, atom, string_to_array(nodes, ','), key, occur_time, purpose_id, status, granted,
       expire_time, source, actor, string_to_array(types, ',')
from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[], $6::text[],
            $7::smallint[], $8::text[], $9::timestamptz[], $10::text[], $11::text[], $12::text[])
    said ({", ".join(COLUMNS)})
on conflict do nothing
"""

_SAVE_LAST = """
insert into {schema}.consents as known (workspace, node, atom, purpose_id, occur_time, key)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bytea[])
on conflict (workspace, node, atom, purpose_id) do update set
    occur_time = excluded.occur_time, key = excluded.key
where (known.occur_time, known.key) < (excluded.occur_time, excluded.key)
"""

_REMOVE = """
delete from {schema}.consent_words w
using unnest($1::text[], $2::text[], $3::timestamptz[], $4::bytea[])
    lost (workspace, atom, occur_time, key)
where w.workspace = lost.workspace and w.atom = lost.atom and w.occur_time = lost.occur_time
    and w.key = lost.key
returning w.workspace, w.atom, w.purpose_id, w.nodes
"""

# A word is the last one of its atom under each of its nodes, or comes before that.
_FORGET = """
delete from {schema}.consent_words w
using (
    select distinct gone.workspace, gone.node, gone.key, c.atom
    from unnest($1::text[], $2::text[], $3::bytea[]) gone (workspace, node, key)
    join {schema}.consents c on c.workspace = gone.workspace and c.node = gone.node
) gone
where w.workspace = gone.workspace and w.atom = gone.atom and gone.node = any(w.nodes)
    and w.key <= gone.key
returning w.workspace, w.atom, w.purpose_id, w.nodes, gone.node
"""

_DROP_LAST = """
delete from {schema}.consents c
using unnest($1::text[], $2::text[], $3::text[], $4::text[])
    shaken (workspace, node, atom, purpose_id)
where c.workspace = shaken.workspace and c.node = shaken.node and c.atom = shaken.atom
    and c.purpose_id = shaken.purpose_id
"""

_FIND_LAST = """
insert into {schema}.consents (workspace, node, atom, purpose_id, occur_time, key)
select shaken.workspace, shaken.node, shaken.atom, shaken.purpose_id, w.occur_time, w.key
from unnest($1::text[], $2::text[], $3::text[], $4::text[])
    shaken (workspace, node, atom, purpose_id)
cross join lateral (
    select occur_time, key from {schema}.consent_words
    where workspace = shaken.workspace and atom = shaken.atom and purpose_id = shaken.purpose_id
        and shaken.node = any(nodes)
    order by occur_time desc, key desc
    limit 1
) w
"""

_FIND_ALL = """
insert into {schema}.consents (workspace, node, atom, purpose_id, occur_time, key)
select distinct on (workspace, node, atom, purpose_id)
    workspace, node, atom, purpose_id, occur_time, key
from {schema}.consent_words cross join unnest(nodes) node
order by workspace, node, atom, purpose_id, occur_time desc, key desc
"""

Row = tuple[object, ...]


async def keep_words(
    tx: Tx, schema: str, facts: Sequence[Fact], events: Sequence[Recorded]
) -> dict[Place, Recorded]:
    """Keeps what new facts say, and events of the own log; returns under which nodes they do."""
    said = [(fact.event, word) for fact in facts if (word := word_of_fact(fact)) is not None]
    said += [(event, word) for event in events if (word := word_of_event(event)) is not None]
    if not said:
        return {}
    rows = [list(map(_joined, row_of(*each))) for each in said]
    await tx.execute(_ADD.format(schema=schema), *columns(rows))
    last: dict[tuple[str, str, str, str], Word] = {}
    for event, word in said:
        for node in word.nodes:
            place = event.workspace, node, word.atom, word.purpose_id
            known = last.get(place)
            if known is None or known.order < word.order:
                last[place] = word
    lasts = [(*place, *last[place].order) for place in sorted(last)]
    await tx.execute(_SAVE_LAST.format(schema=schema), *columns(lasts))
    return {(event.workspace, node): event for event, word in said for node in word.nodes}


async def take_words_back(tx: Tx, schema: str, lost: Sequence[Lost]) -> dict[Place, Recorded]:
    """Removes what facts said that are no more; returns under which nodes, with what does so."""
    causes = {(each.event.workspace, each.atom): each.event for each in lost}
    asked = [
        (each.event.workspace, each.atom, each.fact.occur_time, each.fact.key) for each in lost
    ]
    removed = await tx.fetch(_REMOVE.format(schema=schema), *columns(asked))
    await _find_last(tx, schema, removed)
    return {
        (row["workspace"], node): causes[row["workspace"], row["atom"]]
        for row in removed
        for node in row["nodes"]
    }


async def forget_words(
    tx: Tx, schema: str, erased: Mapping[Place, Erased]
) -> dict[Place, Recorded]:
    """Removes what is erased; returns under which nodes it was said, with what erases it."""
    if not erased:
        return {}
    gone = columns([(*place, erased[place].key) for place in sorted(erased)])
    removed = await tx.fetch(_FORGET.format(schema=schema), *gone)
    await _find_last(tx, schema, removed)
    return {
        (row["workspace"], node): erased[row["workspace"], row["node"]].event
        for row in removed
        for node in row["nodes"]
    }


async def _find_last(tx: Tx, schema: str, removed: Iterable[Any]) -> None:
    """Finds the last words anew where some were removed."""
    shaken = {
        (row["workspace"], node, row["atom"], row["purpose_id"])
        for row in removed
        for node in row["nodes"]
    }
    if shaken:
        places = columns(sorted(shaken))
        await tx.execute(_DROP_LAST.format(schema=schema), *places)
        await tx.execute(_FIND_LAST.format(schema=schema), *places)


async def find_last_words(tx: Tx, schema: str) -> None:
    """Finds the last words among all that were written at once."""
    await tx.execute(_FIND_ALL.format(schema=schema), timeout=BULK_STATEMENT_TIMEOUT_S)


def word_in(row: Any) -> Word:
    """Returns the word that a row holds."""
    return Word(
        atom=row["atom"],
        nodes=tuple(row["nodes"]),
        key=row["key"],
        occur_time=row["occur_time"],
        purpose_id=row["purpose_id"],
        status=Status(row["status"]),
        granted=tuple(json.loads(row["granted"])),
        expire_time=row["expire_time"],
        source=row["source"],
        actor=row["actor"],
        types=tuple(row["types"]),
    )


def words_by_profile(rows: Iterable[Any]) -> dict[str, list[tuple[str, Word]]]:
    """Returns the words of rows, each with its node, by profile."""
    found: dict[str, list[tuple[str, Word]]] = {}
    for row in rows:
        found.setdefault(row["profile"], []).append((row["node"], word_in(row)))
    return found


def row_of(event: Recorded, word: Word) -> Row:
    """Returns a word as its row."""
    return (
        event.workspace,
        word.atom,
        word.nodes,
        word.key,
        word.occur_time,
        word.purpose_id,
        word.status,
        json.dumps(word.granted),
        word.expire_time,
        word.source,
        word.actor,
        word.types,
    )


def _joined(value: object) -> object:
    return ",".join(value) if isinstance(value, tuple) else value
