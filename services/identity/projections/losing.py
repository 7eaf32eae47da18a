"""What becomes of profiles when facts are no more: taken back, or erased.

It is as if they had never been: what remains of their atoms is folded once more, and what hung
together by them is resolved anew. What is told is the way there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from services.identity import changes
from services.identity.changes import Change
from services.identity.erasures import Place, erased_by
from services.identity.projections import (
    accounts,
    assertions,
    atoms,
    consents,
    deal_words,
    erased_nodes,
    flags,
    verdicts,
)
from services.identity.projections.accounts import LostWord
from services.identity.projections.assertions import Swing
from services.identity.projections.atoms import TraitsOfAtoms
from services.identity.projections.deal_words import Heard
from services.identity.projections.islands import Islands
from services.identity.projections.memberships import settle_memberships
from services.identity.projections.remains import Remains, Taken, take_back, take_out
from services.identity.projections.step import Step
from services.identity.projections.verdicts import Judged
from services.identity.retraction import Message
from services.identity.rules import Rules
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx

RulesOf = Mapping[str, Rules]  # by workspace


async def retract(
    tx: Tx, schema: str, rules: RulesOf, retractions: Mapping[Message, Recorded]
) -> tuple[list[Change], dict[Place, Recorded]]:
    """Takes back facts of imports that were there before.

    Returns what that changes, and under which nodes words on consent are gone.
    """
    remains = await take_back(tx, schema, retractions)
    lost_words = await accounts.remove_words(tx, schema, retractions)
    described = await accounts.lose_words(tx, schema, lost_words)
    if not remains.lost:
        return described, {}
    fell_silent = await consents.take_words_back(tx, schema, remains.lost)
    told = await _lose(tx, schema, rules, remains, remains.swing(), lost_words)
    return [*told, *described], fell_silent


async def erase(
    tx: Tx,
    schema: str,
    rules: RulesOf,
    events: Sequence[Recorded],
    activities: Mapping[tuple[str, UUID], Recorded],
) -> tuple[list[Change], dict[Place, Recorded]]:
    """Takes out what names erased nodes, and `activities`; what comes of it later is not heard.

    Returns what that changes, and under which nodes words on consent are gone.
    """
    erased = await erased_nodes.erase_nodes(tx, schema, erased_by(events))
    if not erased and not activities:
        return [], {}
    keys = {place: each.key for place, each in erased.items()}
    causes = {place: each.event for place, each in erased.items()}
    stakes_before, _ = await deal_words.load_stakes(tx, schema, keys)
    contacts = await deal_words.forget_contacts(tx, schema, keys)
    deals = await deal_words.words_of(tx, schema, contacts)
    stirred = {
        (deal[0], node): causes[deal[0], node] for deal, nodes in contacts.items() for node in nodes
    }
    heard = Heard(stirred=stirred, stakes_before=stakes_before)
    remains = await take_out(tx, schema, Taken(keys, activities, deals, causes))
    lost_words = await accounts.forget_words(tx, schema, remains.lost, activities)
    described = await accounts.lose_words(tx, schema, lost_words)
    swing = remains.swing()
    await assertions.restore_slots(tx, schema, remains.lost_slots(), remains.slots, swing)
    fell_silent = await consents.forget_words(tx, schema, erased)
    if remains.lost:
        fell_silent |= await consents.take_words_back(tx, schema, remains.lost)
    judged: list[Judged] = []
    for (workspace, *pair), node in await verdicts.silence_verdicts(tx, schema, keys):
        swing.shaken.update((workspace, end) for end in pair)
        swing.turned[pair[0], pair[1]] = False
        judged += [Judged(causes[workspace, node], end) for end in pair]
    swing.flagged = await flags.silence_flags(tx, schema, keys)
    judged += [Judged(causes[place], place[1]) for place in sorted(swing.flagged)]
    swing.shaken |= swing.flagged | stirred.keys()
    if not (remains.lost or judged or stirred):
        return described, fell_silent
    told = await _lose(tx, schema, rules, remains, swing, lost_words, judged, heard)
    # They were needed until now, to see that there are any.
    await verdicts.forget_verdicts(tx, schema, keys)
    await flags.forget_flags(tx, schema, keys)
    return [*told, *described], fell_silent


async def _lose(
    tx: Tx,
    schema: str,
    rules: RulesOf,
    remains: Remains,
    swing: Swing,
    lost_words: Sequence[LostWord],
    judged: Sequence[Judged] = (),
    heard: Heard = deal_words.NOTHING,
) -> list[Change]:
    """Brings profiles to what remains."""
    touched = Islands(tx, schema, rules)
    await touched.join([], swing)
    before = touched.profiles_of_atoms()
    atoms.replace_atoms(tx, schema, touched.atoms, touched.workspaces, remains.left_atoms())
    step = Step.to_now(touched, before, [*remains.lost, *judged], heard)

    def fall_silent(known: TraitsOfAtoms) -> TraitsOfAtoms:
        left = remains.left_traits()
        return atoms.replace_traits(tx, schema, known, touched.workspaces, left)

    moves, traits = await step.tell(tx, schema, fall_silent)
    members = await settle_memberships(tx, schema, step, [word.atom for word in lost_words])
    # Taken back is what the old profiles had, so that one that ends is empty by then.
    taken_back = changes.retractions(remains.lost, before)
    return [*taken_back, *moves, *traits, *members]
