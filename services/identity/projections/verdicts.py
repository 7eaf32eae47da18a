"""The last verdict on each pair of identifiers, and whether a link could be followed.

A verdict is in force while facts name both of its identifiers; until then it waits in its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asyncpg import Pool

from services.identity.erasures import ErasedKeys
from services.identity.graph import Edge, Pair
from services.identity.traits import Traits
from services.identity.verdicts import JudgedPlace, Kind, Ruling
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx, columns
from services.kernel.log.writing import change_rows_soon

TABLES = """
create table {schema}.verdicts (
    workspace text not null,
    weak text collate "C" not null,
    strong text collate "C" not null,
    weak_type text not null,
    strong_type text not null,
    kind smallint not null,
    key bytea not null,
    actor text not null,
    reason text not null,
    is_rejected boolean not null,
    primary key (workspace, weak, strong)
);
create index verdicts_by_strong on {schema}.verdicts (workspace, strong);
"""

_FIND = """
select workspace, weak, strong, kind, key
from {schema}.verdicts
join unnest($1::text[], $2::text[], $3::text[]) asked (workspace, weak, strong)
    using (workspace, weak, strong)
"""

_SAVE = """
insert into {schema}.verdicts
    (workspace, weak, strong, weak_type, strong_type, kind, key, actor, reason, is_rejected)
select *, false from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
                            $6::smallint[], $7::bytea[], $8::text[], $9::text[])
on conflict (workspace, weak, strong) do update set
    kind = excluded.kind, key = excluded.key, actor = excluded.actor, reason = excluded.reason,
    is_rejected = excluded.is_rejected
"""

_MARK = """
update {schema}.verdicts v set is_rejected = marked.is_rejected
from unnest($1::text[], $2::text[], $3::text[], $4::bool[])
    marked (workspace, weak, strong, is_rejected)
where v.workspace = marked.workspace and v.weak = marked.weak and v.strong = marked.strong
"""

_NAMING = """
with gone as (
    select * from unnest($1::text[], $2::text[], $3::bytea[]) gone (workspace, node, key)
), covered as (
    select v.workspace, v.weak, v.strong, gone.node from gone
    join {schema}.verdicts v on v.workspace = gone.workspace and v.weak = gone.node
    where v.key <= gone.key
    union
    select v.workspace, v.weak, v.strong, gone.node from gone
    join {schema}.verdicts v on v.workspace = gone.workspace and v.strong = gone.node
    where v.key <= gone.key
)
"""

_SILENCE = f"""
{_NAMING}
update {{schema}}.verdicts v set kind = 0 from covered
where (v.workspace, v.weak, v.strong) = (covered.workspace, covered.weak, covered.strong)
returning v.workspace, v.weak, v.strong, covered.node
"""

_FORGET = f"""
{_NAMING}
delete from {{schema}}.verdicts v using covered
where (v.workspace, v.weak, v.strong) = (covered.workspace, covered.weak, covered.strong)
"""

_OF_NODES = """
select workspace, weak, strong, kind, key, is_rejected
from {schema}.verdicts
join unnest($1::text[], $2::text[]) asked (workspace, weak) using (workspace, weak)
where kind <> 0
union
select workspace, weak, strong, kind, key, is_rejected
from {schema}.verdicts
join unnest($1::text[], $2::text[]) asked (workspace, strong) using (workspace, strong)
where kind <> 0
"""

_COUNT_OTHERS = """
select judged.node, count(v.workspace) as others
from unnest(array[$2::text, $3::text]) judged (node)
left join profiles.verdicts v
    on v.workspace = $1 and v.kind <> 0 and (v.weak = judged.node or v.strong = judged.node)
    and not (v.weak = $2 and v.strong = $3)
group by judged.node
"""

Place = tuple[str, str]  # workspace, node


@dataclass(frozen=True, slots=True)
class Turn:
    """A verdict that is another than before: what it was, and what it is."""

    ruling: Ruling
    before: Kind

    @property
    def is_new_cut(self) -> bool:
        """Whether it only keeps apart from now on."""
        return self.ruling.kind is Kind.CUT

    @property
    def news(self) -> tuple[Judged, Judged]:
        """What became known of its two identifiers."""
        one, other = self.ruling.pair
        return Judged(self.ruling.event, one), Judged(self.ruling.event, other)


@dataclass(frozen=True, slots=True)
class Judged:
    """News of a node: a verdict on it. It says no trait."""

    event: Recorded
    atom: str
    traits: Traits = ()

    @property
    def nodes(self) -> Sequence[str]:
        """The nodes it is about."""
        return (self.atom,)


@dataclass(frozen=True, slots=True)
class Held:
    """A verdict that holds; `edge` is the connection that a link is."""

    workspace: str
    kind: Kind
    edge: Edge
    is_rejected: bool


async def keep_rulings(
    tx: Tx, schema: str, rulings: Mapping[JudgedPlace, Ruling]
) -> Sequence[Turn]:
    """Lets verdicts win or lose against those known; returns those that won."""
    places = sorted(rulings)
    found = await tx.fetch(_FIND.format(schema=schema), *columns(places))
    known = {(row[0], row[1], row[2]): (Kind(row[3]), row[4]) for row in found}
    turns, rows = [], []
    for place in places:
        ruling = rulings[place]
        before, key = known.get(place, (Kind.NONE, b""))
        if ruling.key > key:
            turns.append(Turn(ruling, before))
            rows.append(row_of(ruling))
    if rows:
        await tx.execute(_SAVE.format(schema=schema), *columns(rows))
    return turns


async def silence_verdicts(tx: Tx, schema: str, keys: ErasedKeys) -> list[tuple[JudgedPlace, str]]:
    """Lets the verdicts that are erased not hold; returns their places, and the node of each."""
    if not keys:
        return []
    gone = columns([(*place, keys[place]) for place in sorted(keys)])
    rows = await tx.fetch(_SILENCE.format(schema=schema), *gone)
    return [((workspace, weak, strong), node) for workspace, weak, strong, node in rows]


async def forget_verdicts(tx: Tx, schema: str, keys: ErasedKeys) -> None:
    """Removes the verdicts that are erased."""
    if keys:
        gone = columns([(*place, keys[place]) for place in sorted(keys)])
        await tx.execute(_FORGET.format(schema=schema), *gone)


def row_of(ruling: Ruling) -> tuple[object, ...]:
    """Returns a verdict's row, but for whether it could be followed."""
    event = ruling.event
    return (*ruling.place, *ruling.types, ruling.kind, ruling.key, event.actor, ruling.reason)


async def load_verdicts(tx: Tx, schema: str, places: Iterable[Place]) -> list[Held]:
    """Loads the verdicts on nodes that hold."""
    asked = sorted(places)
    if not asked:
        return []
    rows = await tx.fetch(_OF_NODES.format(schema=schema), *columns(asked))
    return [
        Held(workspace, Kind(kind), Edge(weak, strong, key, is_link=True), is_rejected)
        for workspace, weak, strong, kind, key, is_rejected in sorted(map(tuple, rows))
    ]


def mark(tx: Tx, schema: str, links: Iterable[tuple[str, str, str, bool]]) -> None:
    """Saves of links, by workspace and pair, whether they could not be followed."""
    change_rows_soon(tx, _MARK.format(schema=schema), links)


async def count_others(pool: Pool, workspace: str, pair: Pair) -> dict[str, int]:
    """Returns how many verdicts hold on each of two identifiers, beside the one on both."""
    rows = await pool.fetch(_COUNT_OTHERS, workspace, *pair)
    return {row["node"]: row["others"] for row in rows}
