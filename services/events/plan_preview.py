"""What a tracking plan would have made of customer events that were recorded. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.tracking_plans_pb2 import (
    PlanOutcomes,
    PreviewedEvent,
    PreviewedRule,
    PreviewTrackingPlanResponse,
)
from services.events.door import Judgement, Verdict
from services.events.plan_inference import kind_of
from services.events.schema import Opened

if TYPE_CHECKING:
    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from services.events.plans import CompiledPlan

EVENTS_TOLD_MAX = 100
RULES_TOLD_MAX = 100
EXAMPLES_MAX = 5
KEPT_MAX = 10_000
"""Types and names, and rules, that are counted apart; what comes after so many counts in total."""


@dataclass(slots=True)
class Preview:
    """Counts what becomes of customer events."""

    plan: CompiledPlan
    looked_at: int = 0
    outcomes: PlanOutcomes = field(default_factory=PlanOutcomes)
    events: dict[tuple[int, str], PreviewedEvent] = field(default_factory=dict)
    rules: dict[tuple[int, str, str, str], PreviewedRule] = field(default_factory=dict)

    def add(self, customer_event: CustomerEvent) -> None:
        """Judges a customer event as it was recorded."""
        self.looked_at += 1
        type_, name = kind_of(customer_event)
        message_id = customer_event.message_id
        opened = reopened(customer_event)
        judgement = self.plan.judge(opened)
        outcome = outcome_of(judgement, opened)
        _count(self.outcomes, outcome)
        event = self.events.get((type_, name))
        if event is None and len(self.events) < KEPT_MAX:
            event = self.events[type_, name] = PreviewedEvent(
                type=CustomerEventType.ValueType(type_), event_name=name
            )
        if event is not None:
            _count(event.outcomes, outcome)
            if judgement.violations and len(event.example_message_ids) < EXAMPLES_MAX:
                event.example_message_ids.append(message_id)
        broken = {(it.rule, _without_numbers(it.path)) for it in judgement.violations}
        for rule, path in broken:
            self._add_rule((type_, name, rule, path), message_id)

    def response(self, *, is_complete: bool) -> PreviewTrackingPlanResponse:
        """What was counted, the most remarkable first."""
        events = sorted(self.events.items(), key=lambda it: (-_unexpected(it[1]), it[0]))
        rules = sorted(self.rules.items(), key=lambda it: (-it[1].count, it[0]))
        return PreviewTrackingPlanResponse(
            looked_at=self.looked_at,
            is_complete=is_complete,
            outcomes=self.outcomes,
            events=[event for _, event in events[:EVENTS_TOLD_MAX]],
            rules=[rule for _, rule in rules[:RULES_TOLD_MAX]],
        )

    def _add_rule(self, key: tuple[int, str, str, str], message_id: str) -> None:
        rule = self.rules.get(key)
        if rule is None:
            if len(self.rules) >= KEPT_MAX:
                return
            type_, name, word, path = key
            rule = self.rules[key] = PreviewedRule(
                type=CustomerEventType.ValueType(type_), event_name=name, rule=word, path=path
            )
        rule.count += 1
        if len(rule.example_message_ids) < EXAMPLES_MAX:
            rule.example_message_ids.append(message_id)


def reopened(recorded: CustomerEvent) -> Opened:
    """A customer event that was recorded, with its JSON read."""
    return Opened(
        recorded,
        _object(recorded.properties),
        _object(recorded.traits),
        _object(recorded.context),
    )


def outcome_of(judgement: Judgement, opened: Opened) -> str:
    """Which of PlanOutcomes a judgement counts for."""
    if judgement.verdict is Verdict.REFUSE:
        return "refused"
    if judgement.verdict is Verdict.QUARANTINE:
        return "quarantined"
    if opened.changed:
        return "omitted_from"
    return "flagged" if judgement.violations else "valid"


def _object(text: str) -> dict[str, Any]:
    found = orjson.loads(text) if text else {}
    assert isinstance(found, dict)
    return found


def _count(outcomes: PlanOutcomes, outcome: str) -> None:
    setattr(outcomes, outcome, getattr(outcomes, outcome) + 1)


def _unexpected(event: PreviewedEvent) -> int:
    found = event.outcomes
    return found.flagged + found.omitted_from + found.quarantined + found.refused


def _without_numbers(path: str) -> str:
    """A JSON pointer with `*` for places in lists, so that each item is not a rule of its own."""
    return "/".join(_starred(path.split("/")))


def _starred(parts: Iterable[str]) -> Iterable[str]:
    return ("*" if part.isdigit() else part for part in parts)
