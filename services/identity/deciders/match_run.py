"""The rules of a match run: what may be asked of it when, and the facts that follow.

That it is done, or cannot be, a worker finds out and appends itself, only if nothing happened to
the run since it looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from rapport.identity.v1.events_pb2 import (
    MatchRunCancelled,
    MatchRunFailed,
    MatchRunFinished,
    MatchRunStarted,
)
from rapport.identity.v1.match_runs_pb2 import (
    CancelMatchRunRequest,
    MatchRunState,
    StartMatchRunRequest,
)
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, FailedPrecondition, NotFound

Command = StartMatchRunRequest | CancelMatchRunRequest

RUNNING = MatchRunState.MATCH_RUN_STATE_RUNNING
DONE = MatchRunState.MATCH_RUN_STATE_DONE
FAILED = MatchRunState.MATCH_RUN_STATE_FAILED
CANCELLED = MatchRunState.MATCH_RUN_STATE_CANCELLED


@dataclass(frozen=True, slots=True)
class State:
    """A run as its events leave it; before the first of them it does not exist.

    `counts` are serialised.
    """

    state: int = 0
    filter: str = ""
    counts: bytes = b""
    model_version: str = ""
    reason: str = ""


def decide(command: Command, state: State) -> Sequence[Message]:
    """A run is started once; one that has ended cannot be cancelled."""
    if isinstance(command, StartMatchRunRequest):
        if state.state:
            raise AlreadyExists(DECIDER.name(command.match_run_id), "match_run_id")
        return [MatchRunStarted(filter=command.filter)]
    if not state.state:
        raise NotFound(command.name)
    if state.state == CANCELLED:
        return []
    if state.state != RUNNING:
        said = MatchRunState.Name(MatchRunState.ValueType(state.state))
        said = said.removeprefix("MATCH_RUN_STATE_")
        message = f"{command.name} is {said}; it must be RUNNING"
        raise FailedPrecondition(message, resource=command.name, state=said)
    return [MatchRunCancelled()]


def evolve(state: State, event: Message) -> State:
    """Returns the run after an event."""
    match event:
        case MatchRunStarted():
            return State(state=RUNNING, filter=event.filter)
        case MatchRunFinished():
            counts = event.counts.SerializeToString(deterministic=True)
            return replace(state, state=DONE, counts=counts, model_version=event.model_version)
        case MatchRunFailed():
            counts = event.counts.SerializeToString(deterministic=True)
            return replace(state, state=FAILED, counts=counts, reason=event.reason)
        case MatchRunCancelled():
            return replace(state, state=CANCELLED)
    return state


DECIDER: Decider[Command, State] = Decider(
    category="matchRun",
    collection="matchRuns",
    initial=State(),
    decide=decide,
    evolve=evolve,
)
