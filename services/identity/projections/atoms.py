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
from services.identity.retraction import Kept
from services.identity.traits import Said, later
from services.kernel.log.sql import Tx, columns
from services.kernel.log.writing import add_rows_soon, change_rows_soon

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
update {schema}.atoms a set first_key = grown.first_key, activities = grown.activities,
    last_activity_time = grown.last_activity_time
from unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::timestamptz[])
    grown (workspace, node, first_key, activities, last_activity_time)
where a.workspace = grown.workspace and a.node = grown.node
"""

_DROP = """
delete from {schema}.atoms a using unnest($1::text[], $2::text[]) gone (workspace, node)
where a.workspace = gone.workspace and a.node = gone.node
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

_DROP_TRAITS = """
delete from {schema}.traits t
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, node, trait)
where t.workspace = gone.workspace and t.node = gone.node and t.trait = gone.trait
"""

TraitsOfAtoms = dict[str, dict[str, Said]]
AtomPlace = tuple[str, str]  # workspace, node
Row = tuple[object, ...]
TraitPlace = tuple[str, str, str]  # workspace, node, trait

_NO_KEY = b"\xff" * 24
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Atom:
    """What is counted of an atom."""

    first_key: bytes = _NO_KEY
    activities: int = 0
    last_activity_time: datetime = _NO_TIME

    def add(self, fact: Fact | Kept) -> None:
        """Adds a fact that was not added before."""
        self.first_key = min(self.first_key, fact.key)
        self.activities += 1
        self.last_activity_time = max(self.last_activity_time, fact.occur_time)


@dataclass(frozen=True, slots=True)
class Growth:
    """What facts did to atoms: those that are new, and those that were there."""

    new: Mapping[AtomPlace, Atom]
    grown: Mapping[AtomPlace, Atom]


def add_to_atoms(atoms: dict[str, Atom], facts: Iterable[Fact]) -> Growth:
    """Adds new facts to loaded atoms."""
    new: dict[AtomPlace, Atom] = {}
    grown: dict[AtomPlace, Atom] = {}
    for fact in facts:
        place = fact.workspace, fact.atom
        atom = atoms.get(fact.atom)
        if atom is None:
            atom = new[place] = atoms[fact.atom] = Atom()
        elif place not in new:
            grown[place] = atom
        atom.add(fact)
    return Growth(new, grown)


def save_atoms(tx: Tx, schema: str, growth: Growth) -> None:
    """Saves atoms that are new, and those that have grown."""
    add_rows_soon(tx, schema, "atoms", _rows(growth.new))
    change_rows_soon(tx, _SAVE.format(schema=schema), _rows(growth.grown))


def replace_atoms(
    tx: Tx,
    schema: str,
    atoms: dict[str, Atom],
    workspaces: Mapping[str, str],
    remains: Mapping[str, Atom | None],
) -> None:
    """Puts what remains of some loaded atoms in their place, and saves it; None is nothing."""
    left, gone = {}, []
    for node, atom in remains.items():
        place = workspaces[node], node
        if atom is None:
            del atoms[node]
            gone.append(place)
        else:
            left[place] = atoms[node] = atom
    change_rows_soon(tx, _DROP.format(schema=schema), gone)
    change_rows_soon(tx, _SAVE.format(schema=schema), _rows(left))


def _rows(atoms: Mapping[AtomPlace, Atom]) -> list[Row]:
    return [
        (*place, atom.first_key, atom.activities, atom.last_activity_time)
        for place, atom in atoms.items()
    ]


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


def add_traits(tx: Tx, schema: str, traits: TraitsOfAtoms, facts: Sequence[Fact]) -> TraitsOfAtoms:
    """Returns loaded traits with what new facts say, and saves what that changes."""
    after = defaultdict(dict, {node: dict(known) for node, known in traits.items()})
    changed: dict[TraitPlace, Said] = {}
    for fact in facts:
        known = after[fact.atom]
        for name, value in fact.traits:
            old = known.get(name)
            said = known[name] = later(old, Said(value, fact.occur_time, fact.key))
            if said is not old:
                changed[fact.workspace, fact.atom, name] = said
    _save_traits(tx, schema, changed)
    return after


def replace_traits(
    tx: Tx,
    schema: str,
    traits: TraitsOfAtoms,
    workspaces: Mapping[str, str],
    remains: Mapping[str, Mapping[str, Said]],
) -> TraitsOfAtoms:
    """Returns loaded traits with what remains of some atoms' in their place, and saves that."""
    after = defaultdict(dict, traits)
    changed, gone = {}, []
    for node, left in remains.items():
        known = traits[node]
        place = workspaces[node], node
        gone += [(*place, name) for name in known.keys() - left.keys()]
        changed.update(
            {(*place, name): said for name, said in left.items() if said != known.get(name)}
        )
        after[node] = dict(left)
    change_rows_soon(tx, _DROP_TRAITS.format(schema=schema), gone)
    _save_traits(tx, schema, changed)
    return after


def _save_traits(tx: Tx, schema: str, changed: Mapping[TraitPlace, Said]) -> None:
    rows = [(*place, said.value, said.occur_time, said.key) for place, said in changed.items()]
    change_rows_soon(tx, _SAVE_TRAITS.format(schema=schema), rows)
