"""What remains of atoms that lost facts: folded once more from the facts that they still have.

Those are read in one pass, a bounded part in memory at a time, however many an atom has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.identity.graph import Edge, Pair, together
from services.identity.projections import timeline
from services.identity.projections.assertions import Swing
from services.identity.projections.atoms import Atom
from services.identity.retraction import Kept, Lost, Message
from services.identity.traits import Said, later
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx


@dataclass(slots=True)
class Remains:
    """The facts that were lost, and what is left of their atoms; an atom may hold nothing."""

    lost: Sequence[Lost]
    atoms: dict[str, Atom] = field(default_factory=lambda: defaultdict(Atom))
    traits: dict[str, dict[str, Said]] = field(default_factory=lambda: defaultdict(dict))
    edges: dict[Pair, Edge] = field(default_factory=dict)

    def add(self, fact: Kept) -> None:
        """Adds a fact that is still there."""
        self.atoms[fact.atom].add(fact)
        for edge in fact.edges():
            self.edges[edge.pair] = together(self.edges.get(edge.pair), edge)
        known = self.traits[fact.atom]
        for name, value in fact.traits:
            said = Said(value, fact.occur_time, fact.key)
            known[name] = later(known.get(name), said)

    def swing(self) -> Swing:
        """Returns what this changes about who is one person."""
        swing = Swing(emptied={lost.atom for lost in self.lost} - self.atoms.keys())
        swing.first_keys = {node: atom.first_key for node, atom in self.atoms.items()}
        for lost in self.lost:
            workspace = lost.event.workspace
            swing.shaken.add((workspace, lost.atom))
            for edge in lost.fact.edges():
                swing.shaken.add((workspace, edge.weak))
                if edge.pair in self.edges:
                    swing.held[edge.pair] = self.edges[edge.pair]
                else:
                    swing.taken_back[edge.pair] = workspace
        return swing

    def left_atoms(self) -> dict[str, Atom | None]:
        """Returns what is left of the atoms."""
        return {lost.atom: self.atoms.get(lost.atom) for lost in self.lost}

    def left_traits(self) -> dict[str, dict[str, Said]]:
        """Returns what is left of the traits of those atoms that lost a word."""
        return {lost.atom: self.traits.get(lost.atom, {}) for lost in self.lost if lost.traits}


async def take_back(tx: Tx, schema: str, retractions: Mapping[Message, Recorded]) -> Remains:
    """Removes the facts that are retracted, and returns what remains."""
    remains = Remains(await timeline.remove_activities(tx, schema, retractions))
    atoms = {(lost.event.workspace, lost.atom) for lost in remains.lost}
    if atoms:
        async for fact in timeline.facts_of(tx, schema, sorted(atoms)):
            remains.add(fact)
    return remains
