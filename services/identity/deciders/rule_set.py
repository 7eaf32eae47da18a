"""The rules of a rule set: it is never changed, and not in force before its outcome was seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.identity.v1.events_pb2 import (
    RuleSetDiscarded,
    RuleSetDrafted,
    RuleSetFailed,
    RuleSetPreviewed,
    RuleSetPreviewRequested,
    RuleSetPublished,
    RuleSetPublishRequested,
    RuleSetSuperseded,
)
from rapport.identity.v1.rule_sets_pb2 import (
    DiscardRuleSetRequest,
    DraftRuleSetRequest,
    PreviewRuleSetRequest,
    PublishRuleSetRequest,
    RuleSetState,
)
from services.identity.rule_sets import checked
from services.kernel.command.decider import Decider
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)

RULE_SETS_MAX = 200
"""Of a workspace, discarded ones too."""

DRAFTED = RuleSetState.RULE_SET_STATE_DRAFTED
PREVIEWING = RuleSetState.RULE_SET_STATE_PREVIEWING
PREVIEWED = RuleSetState.RULE_SET_STATE_PREVIEWED
PUBLISHING = RuleSetState.RULE_SET_STATE_PUBLISHING
PUBLISHED = RuleSetState.RULE_SET_STATE_PUBLISHED
SUPERSEDED = RuleSetState.RULE_SET_STATE_SUPERSEDED
FAILED = RuleSetState.RULE_SET_STATE_FAILED
DISCARDED = RuleSetState.RULE_SET_STATE_DISCARDED

Command = (
    DraftRuleSetRequest | PreviewRuleSetRequest | PublishRuleSetRequest | DiscardRuleSetRequest
)


@dataclass(frozen=True, slots=True)
class State:
    """A rule set as its events leave it; before the first of them it does not exist.

    `rules` are serialised ResolutionRules, `shift` is a serialised ProfileShift.
    """

    state: int = 0
    display_name: str = ""
    rules: bytes = b""
    shift: bytes = b""
    failure: str = ""


def decide(count: int, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command; `count` rule sets are there already."""
    match command:
        case DraftRuleSetRequest():
            return _draft(count, command, state)
        case PreviewRuleSetRequest():
            allowed = {DRAFTED, PREVIEWED, SUPERSEDED, FAILED}
            return _step(command.name, state, allowed, {PREVIEWING}, RuleSetPreviewRequested())
        case PublishRuleSetRequest():
            allowed = (
                {DRAFTED, PREVIEWED, SUPERSEDED, FAILED} if command.skip_preview else {PREVIEWED}
            )
            done = {PUBLISHING, PUBLISHED}
            return _step(command.name, state, allowed, done, RuleSetPublishRequested())
        case DiscardRuleSetRequest():
            allowed = {DRAFTED, PREVIEWING, PREVIEWED, PUBLISHING, SUPERSEDED, FAILED}
            return _step(command.name, state, allowed, {DISCARDED}, RuleSetDiscarded())


def _draft(count: int, command: DraftRuleSetRequest, state: State) -> Sequence[Message]:
    if state.state:
        raise AlreadyExists(f"ruleSets/{command.rule_set_id}", "rule_set_id")
    if count >= RULE_SETS_MAX:
        raise ResourceExhausted("RULE_SETS_MAX", RULE_SETS_MAX)
    rules = checked(command.rules, "rules")
    return [RuleSetDrafted(display_name=command.display_name.replace("\0", ""), rules=rules)]


def _step(
    name: str, state: State, allowed: Collection[int], done: Collection[int], fact: Message
) -> Sequence[Message]:
    """Takes a step that a state allows; one that was taken already is no news."""
    if not state.state:
        raise NotFound(name)
    if state.state in done:
        return []
    if state.state not in allowed:
        said = state_name(state.state)
        raise FailedPrecondition(f"{name} is {said}", resource=name, state=said)
    return [fact]


def state_name(state: int) -> str:
    """Returns what a state is called in filters and errors."""
    return RuleSetState.Name(RuleSetState.ValueType(state)).removeprefix("RULE_SET_STATE_")


def evolve(state: State, event: Message) -> State:
    """Returns the rule set after an event."""
    match event:
        case RuleSetDrafted():
            rules = event.rules.SerializeToString(deterministic=True)
            return State(DRAFTED, event.display_name, rules)
        case RuleSetPreviewRequested():
            return replace(state, state=PREVIEWING, shift=b"", failure="")
        case RuleSetPreviewed():
            shift = event.shift.SerializeToString(deterministic=True)
            return replace(state, state=PREVIEWED, shift=shift)
        case RuleSetPublishRequested():
            return replace(state, state=PUBLISHING)
        case RuleSetPublished():
            shift = event.shift.SerializeToString(deterministic=True)
            return replace(state, state=PUBLISHED, shift=shift)
        case RuleSetSuperseded():
            return replace(state, state=SUPERSEDED)
        case RuleSetFailed():
            return replace(state, state=FAILED, failure=event.reason)
        case RuleSetDiscarded():
            return replace(state, state=DISCARDED)
    return state


def decider_with(count: int) -> Decider[Command, State]:
    """The rules for a workspace that has so many."""
    return Decider(
        category="ruleset",
        collection="ruleSets",
        initial=State(),
        decide=partial(decide, count),
        evolve=evolve,
    )


DECIDER = decider_with(0)
"""The rules for who drafts none."""
