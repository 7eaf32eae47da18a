"""Whenever a profile's facts change then members enter and exit.

Three things lead to a look at a rule: facts that arrive (`FactsPolicy`, in the transaction that
folds them), a due time that comes, and a segment that is new or archived (`Upkeep`, in a file of
its own). All hold the heads of the own log while they look, so they take turns, and all end in
`judge`, which compares the rule's verdict with the members as they are: looking twice says nothing
twice, and a look that a crash took back is taken again.

A transition's time is when the rule's answer became what it is, as the facts tell; so it does not
depend on who looked first, or how late.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rapport.segments.v1.events_pb2 import ProfileEnteredSegment, ProfileExitedSegment
from services.kernel.clock import Clock
from services.kernel.log.log import ANY_VERSION, Append, NewEvent, Origin
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx
from services.segments.decider import DECIDER, MEMBERSHIP
from services.segments.projections import agenda
from services.segments.projections.agenda import Definition, MemberKey
from services.segments.projections.facts import ProfileKey, Touch
from services.segments.projections.known_facts import Wanted, load_facts
from services.segments.rules import Verdict

ACTOR = "services/segments"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a profile is looked at, and when that happened."""

    occur_time: datetime
    correlation_id: str = ""
    causation_id: str = ""

    @classmethod
    def of(cls, event: Recorded) -> Cause:
        """An event that changed what is known."""
        return cls(event.occur_time, event.correlation_id, str(event.event_id))


@dataclass(slots=True)
class Question:
    """Which segments are to be looked at for a profile."""

    cause: Cause
    definitions: list[Definition] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Transition:
    """A profile whose membership is not what the rule says."""

    definition: Definition
    profile: ProfileKey
    cause: Cause
    enter_time: datetime | None
    """Since when it is a member; None when it is about to be one."""


class FactsPolicy:
    """Whenever a profile's facts change then look at the segments that look at them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def react(
        self, tx: Tx, _events: Sequence[Recorded], touched: Mapping[ProfileKey, Touch]
    ) -> Sequence[Append]:
        """Says who enters and exits."""
        if not touched:
            return []
        definitions = await agenda.active_definitions(tx, sorted({key[0] for key in touched}))
        questions = ask(touched, definitions)
        return await judge(tx, await agenda.advance_moment(tx, self._clock.now()), questions)


def ask(
    touched: Mapping[ProfileKey, Touch], definitions: Sequence[Definition]
) -> dict[ProfileKey, Question]:
    """Returns which segments look at what changed, by profile."""
    everything: dict[str, list[Definition]] = defaultdict(list)
    by_trait: dict[tuple[str, str], list[Definition]] = defaultdict(list)
    by_activity: dict[tuple[str, str], list[Definition]] = defaultdict(list)
    for definition in definitions:
        everything[definition.workspace].append(definition)
        for name in {condition.trait for condition in definition.rule.traits}:
            by_trait[definition.workspace, name].append(definition)
        for name in {condition.activity for condition in definition.rule.activities}:
            by_activity[definition.workspace, name].append(definition)
    questions = {}
    for profile, touch in touched.items():
        workspace = profile[0]
        if touch.is_regrouped:
            asked = everything.get(workspace, [])
        else:
            found = [d for name in touch.traits for d in by_trait.get((workspace, name), ())]
            found += [d for n in touch.activities for d in by_activity.get((workspace, n), ())]
            asked = list({definition.segment_id: definition for definition in found}.values())
        if asked:
            questions[profile] = Question(Cause.of(touch.cause), asked)
    return questions


async def judge(
    tx: Tx, now: datetime, questions: Mapping[ProfileKey, Question]
) -> Sequence[Append]:
    """Compares rules with members; says who enters and exits and notes when to look again.

    The caller holds the heads of the own log, and appends what is answered.
    """
    if not questions:
        return []
    facts = await load_facts(tx, _wanted(questions), now)
    members = await agenda.memberships(tx, list(questions))
    dues = await agenda.dues(tx, list(questions))
    moved: dict[MemberKey, datetime | None] = {}
    transitions = []
    for profile, question in questions.items():
        for definition in question.definitions:
            key = (*profile, definition.segment_id)
            verdict = definition.rule.verdict(facts[profile], now)
            if verdict.due != dues.get(key):
                moved[key] = verdict.due
            if _is_news(verdict, members.get(key)):
                transitions.append(
                    Transition(definition, profile, question.cause, members.get(key))
                )
    await agenda.save_dues(tx, moved)
    return await _told(tx, now, transitions)


def _is_news(verdict: Verdict, enter_time: datetime | None) -> bool:
    return verdict.holds != (enter_time is not None)


def _wanted(questions: Mapping[ProfileKey, Question]) -> dict[ProfileKey, Wanted]:
    """The facts that verdicts need: of an activity no more than the largest count asked for."""
    wanted: dict[ProfileKey, Wanted] = {}
    for profile, question in questions.items():
        of_profile = wanted[profile] = Wanted()
        for definition in question.definitions:
            of_profile.traits.update(condition.trait for condition in definition.rule.traits)
            for condition in definition.rule.activities:
                known = of_profile.activities.get(condition.activity) or 0
                of_profile.activities[condition.activity] = max(known, condition.count_min)
    return wanted


async def _told(tx: Tx, now: datetime, transitions: Sequence[Transition]) -> list[Append]:
    """The transitions as events of their segments; only these need a person's whole history."""
    wanted: dict[ProfileKey, Wanted] = defaultdict(Wanted)
    for transition in transitions:
        rule = transition.definition.rule
        wanted[transition.profile].traits.update(condition.trait for condition in rule.traits)
        wanted[transition.profile].activities.update({c.activity: None for c in rule.activities})
    facts = await load_facts(tx, wanted, now)
    told = []
    for transition in transitions:
        since = transition.definition.rule.since(facts[transition.profile], now)
        told.append((transition, since or min(transition.cause.occur_time, now)))
    return appends_of(told)


def appends_of(told: Iterable[tuple[Transition, datetime]]) -> list[Append]:
    """Says who entered or exited when; nobody exits before he entered."""
    events: dict[tuple[str, str, Cause], list[NewEvent]] = defaultdict(list)
    for transition, moment in told:
        definition, (workspace, profile_id) = transition.definition, transition.profile
        names = {
            "segment": DECIDER.name(definition.segment_id),
            "profile": f"profiles/{profile_id}",
        }
        if transition.enter_time is None:
            new = NewEvent(ProfileEnteredSegment(**names), moment)
        else:
            new = NewEvent(ProfileExitedSegment(**names), max(moment, transition.enter_time))
        events[workspace, definition.segment_id, transition.cause].append(new)
    return [
        Append(
            Origin(workspace, ACTOR, cause.correlation_id, cause.causation_id),
            f"{MEMBERSHIP}-{segment_id}",
            of_segment,
            ANY_VERSION,
        )
        for (workspace, segment_id, cause), of_segment in events.items()
    ]
