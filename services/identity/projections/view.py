"""The view `profiles`: folds what contacts, deals and customer events say into profiles.

A batch is read in a few queries, resolved in memory and written with one statement per table.
Everything in the tables follows from the set of facts alone, so neither the order of the facts nor
the size of the batches can be seen in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.identity import changes
from services.identity.changes import Change
from services.identity.facts import Fact, read_fact, received_at
from services.identity.projections import (
    assertions,
    atoms,
    deal_contacts,
    islands,
    profiles,
    timeline,
)
from services.identity.projections.atoms import Atom
from services.identity.projections.islands import Islands
from services.identity.traits import Said, merged
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx

_IDEAS = (islands, assertions, atoms, timeline, deal_contacts, profiles)

# Plans made while the tables were empty must not outlive that; planning anew costs next to nothing.
_PLAN_ANEW = "set local plan_cache_mode = force_custom_plan"


class ProfilesView:
    """Keeps the tables."""

    name = "profiles"
    shape = 1

    def tables(self, schema: str) -> str:
        return "".join(idea.TABLES.format(schema=schema) for idea in _IDEAS)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> list[Change]:
        """Folds events into the tables; returns what that changed, in the order to tell it."""
        await tx.execute(_PLAN_ANEW)
        deals = await deal_contacts.find_deal_contacts(tx, schema, events)
        read = [fact for event in events if (fact := read_fact(event, deals)) is not None]
        facts = await timeline.add_activities(tx, schema, read)
        if not facts:
            return []
        swing = await assertions.assert_slots(tx, schema, facts)
        touched = Islands(tx, schema)
        await touched.join(facts, swing)
        known = touched.atoms
        before = {atom: touched.profiles[atom] for atom in known}
        await atoms.add_to_atoms(tx, schema, known, facts)
        profiles_after = profiles_of(touched.clusters, known)
        await touched.save(profiles_after)
        step = Step(
            facts=facts,
            touched=touched,
            known=known,
            before={atom: before.get(atom) for atom in known},
            after={atom: str(profiles_after[atom]) for atom in known},
        )
        return await step.tell(tx, schema)


def profiles_of(
    clusters: Sequence[Sequence[str]], known: Mapping[str, Atom]
) -> dict[str, str | None]:
    """Returns the profile of each node: its name is that of the atom with the oldest fact.

    No two atoms share a fact, so there is no tie. A cluster without any atom is no profile.
    """
    found: dict[str, str | None] = {}
    for nodes in clusters:
        first = [(known[node].first_key, node) for node in nodes if node in known]
        profile = min(first)[1] if first else None
        for node in nodes:
            found[node] = profile
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """What a batch did: `before` and `after` are the profiles of all atoms it touched."""

    facts: Sequence[Fact]
    touched: Islands
    known: Mapping[str, Atom]
    before: Mapping[str, str | None]
    after: Mapping[str, str]

    async def tell(self, tx: Tx, schema: str) -> list[Change]:
        """Brings traits and profiles to where the atoms are, and tells what changed."""
        moved = {atom for atom, old in self.before.items() if old not in (None, self.after[atom])}
        said = [fact for fact in self.facts if fact.traits]
        # Only where atoms came or went, or spoke, can traits be other than before.
        spoken = {self.after[fact.atom] for fact in said}
        shaken = spoken | {str(side[atom]) for side in (self.before, self.after) for atom in moved}
        shaken_atoms = [atom for atom, profile in self.after.items() if profile in shaken]
        atoms_before = await atoms.load_traits(tx, schema, self.touched.workspaces, shaken_atoms)
        atoms_after = await atoms.add_traits(tx, schema, atoms_before, said)
        traits_before = _merged(shaken_atoms, self.before, atoms_before)
        traits_after = _merged(shaken_atoms, self.after, atoms_after)
        await self._save_profiles(tx, schema, moved, traits_after)
        causes = self._causes()
        spoke = {self.after[fact.atom]: fact.event for fact in said}
        told = list(changes.moves(self.before, self.after, lambda node: causes[self._island(node)]))
        told += changes.activities(self.facts, self.after)
        for profile in sorted(traits_after):
            cause = spoke.get(profile) or causes[self._island(profile)]
            old = traits_before.get(profile, {})
            told += changes.trait_changes(profile, old, traits_after[profile], cause)
        return told

    async def _save_profiles(
        self, tx: Tx, schema: str, moved: set[str], traits: Mapping[str, Mapping[str, Said]]
    ) -> None:
        workspaces = self.touched.workspaces
        alive = set(self.after.values())
        ended = {old for old in self.before.values() if old is not None} - alive
        changed = {self.after[fact.atom] for fact in self.facts}
        changed |= {str(side[atom]) for side in (self.before, self.after) for atom in moved}
        members: dict[str, list[Atom]] = defaultdict(list)
        for atom, profile in self.after.items():
            if profile in changed:
                members[profile].append(self.known[atom])
        times = {
            (workspaces[profile], profile): (
                received_at(min(atom.first_key for atom in found)),
                max(atom.last_activity_time for atom in found),
            )
            for profile, found in members.items()
        }
        await profiles.save_profiles(
            tx,
            schema,
            times=times,
            traits={(workspaces[profile], profile): said for profile, said in traits.items()},
            gone=[(workspaces[profile], profile) for profile in ended],
        )

    def _island(self, node: str) -> str:
        return self.touched.components.find(node)

    def _causes(self) -> dict[str, Recorded]:
        """Returns, per island, the last fact about it: what its profiles went through is its."""
        return {self._island(fact.atom): fact.event for fact in self.facts}


def _merged(
    members: Sequence[str], profile_of: Mapping[str, str | None], traits: atoms.TraitsOfAtoms
) -> dict[str, dict[str, Said]]:
    """Returns the traits per profile, from those of its atoms."""
    found: dict[str, list[Mapping[str, Said]]] = defaultdict(list)
    for atom in members:
        profile = profile_of[atom]
        if profile is not None:
            found[profile].append(traits.get(atom, {}))
    return {profile: merged(said) for profile, said in found.items()}
