"""What systems of record say the identifiers of their records are now.

The last word per record and slot wins, in the order of the facts' keys. A word that is replaced
takes its edge back, so an e-mail address that moves on to another contact takes nobody along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.identity.facts import Fact
from services.identity.graph import Edge, Pair
from services.identity.identifiers import Identifier
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.assertions (
    workspace text not null,
    record text collate "C" not null,
    slot text collate "C" not null,
    target text collate "C",
    key bytea not null,
    primary key (workspace, record, slot)
);
"""

_FIND = """
select workspace, record, slot, target, key
from {schema}.assertions
join unnest($1::text[], $2::text[], $3::text[]) asked (workspace, record, slot)
    using (workspace, record, slot)
"""

_SAVE = """
insert into {schema}.assertions (workspace, record, slot, target, key)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
on conflict (workspace, record, slot) do update set target = excluded.target, key = excluded.key
"""

_DROP = """
delete from {schema}.assertions a
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, record, slot)
where (a.workspace, a.record, a.slot) = (gone.workspace, gone.record, gone.slot)
"""

Slot = tuple[str, str, str]  # workspace, record, slot


@dataclass(slots=True)
class Swing:
    """What is taken back: edges, with their workspace, and edges that hold from now on.

    `shaken` are nodes (with their workspace) that lost facts or edges, or were judged, `emptied`
    atoms that lost all of their facts. `turned` are pairs on which the verdict is another, each
    with whether they are only kept apart from now on; `flagged` are nodes that somebody decided
    about. `first_keys` are those of the first facts that atoms have left.
    """

    taken_back: dict[Pair, str] = field(default_factory=dict)
    held: dict[Pair, Edge] = field(default_factory=dict)
    targets: list[tuple[str, Identifier]] = field(default_factory=list)
    shaken: set[tuple[str, str]] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)
    turned: dict[Pair, bool] = field(default_factory=dict)
    flagged: set[tuple[str, str]] = field(default_factory=set)
    first_keys: dict[str, bytes] = field(default_factory=dict)


async def assert_slots(tx: Tx, schema: str, facts: Sequence[Fact]) -> Swing:
    """Lets the facts' words win or lose against those known, and returns what that changes."""
    last: dict[Slot, tuple[bytes, Identifier | None]] = {}
    for fact in facts:
        for slot, target in (fact.asserted or {}).items():
            place = fact.workspace, fact.atom, slot
            if place not in last or last[place][0] < fact.key:
                last[place] = fact.key, target
    if not last:
        return Swing()
    known = await _load(tx, schema, last)
    swing, rows = Swing(), []
    for place, (key, target) in sorted(last.items()):
        workspace, record, _ = place
        old_target, old_key = known.get(place, (None, b""))
        if key < old_key:
            continue
        rows.append((*place, target.node if target else None, key))
        if old_target is not None:
            swing.taken_back[old_target, record] = workspace
        if target is not None:
            swing.taken_back.pop((target.node, record), None)
            swing.held[target.node, record] = Edge(target.node, record, key)
            swing.targets.append((workspace, target))
    if rows:
        await tx.execute(_SAVE.format(schema=schema), *columns(rows))
    return swing


async def restore_slots(
    tx: Tx,
    schema: str,
    lost: Iterable[Slot],
    left: Mapping[tuple[str, str], tuple[bytes, Identifier | None]],
    swing: Swing,
) -> None:
    """Lets slots say what the last word that is left of them says, and adds what that changes."""
    places = sorted(lost)
    known = await _load(tx, schema, places)
    rows, gone = [], []
    for place in places:
        workspace, record, slot = place
        old_target, old_key = known[place]
        key, target = left.get((record, slot), (None, None))
        if key == old_key:
            continue
        if key is None:
            gone.append(place)
        else:
            rows.append((*place, target.node if target else None, key))
        if old_target is not None:
            swing.taken_back[old_target, record] = workspace
        if target is not None and key is not None:
            swing.taken_back.pop((target.node, record), None)
            swing.held[target.node, record] = Edge(target.node, record, key)
            swing.targets.append((workspace, target))
    if rows:
        await tx.execute(_SAVE.format(schema=schema), *columns(rows))
    if gone:
        await tx.execute(_DROP.format(schema=schema), *columns(gone))


async def _load(
    tx: Tx, schema: str, places: Iterable[Slot]
) -> dict[Slot, tuple[str | None, bytes]]:
    """Returns what slots say, and the keys of the words that said it."""
    asked = sorted(places)
    if not asked:
        return {}
    rows = await tx.fetch(_FIND.format(schema=schema), *columns(asked))
    return {(row[0], row[1], row[2]): (row[3], row[4]) for row in rows}
