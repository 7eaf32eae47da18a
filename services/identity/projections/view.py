"""The view `profiles`: folds what contacts, deals, customer events and verdicts say into profiles.

A batch is read in a few queries, resolved in memory and written with one statement per table.
Everything in the tables follows from the set of facts alone, so neither the order of the facts nor
the size of the batches can be seen in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from uuid import UUID

from rapport.events.v1.events_pb2 import (
    CustomerEventRecorded,
    CustomerEventRetracted,
    CustomerEventsErased,
)
from services.identity import changes
from services.identity.accounts import Word, words_of
from services.identity.changes import ACTOR, Change
from services.identity.consents import FACTS as CONSENTS
from services.identity.erasures import FACTS as ERASURES
from services.identity.erasures import erased_activities, is_unsaid, left_of, named_by, nodes_in
from services.identity.facts import READ, Fact, read_fact
from services.identity.flags import FACTS as FLAGS
from services.identity.flags import last_flags
from services.identity.projections import (
    accounts,
    assertions,
    atoms,
    consent_statuses,
    consents,
    deal_words,
    erased_nodes,
    flags,
    graph_rows,
    memberships,
    profiles,
    timeline,
    verdicts,
)
from services.identity.projections.assertions import Swing
from services.identity.projections.atoms import TraitsOfAtoms
from services.identity.projections.bulk import ProfilesBulk
from services.identity.projections.deal_words import Heard
from services.identity.projections.differences import Difference
from services.identity.projections.islands import Islands
from services.identity.projections.losing import RulesOf, erase, retract
from services.identity.projections.memberships import settle_memberships
from services.identity.projections.rules_in_force import RulesInForce, rules_in_force
from services.identity.projections.step import Step
from services.identity.projections.verdicts import Judged
from services.identity.retraction import settle
from services.identity.rules import Rules
from services.identity.verdicts import FACTS as VERDICTS
from services.identity.verdicts import last_rulings
from services.kernel.log.log import Origin
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx

_IDEAS = (
    graph_rows,
    assertions,
    atoms,
    timeline,
    deal_words,
    profiles,
    verdicts,
    flags,
    accounts,
    memberships,
    consents,
    consent_statuses,
    erased_nodes,
)

# The own log is read for verdicts, flags, consents and erasures; all else follows from these.
HEARD = (
    READ
    | ERASURES
    | {CustomerEventRetracted, CustomerEventsErased, *VERDICTS.values(), *FLAGS.values(), *CONSENTS}
)
# Nearly all that is heard; it says nothing but a fact.
_COMMON = CustomerEventRecorded

# A million events with 440 000 identifiers take 0.5 GB of memory at most.
EVENTS_IN_BULK_MAX = 5_000_000

# Of so many events, facts are kept that were read ahead; what is never applied is forgotten.
FACTS_AHEAD_MAX = 5_000

# What is written meanwhile is to go on.
FACTS_AT_ONCE = 50

# Plans made while the tables were empty must not outlive that; planning anew costs next to nothing.
# Some hundred rows are asked for by their keys, so to read or hash a whole table or index is
# never right; the planner thinks it is until tables have some hundred thousand rows.
PLAN_BY_KEYS = """
set local plan_cache_mode = force_custom_plan;
set local enable_seqscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off
"""
# Whoever goes on in the transaction may ask for whole tables.
_PLAN_AS_EVER = """
set local plan_cache_mode to default;
set local enable_seqscan to default;
set local enable_hashjoin to default;
set local enable_mergejoin to default
"""


class ProfilesView:
    """Keeps the tables: profiles by the rules that are found to be in force."""

    name = "profiles"
    shape = 5
    heeds = frozenset(kind.DESCRIPTOR.full_name for kind in HEARD)

    def __init__(
        self,
        rules: RulesInForce = rules_in_force,
        *,
        events_in_bulk_max: int = EVENTS_IN_BULK_MAX,
    ) -> None:
        self.rules = rules
        self.events_in_bulk_max = events_in_bulk_max
        self._rules_last: RulesOf = {}
        self._ahead: dict[UUID, tuple[Recorded, Rules, Fact | None]] = {}

    def tables(self, schema: str) -> str:
        return "".join(idea.TABLES.format(schema=schema) for idea in _IDEAS)

    def bulk(self, tx: Tx, schema: str) -> ProfilesBulk:
        """Begins to build all of it at once."""
        return ProfilesBulk(self, tx, schema)

    async def changes_between(self, tx: Tx, live: str, built: str) -> AsyncIterator[list[Change]]:
        """Tells the way from the profiles of one generation to those of another."""
        reason = f"generation {built}"

        def origin(workspace: str) -> Origin:
            return Origin(workspace, ACTOR, correlation_id=reason, causation_id="")

        async for part in Difference(tx, live, built, origin).parts():
            yield part

    def read_ahead(self, events: Sequence[Recorded]) -> None:
        """Reads facts by the rules that were in force when the last batch was applied."""
        if len(self._ahead) > FACTS_AHEAD_MAX:
            self._ahead.clear()
        for event in events:
            rules = self._rules_last.get(event.workspace)
            if rules is not None and type(event.event) is _COMMON:
                self._ahead[event.event_id] = event, rules, read_fact(rules, event, {})

    def _read(self, rules: Rules, event: Recorded, contacts: Mapping[UUID, str]) -> Fact | None:
        # What is read again may say less: somebody may have been erased of it.
        of, by, fact = self._ahead.pop(event.event_id, (None, None, None))
        return fact if of is event and by is rules else read_fact(rules, event, contacts)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> list[Change]:
        """Folds events into the tables; returns what that changed, in the order to tell it."""
        heeded = [event for event in events if type(event.event) in HEARD]
        if not heeded:
            return []
        await tx.execute(PLAN_BY_KEYS)
        rules = await self.rules(tx, schema, {event.workspace for event in heeded})
        self._rules_last = rules
        still_true, retractions = settle(heeded)
        told, unsaid = await retract(tx, schema, rules, retractions) if retractions else ([], {})
        rare = _uncommon(heeded)
        gone = erased_activities(rare)
        erased, fell_silent = await erase(tx, schema, rules, rare, gone)
        told += erased
        still_true = _not_taken_out(gone, still_true)
        still_true = await _not_erased_words(tx, schema, still_true)
        uncommon = _uncommon(still_true)
        heard = await deal_words.hear(tx, schema, uncommon)
        read = [
            fact
            for event in still_true
            if (fact := self._read(rules[event.workspace], event, heard.contacts)) is not None
        ]
        left = await _not_erased(tx, schema, read)
        facts = await timeline.add_activities(tx, schema, left)
        words = await accounts.add_words(tx, schema, words_of(_said(still_true, read, left), left))
        told += await _add(tx, schema, rules, facts, heard, words) if facts or heard.stirred else []
        told += await accounts.hear_words(tx, schema, words)
        told += await _judge(tx, schema, rules, uncommon)
        spoken = await consents.keep_words(tx, schema, facts, uncommon)
        heard_of = unsaid | fell_silent | spoken
        told += await consent_statuses.tell_consents(tx, schema, told, heard_of)
        # Awaited, so that nothing is being written any more when this returns.
        await tx.execute(_PLAN_AS_EVER)
        return told


def _uncommon(events: Iterable[Recorded]) -> list[Recorded]:
    """Returns the events that say something else than customer events do."""
    return [event for event in events if type(event.event) is not _COMMON]


def _said(
    events: Sequence[Recorded], read: Sequence[Fact], left: Sequence[Fact]
) -> Sequence[Recorded]:
    """Returns the events without those whose facts, as they were read, are not left."""
    if len(read) == len(left):
        return events
    gone = {fact.activity_id for fact in read} - {fact.activity_id for fact in left}
    return [event for event in events if event.event_id not in gone]


def _not_taken_out(
    gone: Collection[tuple[str, UUID]], events: Sequence[Recorded]
) -> Sequence[Recorded]:
    """Returns the events without those that their own log has erased."""
    if not gone:
        return events
    return [event for event in events if (event.workspace, event.event_id) not in gone]


async def _not_erased_words(tx: Tx, schema: str, events: Sequence[Recorded]) -> Sequence[Recorded]:
    """Returns the events without what people said, here, about somebody who was erased since."""
    named = {(event.workspace, node) for event in _uncommon(events) for node in nodes_in(event)}
    if not named:
        return events
    keys = await erased_nodes.keys_of(tx, schema, named)
    return [event for event in events if not is_unsaid(keys, event)]


async def _not_erased(tx: Tx, schema: str, facts: Sequence[Fact]) -> list[Fact]:
    """Returns the facts that name nobody who was erased since."""
    erasing = await erased_nodes.erasing_among(tx, schema, {fact.workspace for fact in facts})
    if not erasing:
        return list(facts)
    asked = [fact for fact in facts if fact.workspace in erasing]
    named = {(fact.workspace, node) for fact in asked for node in named_by(fact)}
    return left_of(await erased_nodes.keys_of(tx, schema, named), facts)


async def _add(
    tx: Tx,
    schema: str,
    rules: RulesOf,
    facts: Sequence[Fact],
    heard: Heard,
    words: Sequence[Word],
) -> list[Change]:
    """Adds facts that were not there before."""
    swing = await assertions.assert_slots(tx, schema, facts)
    swing.shaken.update(heard.stirred)
    touched = Islands(tx, schema, rules)
    await touched.join(facts, swing)
    before = touched.profiles_of_atoms()
    growth = atoms.add_to_atoms(touched.atoms, facts)
    step = Step.to_now(touched, before, facts, heard)

    def speak(known: TraitsOfAtoms) -> TraitsOfAtoms:
        return atoms.add_traits(tx, schema, known, facts)

    moves, traits = await step.tell(tx, schema, speak)
    atoms.save_atoms(tx, schema, growth)
    done: list[Change] = []
    for start in range(0, len(facts), FACTS_AT_ONCE):
        await asyncio.sleep(0)
        done += changes.activities(facts[start : start + FACTS_AT_ONCE], step.after)
    members = await settle_memberships(tx, schema, step, [word.atom for word in words])
    return [*moves, *done, *traits, *members]


async def _judge(tx: Tx, schema: str, rules: RulesOf, events: Sequence[Recorded]) -> list[Change]:
    """Lets people's verdicts and flags hold; what they part or join moves with its atoms."""
    rulings, flagged = last_rulings(events), last_flags(events)
    turns = await verdicts.keep_rulings(tx, schema, rulings) if rulings else ()
    won = await flags.keep_flags(tx, schema, flagged) if flagged else ()
    news = [judged for turn in turns for judged in turn.news]
    news += [Judged(flag.event, flag.node) for flag in won]
    if not news:
        return []
    swing = Swing(flagged={flag.place for flag in won})
    swing.shaken |= {(judged.event.workspace, judged.atom) for judged in news}
    swing.turned = {turn.ruling.pair: turn.is_new_cut for turn in turns}
    touched = Islands(tx, schema, rules)
    await touched.join([], swing)
    before = touched.profiles_of_atoms()
    step = Step.to_now(touched, before, news)

    def say_nothing(known: TraitsOfAtoms) -> TraitsOfAtoms:
        return known

    moves, traits = await step.tell(tx, schema, say_nothing)
    return [*moves, *traits, *await settle_memberships(tx, schema, step)]
