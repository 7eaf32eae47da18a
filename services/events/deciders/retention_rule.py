"""The rules of a retention rule: it takes nothing before it is enabled, and never says otherwise.

Whoever wants it otherwise makes another: what was taken meanwhile is gone for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.events.v1.events_pb2 import (
    RetentionRuleCreated,
    RetentionRuleDisabled,
    RetentionRuleEnabled,
    RetentionSettings,
)
from rapport.events.v1.retention_pb2 import (
    CreateRetentionRuleRequest,
    DisableRetentionRuleRequest,
    EnableRetentionRuleRequest,
)
from services.events.display_names import readable
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted

Command = CreateRetentionRuleRequest | EnableRetentionRuleRequest | DisableRetentionRuleRequest

RETENTION_RULES_MAX = 100
"""Of a workspace: each looks at its log by itself."""

SOURCES = "sources/"


@dataclass(frozen=True, slots=True)
class State:
    """A rule as its events leave it; before the first of them it does not exist.

    `settings` are serialised RetentionSettings.
    """

    exists: bool = False
    display_name: str = ""
    settings: bytes = b""
    is_enabled: bool = False


def decide(count: int, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it; `count` are there already."""
    if isinstance(command, CreateRetentionRuleRequest):
        return create(count, command, state)
    if not state.exists:
        raise NotFound(command.name)
    if isinstance(command, EnableRetentionRuleRequest):
        return [] if state.is_enabled else [RetentionRuleEnabled()]
    return [RetentionRuleDisabled()] if state.is_enabled else []


def create(count: int, command: CreateRetentionRuleRequest, state: State) -> Sequence[Message]:
    """A new rule needs a free id, a name, and a source that can be one."""
    if state.exists:
        raise AlreadyExists(f"retentionRules/{command.retention_rule_id}", "retention_rule_id")
    if count >= RETENTION_RULES_MAX:
        raise ResourceExhausted("RETENTION_RULES_MAX", RETENTION_RULES_MAX)
    created = RetentionRuleCreated(
        display_name=readable(command.display_name, "a retention rule"),
        settings=checked(command.settings),
    )
    return [created]


def checked(settings: RetentionSettings) -> RetentionSettings:
    """Refuses settings that are about nothing."""
    source = settings.source
    if source and (not source.startswith(SOURCES) or "/" in source[len(SOURCES) :]):
        raise InvalidArgument.of("settings.source", f"must look like {SOURCES}{{id}}, or be empty")
    return settings


def evolve(state: State, event: Message) -> State:
    """Returns the rule after an event."""
    match event:
        case RetentionRuleCreated():
            settings = event.settings.SerializeToString(deterministic=True)
            return State(exists=True, display_name=event.display_name, settings=settings)
        case RetentionRuleEnabled():
            return replace(state, is_enabled=True)
        case RetentionRuleDisabled():
            return replace(state, is_enabled=False)
    return state


def decider_with(count: int) -> Decider[Command, State]:
    """The rules for a workspace that has so many."""
    return Decider(
        category="retentionrule",
        collection="retentionRules",
        initial=State(),
        decide=partial(decide, count),
        evolve=evolve,
    )


DECIDER = decider_with(0)
"""The rules for who makes none."""
