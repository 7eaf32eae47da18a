"""The view `profiles`: folds what contacts, deals and customer events say into profiles.

A batch is read in a few queries, resolved in memory and written with one statement per table.
Everything in the tables follows from the set of facts alone, so neither the order of the facts nor
the size of the batches can be seen in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.identity import changes
from services.identity.changes import Change
from services.identity.facts import Fact, read_fact
from services.identity.projections import (
    assertions,
    atoms,
    deal_words,
    islands,
    profiles,
    timeline,
)
from services.identity.projections.atoms import TraitsOfAtoms
from services.identity.projections.deal_words import Heard
from services.identity.projections.islands import Islands
from services.identity.projections.remains import take_back
from services.identity.projections.step import Step
from services.identity.retraction import Message, settle
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx

_IDEAS = (islands, assertions, atoms, timeline, deal_words, profiles)

# Plans made while the tables were empty must not outlive that; planning anew costs next to nothing.
_PLAN_ANEW = "set local plan_cache_mode = force_custom_plan"


class ProfilesView:
    """Keeps the tables."""

    name = "profiles"
    shape = 3

    def tables(self, schema: str) -> str:
        return "".join(idea.TABLES.format(schema=schema) for idea in _IDEAS)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> list[Change]:
        """Folds events into the tables; returns what that changed, in the order to tell it."""
        await tx.execute(_PLAN_ANEW)
        still_true, retractions = settle(events)
        told = await _take_back(tx, schema, retractions) if retractions else []
        heard = await deal_words.hear(tx, schema, still_true)
        read = [
            fact for event in still_true if (fact := read_fact(event, heard.contacts)) is not None
        ]
        facts = await timeline.add_activities(tx, schema, read)
        return told + await _add(tx, schema, facts, heard) if facts else told


async def _take_back(tx: Tx, schema: str, retractions: Mapping[Message, Recorded]) -> list[Change]:
    """Takes facts back that were there before; what is told is as if they had never been."""
    remains = await take_back(tx, schema, retractions)
    if not remains.lost:
        return []
    touched = Islands(tx, schema)
    await touched.join([], remains.swing())
    before = touched.profiles_of_atoms()
    await atoms.replace_atoms(tx, schema, touched.atoms, touched.workspaces, remains.left_atoms())
    step = await Step.to_now(touched, before, remains.lost)

    async def fall_silent(known: TraitsOfAtoms) -> TraitsOfAtoms:
        left = remains.left_traits()
        return await atoms.replace_traits(tx, schema, known, touched.workspaces, left)

    moves, traits = await step.tell(tx, schema, fall_silent)
    # Taken back is what the old profiles had, so that one that ends is empty by then.
    return [*changes.retractions(remains.lost, before), *moves, *traits]


async def _add(tx: Tx, schema: str, facts: Sequence[Fact], heard: Heard) -> list[Change]:
    """Adds facts that were not there before."""
    swing = await assertions.assert_slots(tx, schema, facts)
    swing.shaken.update(heard.stirred)
    touched = Islands(tx, schema)
    await touched.join(facts, swing)
    before = touched.profiles_of_atoms()
    await atoms.add_to_atoms(tx, schema, touched.atoms, facts)
    step = await Step.to_now(touched, before, facts, heard)

    async def speak(known: TraitsOfAtoms) -> TraitsOfAtoms:
        return await atoms.add_traits(tx, schema, known, facts)

    moves, traits = await step.tell(tx, schema, speak)
    return [*moves, *changes.activities(facts, step.after), *traits]
