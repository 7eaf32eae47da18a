"""The rules of a match suggestion: when it is open, and what deciding about it leads to.

Its id is that of the verdict on the same two identifiers: there is one per pair, for ever. What
somebody decided stays decided, whatever a run finds; only somebody can decide otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from google.protobuf.message import Message

from rapport.identity.v1.events_pb2 import (
    JudgedIdentifier,
    MatchSuggested,
    MatchSuggestionAccepted,
    MatchSuggestionClosed,
    MatchSuggestionRejected,
)
from rapport.identity.v1.match_pb2 import MatchRunCounts
from rapport.identity.v1.match_suggestions_pb2 import (
    AcceptMatchSuggestionRequest,
    MatchStrength,
    MatchSuggestionState,
    RejectMatchSuggestionRequest,
    SuggestMatchRequest,
)
from rapport.identity.v1.verdicts_pb2 import CutIdentifiersRequest, LinkIdentifiersRequest
from services.identity import decider as verdict
from services.identity.match_standing import Judged
from services.kernel.command.decider import Decider
from services.kernel.errors import NotFound, ResourceExhausted

# Hundredths of a weight: what is below the first is never suggested.
REVIEW_HUNDREDTHS = 0
VERY_LIKELY_HUNDREDTHS = 1_000
# Suggestions of a workspace that wait for somebody to decide.
OPEN_SUGGESTIONS_MAX = 10_000

Command = SuggestMatchRequest
Decision: TypeAlias = AcceptMatchSuggestionRequest | RejectMatchSuggestionRequest

OPEN = MatchSuggestionState.MATCH_SUGGESTION_STATE_OPEN
ACCEPTED = MatchSuggestionState.MATCH_SUGGESTION_STATE_ACCEPTED
REJECTED = MatchSuggestionState.MATCH_SUGGESTION_STATE_REJECTED
CLOSED = MatchSuggestionState.MATCH_SUGGESTION_STATE_CLOSED


@dataclass(frozen=True, slots=True)
class State:
    """A suggestion as its events leave it; before the first of them it does not exist.

    `evidence` is that of the serialised MatchSuggested that said it last.
    """

    state: int = 0
    one: Judged = ("", "")
    other: Judged = ("", "")
    run: str = ""
    weight_hundredths: int | None = None
    evidence: bytes = b""
    model_version: str = ""
    closure: int = 0


@dataclass(frozen=True, slots=True)
class About:
    """The identifiers that a suggestion by hand is about, the stronger first.

    `open_count` is how many suggestions wait for somebody already.
    """

    one: Judged
    other: Judged
    open_count: int


def strength_of(weight_hundredths: int | None) -> MatchStrength.ValueType:
    """Returns how likely a weight is."""
    if weight_hundredths is None or weight_hundredths < REVIEW_HUNDREDTHS:
        return MatchStrength.MATCH_STRENGTH_UNSPECIFIED
    if weight_hundredths < VERY_LIKELY_HUNDREDTHS:
        return MatchStrength.MATCH_STRENGTH_REVIEW
    return MatchStrength.MATCH_STRENGTH_VERY_LIKELY


def suggest(about: About, _command: Command, state: State) -> Sequence[Message]:
    """What is open or decided already is no news."""
    if state.state not in {0, CLOSED}:
        return []
    if about.open_count >= OPEN_SUGGESTIONS_MAX:
        raise ResourceExhausted("OPEN_SUGGESTIONS_MAX", OPEN_SUGGESTIONS_MAX)
    one, other = about.one, about.other
    return [MatchSuggested(one=_named(one), other=_named(other))]


def find(found: MatchSuggested, state: State) -> Sequence[MatchSuggested]:
    """A run opens what is new or was closed, and tells what weighs otherwise; nothing decided."""
    if state.state in {ACCEPTED, REJECTED}:
        return []
    is_same = (state.weight_hundredths, state.evidence) == (
        found.weight_hundredths,
        _evidence(found),
    )
    return [] if state.state == OPEN and is_same else [found]


def close(closed: MatchSuggestionClosed, state: State) -> Sequence[MatchSuggestionClosed]:
    """A run closes only what is open."""
    return [closed] if state.state == OPEN else []


def tell(
    fact: MatchSuggested | MatchSuggestionClosed,
    state: State,
    counts: MatchRunCounts,
    room: int,
) -> Sequence[Message]:
    """Returns what a run records of a suggestion, and counts it; `room` is for so many new ones."""
    if isinstance(fact, MatchSuggestionClosed):
        closed = close(fact, state)
        counts.closed += len(closed)
        return closed
    if state.state in {ACCEPTED, REJECTED}:
        counts.decided += 1
    elif state.state == OPEN:
        counts.confirmed += 1
    elif room > 0:
        counts.suggested += 1
    else:
        counts.left_out += 1
        return []
    return find(fact, state)


def settle(
    name: str,
    decision: Decision,
    about: verdict.Judged,
    states: tuple[State, verdict.State],
) -> tuple[Sequence[Message], Sequence[Message]]:
    """Returns the facts of a suggestion and of the verdict that a decision about it gives.

    `about` are the identifiers of both.
    """
    state, judged = states
    if not state.state:
        raise NotFound(name)
    is_accepted = isinstance(decision, AcceptMatchSuggestionRequest)
    told = MatchSuggestionAccepted() if is_accepted else MatchSuggestionRejected()
    asked = LinkIdentifiersRequest if is_accepted else CutIdentifiersRequest
    # Somebody may have taken the verdict back since: then it is given anew.
    given = verdict.decide(about, asked(reason=decision.reason), judged)
    is_news = state.state != (ACCEPTED if is_accepted else REJECTED)
    return [told] if is_news else [], given


def evolve(state: State, event: Message) -> State:
    """Returns the suggestion after an event."""
    match event:
        case MatchSuggested():
            has_weight = event.HasField("weight_hundredths")
            return State(
                state=OPEN,
                one=(event.one.type, event.one.node),
                other=(event.other.type, event.other.node),
                run=event.run,
                weight_hundredths=event.weight_hundredths if has_weight else None,
                evidence=_evidence(event),
                model_version=event.model_version,
            )
        case MatchSuggestionAccepted():
            return replace(state, state=ACCEPTED, closure=0)
        case MatchSuggestionRejected():
            return replace(state, state=REJECTED, closure=0)
        case MatchSuggestionClosed():
            return replace(state, state=CLOSED, closure=event.closure)
    return state


def _evidence(found: MatchSuggested) -> bytes:
    return MatchSuggested(evidence=found.evidence).SerializeToString(deterministic=True)


def _named(judged: Judged) -> JudgedIdentifier:
    return JudgedIdentifier(type=judged[0], node=judged[1])


DECIDER: Decider[Command, State] = Decider(
    category="matchSuggestion",
    collection="matchSuggestions",
    initial=State(),
    # What it is about is known when it is asked: see `decider_about`.
    decide=lambda _command, _state: [],
    evolve=evolve,
)


def decider_about(about: About) -> Decider[Command, State]:
    """Returns the rules of the suggestion that two identifiers are one person's."""
    return replace(DECIDER, decide=partial(suggest, about))
