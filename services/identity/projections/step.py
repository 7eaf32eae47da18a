"""A step: what became of profiles when facts came, were taken back, or a person decided; told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.identity import changes
from services.identity.changes import Cause, Change, Whole
from services.identity.facts import Fact, received_at
from services.identity.projections import atoms, deal_words, profiles
from services.identity.projections.atoms import Atom, TraitsOfAtoms
from services.identity.projections.deal_words import Heard, Stakes
from services.identity.projections.islands import Islands
from services.identity.projections.verdicts import Judged
from services.identity.retraction import Lost
from services.identity.rules import CONTACT_ID
from services.identity.stakes import Stake, computed
from services.identity.traits import Said, merged
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx

Speech = Callable[[TraitsOfAtoms], TraitsOfAtoms]
"""Turns the traits of loaded atoms into those from now on, and saves them."""


@dataclass(frozen=True, slots=True)
class Step:
    """What news did: `before` and `after` are the profiles of all atoms it touched.

    An atom of `after` alone is new, one of `before` alone is no more. `leads_to` are the profiles
    of all touched nodes from now on, `heard` is what the news say of deals.
    """

    touched: Islands
    news: Sequence[Fact | Lost | Judged]
    before: Mapping[str, str]
    after: Mapping[str, str]
    leads_to: Mapping[str, str | None]
    heard: Heard

    @classmethod
    def to_now(
        cls,
        touched: Islands,
        before: Mapping[str, str],
        news: Sequence[Fact | Lost | Judged],
        heard: Heard = deal_words.NOTHING,
    ) -> Step:
        """Steps from the profiles `before` to those that clusters and atoms make now."""
        leads_to = profiles_of(touched.clusters, touched.atoms)
        after = {atom: str(leads_to[atom]) for atom in touched.atoms}
        return cls(touched, news, before, after, leads_to, heard)

    async def tell(self, tx: Tx, schema: str, speak: Speech) -> tuple[list[Change], list[Change]]:
        """Brings traits and profiles to where the atoms are; tells what moved, and what else."""
        moved = {atom for atom, old in self.before.items() if old != self.after.get(atom)}
        said = [fact for fact in self.news if fact.traits]
        stirred = {node: event for (_, node), event in self.heard.stirred.items()}
        # Only where atoms came or went, or words, can traits be other than before.
        shaken = self._profiles_of(moved | {fact.atom for fact in said} | stirred.keys())
        shaken_atoms = self._atoms_of(shaken)
        atoms_before = await atoms.load_traits(tx, schema, self.touched.workspaces, shaken_atoms)
        deals_before, deals_after = await self._load_stakes(tx, schema, shaken_atoms)
        # Nothing is read any more, so all of it is written while it is told.
        self.touched.save(self.leads_to)
        atoms_after = speak(atoms_before) if said else atoms_before
        traits_before = _merged(shaken_atoms, self.before, atoms_before, deals_before)
        traits_after = _merged(shaken_atoms, self.after, atoms_after, deals_after)
        changed = self._profiles_of(moved | {fact.atom for fact in self.news})
        wholes = self._save_profiles(tx, schema, changed, traits_after)
        regrouped = self._profiles_of(moved | self._begun_anew()) & wholes.keys()
        new = wholes.keys() - set(self.before.values())
        causes = self._causes()

        def cause_of(node: str) -> Recorded:
            return causes[self._island(node)]

        await asyncio.sleep(0)
        became = list(changes.recounts({each: wholes[each] for each in regrouped}, cause_of))
        spoke = {self.after.get(node): event for node, event in stirred.items()}
        spoke |= {self.after.get(fact.atom): fact.event for fact in said}
        for profile in sorted(traits_after):
            cause = spoke.get(profile) or cause_of(profile)
            old = traits_before.get(profile, {})
            became += changes.trait_changes(profile, old, traits_after[profile], cause)
        await asyncio.sleep(0)
        return self._moves({each: wholes[each] for each in new}, cause_of), became

    def _begun_anew(self) -> set[str]:
        """Returns the atoms that lost facts, or are known since earlier than before."""
        known = self.touched.atoms
        return {
            fact.atom
            for fact in self.news
            if isinstance(fact, Lost)
            or (
                isinstance(fact, Fact)
                and fact.key == known[fact.atom].first_key
                and self.before.get(fact.atom) == fact.atom
            )
        }

    def _moves(self, new: Mapping[str, Whole], cause: Cause) -> list[Change]:
        """Tells what moved: profiles come to be first, and end when they have nothing left."""
        touched = self.touched
        return [
            *changes.creations(new, cause),
            *changes.identifier_changes(touched.types, touched.profiles, self.leads_to, cause),
            *changes.moves(self.before, self.after, self.leads_to, cause),
        ]

    def _profiles_of(self, some: set[str]) -> set[str]:
        """Returns the profiles that some atoms were of, and those they are of."""
        return {side[atom] for side in (self.before, self.after) for atom in some if atom in side}

    def _atoms_of(self, some: set[str]) -> list[str]:
        """Returns the atoms that were of some profiles, or are."""
        sides = (self.before, self.after)
        return sorted({atom for side in sides for atom, known in side.items() if known in some})

    async def _load_stakes(self, tx: Tx, schema: str, some: Sequence[str]) -> tuple[Stakes, Stakes]:
        """Loads what deals are to those among some atoms who can have any, before and now."""
        contacts = [atom for atom in some if self.touched.types[atom] == CONTACT_ID]
        places = [(self.touched.workspaces[atom], atom) for atom in contacts]
        before, after = await deal_words.load_stakes(tx, schema, places, self.heard.news)
        return before | self.heard.stakes_before, after

    def _save_profiles(
        self, tx: Tx, schema: str, changed: set[str], traits: Mapping[str, Mapping[str, Said]]
    ) -> dict[str, Whole]:
        """Saves those that changed; returns what they are as wholes."""
        workspaces = self.touched.workspaces
        known = set(self.before.values())
        ended = known - set(self.after.values())
        members: dict[str, list[Atom]] = defaultdict(list)
        for atom, profile in self.after.items():
            if profile in changed:
                members[profile].append(self.touched.atoms[atom])
        wholes = {
            profile: (
                received_at(min(atom.first_key for atom in found)),
                max(atom.last_activity_time for atom in found),
                sum(atom.activities for atom in found),
            )
            for profile, found in members.items()
        }
        profiles.save_profiles(
            tx,
            schema,
            wholes={(workspaces[profile], profile): whole for profile, whole in wholes.items()},
            traits={(workspaces[profile], profile): said for profile, said in traits.items()},
            new={(workspaces[profile], profile) for profile in wholes.keys() - known},
            gone=[(workspaces[profile], profile) for profile in ended],
        )
        return wholes

    def _island(self, node: str) -> str:
        return self.touched.components.find(node)

    def cause(self) -> Cause:
        """Returns what tells what led to what a profile went through."""
        causes = self._causes()
        return lambda profile: causes[self._island(profile)]

    def _causes(self) -> dict[str, Recorded]:
        """Returns, per island, the last news of it: what its profiles went through is its."""
        find = self.touched.components.find
        causes = {find(node): fact.event for fact in self.news for node in fact.nodes}
        for fact in self.news:
            causes[find(fact.atom)] = fact.event
        return causes


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


def _merged(
    members: Sequence[str],
    profile_of: Mapping[str, str],
    traits: TraitsOfAtoms,
    deals: Stakes,
) -> dict[str, dict[str, Said]]:
    """Returns the traits per profile, from those of its atoms and from their deals."""
    found: dict[str, list[Mapping[str, Said]]] = defaultdict(list)
    owned: dict[str, list[Stake]] = defaultdict(list)
    for atom in members:
        profile = profile_of.get(atom)
        if profile is not None:
            found[profile].append(traits.get(atom, {}))
            owned[profile] += deals.get(atom, ())
    return {profile: merged(said) | computed(owned[profile]) for profile, said in found.items()}
