"""The rules of an erasure: whom it is about, and how far it is in each system.

It is about identifiers by their nodes and hashes: neither the facts nor the state hold a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from google.protobuf.message import Message

from rapport.common.v1.subjects_pb2 import FactKey
from rapport.identity.v1.erasure_state_pb2 import (
    ERASURE_STATE_FAILED,
    ERASURE_STATE_FINISHED,
    ERASURE_STATE_INITIALIZED,
    ERASURE_STATE_NOT_SUPPORTED,
    ERASURE_STATE_RUNNING,
    ErasureState,
)
from rapport.identity.v1.erasures_pb2 import CreateErasureRequest, RetryErasureRequest
from rapport.identity.v1.events_pb2 import (
    ErasureCreated,
    ErasureExtended,
    ErasureRetried,
    JudgedIdentifier,
    SystemErasureEnded,
)
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, NotFound

Command = CreateErasureRequest | RetryErasureRequest

OPEN = (ERASURE_STATE_INITIALIZED, ERASURE_STATE_RUNNING)
"""States in which there is something to do."""


@dataclass(frozen=True, slots=True)
class System:
    """An erasure in one system; `counts` are what it erased, by where it was held."""

    state: int = ERASURE_STATE_INITIALIZED
    counts: tuple[tuple[str, int], ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """An erasure as its events leave it.

    `subjects` are types and nodes, `key` is a serialized FactKey.
    """

    exists: bool = False
    subjects: tuple[tuple[str, str], ...] = ()
    hashes: tuple[str, ...] = ()
    key: bytes = b""
    suppresses: bool = False
    anonymises: bool = False
    systems: dict[str, System] = field(default_factory=dict)

    @property
    def state(self) -> ErasureState.ValueType:
        """How far it is as a whole."""
        states = {system.state for system in self.systems.values()}
        if states <= {ERASURE_STATE_INITIALIZED}:
            return ERASURE_STATE_INITIALIZED
        if not states.isdisjoint(OPEN):
            return ERASURE_STATE_RUNNING
        return ERASURE_STATE_FAILED if ERASURE_STATE_FAILED in states else ERASURE_STATE_FINISHED

    @property
    def open_systems(self) -> list[str]:
        """The systems in which there is something to do."""
        return [name for name, system in self.systems.items() if system.state in OPEN]

    def fact_key(self) -> FactKey:
        """Up to which fact the person goes."""
        return FactKey.FromString(self.key)


@dataclass(frozen=True, slots=True)
class Asked:
    """What an erasure would be about."""

    name: str
    subjects: Sequence[tuple[str, str]]
    hashes: Sequence[str]
    key: FactKey
    systems: Sequence[str]


def decide(asked: Asked, command: Command, state: State) -> Sequence[Message]:
    """An erasure is created once; what failed is tried again, what goes on goes on."""
    match command:
        case CreateErasureRequest():
            if state.exists:
                raise AlreadyExists(asked.name, "erasure_id")
            if not asked.subjects:
                raise NotFound(command.profile)
            options = {"suppress": command.suppress, "anonymise": command.anonymise}
            return [created(asked, **options)]
        case RetryErasureRequest():
            return _retry(command, state)


def created(asked: Asked, *, suppress: bool = False, anonymise: bool = False) -> ErasureCreated:
    """The fact that begins an erasure."""
    return ErasureCreated(
        erasure=asked.name,
        key=asked.key,
        subjects=_judged(asked.subjects),
        hashes=asked.hashes,
        systems=asked.systems,
        suppress=suppress,
        anonymise=anonymise,
    )


def extended(
    name: str, state: State, subjects: Mapping[tuple[str, str], str]
) -> ErasureExtended | None:
    """The fact that more identifiers go with an erasure, given with their hashes; None for none."""
    known = {node for _, node in state.subjects}
    more = {subject: digest for subject, digest in subjects.items() if subject[1] not in known}
    if not more:
        return None
    return ErasureExtended(
        erasure=name,
        key=state.fact_key(),
        subjects=_judged(sorted(more)),
        hashes=[more[subject] for subject in sorted(more)],
    )


def evolve(state: State, event: Message) -> State:
    """Returns the erasure after an event."""
    match event:
        case ErasureCreated():
            return State(
                exists=True,
                subjects=tuple((each.type, each.node) for each in event.subjects),
                hashes=tuple(event.hashes),
                key=event.key.SerializeToString(deterministic=True),
                suppresses=event.suppress,
                anonymises=event.anonymise,
                systems={name: System() for name in event.systems},
            )
        case ErasureExtended():
            more = tuple((each.type, each.node) for each in event.subjects)
            return replace(
                state,
                subjects=(*state.subjects, *more),
                hashes=(*state.hashes, *event.hashes),
                systems=_begun(state, state.systems),
            )
        case SystemErasureEnded():
            ended = System(
                state=event.state,
                counts=tuple((each.system, each.count) for each in event.counts),
                problem=event.problem,
                notes=tuple(event.notes),
            )
            return replace(state, systems={**state.systems, event.system: ended})
        case ErasureRetried():
            return replace(state, systems=_begun(state, event.systems))
    return state


def _retry(command: RetryErasureRequest, state: State) -> Sequence[Message]:
    if not state.exists:
        raise NotFound(command.name)
    again = [
        name
        for name, system in state.systems.items()
        if system.state in (ERASURE_STATE_FAILED, ERASURE_STATE_NOT_SUPPORTED)
    ]
    return [ErasureRetried(erasure=command.name, systems=again)]


def _begun(state: State, systems: Sequence[str] | Mapping[str, System]) -> dict[str, System]:
    """The systems of an erasure, some of them from the beginning."""
    return {name: System() if name in systems else it for name, it in state.systems.items()}


def _judged(subjects: Sequence[tuple[str, str]]) -> list[JudgedIdentifier]:
    return [JudgedIdentifier(type=type_name, node=node) for type_name, node in subjects]


DECIDER: Decider[Command, State] = Decider(
    category="erasure",
    collection="erasures",
    initial=State(),
    # Whom it is about is known when it is asked: see `decider_about`.
    decide=lambda _command, _state: [],
    evolve=evolve,
)


def decider_about(asked: Asked) -> Decider[Command, State]:
    """Returns the rules of an erasure of somebody."""
    return replace(DECIDER, decide=partial(decide, asked))
