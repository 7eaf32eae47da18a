"""Atoms: what belongs to one node for ever, as exact values that add up in any order.

A count and times per atom, and the last word per trait. When profiles merge or split, atoms move
with their nodes and nothing is read again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.identity.facts import Fact
from services.identity.traits import Said, later
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.atoms (
    workspace text not null,
    node text collate "C" not null,
    first_key bytea not null,
    activities bigint not null,
    last_activity_time timestamptz not null,
    primary key (workspace, node)
) with (fillfactor = 70);
create table {schema}.traits (
    workspace text not null,
    node text collate "C" not null,
    trait text collate "C" not null,
    value text,
    occur_time timestamptz not null,
    key bytea not null,
    primary key (workspace, node, trait)
) with (fillfactor = 80);
"""

_SAVE = """
insert into {schema}.atoms (workspace, node, first_key, activities, last_activity_time)
select * from unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::timestamptz[])
on conflict (workspace, node) do update set
    first_key = excluded.first_key, activities = excluded.activities,
    last_activity_time = excluded.last_activity_time
"""

_FIND_TRAITS = """
select t.node, t.trait, t.value, t.occur_time, t.key
from unnest($1::text[], $2::text[]) asked (workspace, node)
join {schema}.traits t using (workspace, node)
"""

_SAVE_TRAITS = """
insert into {schema}.traits (workspace, node, trait, value, occur_time, key)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bytea[])
on conflict (workspace, node, trait) do update set
    value = excluded.value, occur_time = excluded.occur_time, key = excluded.key
"""

TraitsOfAtoms = dict[str, dict[str, Said]]

_NO_KEY = b"\xff" * 24
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Atom:
    """What is counted of an atom."""

    first_key: bytes = _NO_KEY
    activities: int = 0
    last_activity_time: datetime = _NO_TIME

    def add(self, fact: Fact) -> None:
        """Adds a fact that was not added before."""
        self.first_key = min(self.first_key, fact.key)
        self.activities += 1
        self.last_activity_time = max(self.last_activity_time, fact.occur_time)


async def add_to_atoms(tx: Tx, schema: str, atoms: dict[str, Atom], facts: Iterable[Fact]) -> None:
    """Adds new facts to loaded atoms, and saves those."""
    grown: dict[tuple[str, str], Atom] = {}
    for fact in facts:
        atom = atoms.setdefault(fact.atom, Atom())
        atom.add(fact)
        grown[fact.workspace, fact.atom] = atom
    rows = [
        (*place, atom.first_key, atom.activities, atom.last_activity_time)
        for place, atom in sorted(grown.items(), key=lambda item: item[0])
    ]
    await tx.execute(_SAVE.format(schema=schema), *columns(rows))


async def load_traits(
    tx: Tx, schema: str, workspaces: Mapping[str, str], nodes: Iterable[str]
) -> TraitsOfAtoms:
    """Loads the traits of atoms."""
    places = sorted((workspaces[node], node) for node in nodes)
    traits: TraitsOfAtoms = defaultdict(dict)
    if places:
        for node, name, *said in await tx.fetch(
            _FIND_TRAITS.format(schema=schema), *columns(places)
        ):
            traits[node][name] = Said(*said)
    return traits


async def add_traits(
    tx: Tx, schema: str, traits: TraitsOfAtoms, facts: Sequence[Fact]
) -> TraitsOfAtoms:
    """Returns loaded traits with what new facts say, and saves what that changes."""
    after = defaultdict(dict, {node: dict(known) for node, known in traits.items()})
    changed: dict[tuple[str, str, str], Said] = {}
    for fact in facts:
        known = after[fact.atom]
        for name, value in fact.traits:
            old = known.get(name)
            said = known[name] = later(old, Said(value, fact.occur_time, fact.key))
            if said is not old:
                changed[fact.workspace, fact.atom, name] = said
    rows = [
        (*place, said.value, said.occur_time, said.key)
        for place, said in sorted(changed.items(), key=lambda item: item[0])
    ]
    if rows:
        await tx.execute(_SAVE_TRAITS.format(schema=schema), *columns(rows))
    return after
