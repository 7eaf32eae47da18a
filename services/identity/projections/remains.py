"""What remains of atoms that lost facts: folded once more from the facts that they still have.

Those are read in one pass, a bounded part in memory at a time, however many an atom has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from rapport.identity.v1.service_pb2 import TimelineKind
from services.identity.erasures import ErasedKeys, Place, covers
from services.identity.facts import ERASED, Deal
from services.identity.graph import Edge, Pair, together
from services.identity.identifiers import Identifier
from services.identity.projections import timeline
from services.identity.projections.assertions import Slot, Swing
from services.identity.projections.atoms import Atom
from services.identity.projections.timeline import Stored
from services.identity.retraction import Kept, Lost, Message
from services.identity.traits import Said, later
from services.identity.words import Word, contact_at
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx

SlotsLeft = dict[tuple[str, str], tuple[bytes, Identifier | None]]
"""By record and slot, the key of the last word that is left of it, and what that says."""


@dataclass(slots=True)
class Remains:
    """The facts that were lost, and what is left of their atoms; an atom may hold nothing."""

    lost: Sequence[Lost]
    atoms: dict[str, Atom] = field(default_factory=lambda: defaultdict(Atom))
    traits: dict[str, dict[str, Said]] = field(default_factory=lambda: defaultdict(dict))
    edges: dict[Pair, Edge] = field(default_factory=dict)
    slots: SlotsLeft = field(default_factory=dict)

    def add(self, fact: Kept) -> None:
        """Adds a fact that is still there."""
        self.atoms[fact.atom].add(fact)
        for edge in fact.edges():
            self.edges[edge.pair] = together(self.edges.get(edge.pair), edge)
        known = self.traits[fact.atom]
        for name, value in fact.traits:
            said = Said(value, fact.occur_time, fact.key)
            known[name] = later(known.get(name), said)
        for slot, target in fact.asserted:
            place = fact.atom, slot
            if place not in self.slots or self.slots[place][0] < fact.key:
                self.slots[place] = fact.key, target

    def swing(self) -> Swing:
        """Returns what this changes about who is one person."""
        atoms = {lost.atom for lost in self.lost}
        swing = Swing(emptied=atoms - self.atoms.keys())
        swing.first_keys = {node: self.atoms[node].first_key for node in atoms & self.atoms.keys()}
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

    def lost_slots(self) -> set[Slot]:
        """Returns the slots of which a word was lost."""
        return {
            (lost.event.workspace, lost.atom, slot)
            for lost in self.lost
            for slot, _ in lost.fact.asserted
        }

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


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken out: facts by whom they name, by their own ids, and those of deals.

    `nodes` are erased, each up to a key; `deals` are those whose contacts were taken out of their
    `words`. `events` say so.
    """

    nodes: ErasedKeys
    activities: Mapping[tuple[str, UUID], Recorded]
    deals: Mapping[Deal, Sequence[Word]]
    events: Mapping[Place, Recorded]

    def event_of(self, stored: Stored) -> Recorded | None:
        """Returns the event that takes an activity out; None for one that stays."""
        workspace, fact = stored.workspace, stored.fact
        for node in fact.named():
            if covers(self.nodes, workspace, [node], fact.key):
                return self.events[workspace, node]
        if stored.kind == TimelineKind.TIMELINE_KIND_DEAL:
            words = self.deals.get((workspace, stored.resource.partition("/")[2]), ())
            if contact_at(words, (fact.version, fact.key)) == ERASED:
                return self.events[workspace, fact.atom]
        return self.activities.get((workspace, stored.activity_id))


async def take_out(tx: Tx, schema: str, taken: Taken) -> Remains:
    """Removes the facts that are erased, and returns what remains."""
    atoms = await timeline.atoms_naming(tx, schema, taken.nodes)
    atoms |= await timeline.atoms_having(tx, schema, taken.activities)
    lost: list[Lost] = []
    remains = Remains(lost)
    if atoms:
        async for stored in timeline.stored_facts(tx, schema, atoms):
            event = taken.event_of(stored)
            if event is None:
                remains.add(stored.fact)
            else:
                lost.append(stored.lost(event))
    lost.sort(key=lambda fact: fact.activity_id)
    await timeline.forget_activities(tx, schema, lost)
    return remains
