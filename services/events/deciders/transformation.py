"""The rules of a transformation: it changes nothing before somebody has enabled it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.events.v1.events_pb2 import (
    TransformationConfigured,
    TransformationCreated,
    TransformationDisabled,
    TransformationEnabled,
    TransformationSettings,
)
from rapport.events.v1.transformations_pb2 import (
    ConfigureTransformationRequest,
    CreateTransformationRequest,
    DisableTransformationRequest,
    EnableTransformationRequest,
)
from services.events.display_names import readable
from services.events.transforming import invalidities
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted

Command = (
    CreateTransformationRequest
    | ConfigureTransformationRequest
    | EnableTransformationRequest
    | DisableTransformationRequest
)

TRANSFORMATIONS_MAX = 200
"""Of a workspace; they are kept at hand where customer events come in."""


@dataclass(frozen=True, slots=True)
class State:
    """A transformation as its events leave it; before the first of them it does not exist.

    `settings` are serialised TransformationSettings.
    """

    exists: bool = False
    display_name: str = ""
    settings: bytes = b""
    rank: int = 0
    is_enabled: bool = False


def decide(count: int, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it; `count` are there already."""
    match command:
        case CreateTransformationRequest():
            return create(count, command, state)
        case ConfigureTransformationRequest():
            return configure(command, existing(command.name, state))
        case EnableTransformationRequest():
            return [] if existing(command.name, state).is_enabled else [TransformationEnabled()]
        case DisableTransformationRequest():
            return [TransformationDisabled()] if existing(command.name, state).is_enabled else []


def create(count: int, command: CreateTransformationRequest, state: State) -> Sequence[Message]:
    """A new transformation needs a free id, a name, and something that can be done."""
    if state.exists:
        raise AlreadyExists(f"transformations/{command.transformation_id}", "transformation_id")
    if count >= TRANSFORMATIONS_MAX:
        raise ResourceExhausted("TRANSFORMATIONS_MAX", TRANSFORMATIONS_MAX)
    created = TransformationCreated(
        display_name=readable(command.display_name, "a transformation"),
        settings=checked(command.settings),
    )
    return [created]


def configure(command: ConfigureTransformationRequest, state: State) -> Sequence[Message]:
    """What a transformation does already is no news."""
    name, settings = readable(command.display_name, "a transformation"), checked(command.settings)
    if (name, serialised(settings)) == (state.display_name, state.settings):
        return []
    return [TransformationConfigured(display_name=name, settings=settings)]


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a transformation that nobody created."""
    if not state.exists:
        raise NotFound(name)
    return state


def checked(settings: TransformationSettings) -> TransformationSettings:
    """Refuses settings that cannot be done, naming each field."""
    if found := invalidities(settings):
        raise InvalidArgument(found)
    return settings


def evolve(state: State, event: Message) -> State:
    """Returns the transformation after an event."""
    match event:
        case TransformationCreated() | TransformationConfigured():
            return replace(
                state,
                exists=True,
                display_name=event.display_name,
                settings=serialised(event.settings),
                rank=event.settings.rank,
            )
        case TransformationEnabled():
            return replace(state, is_enabled=True)
        case TransformationDisabled():
            return replace(state, is_enabled=False)
    return state


def serialised(settings: TransformationSettings) -> bytes:
    """The one form of settings that say the same."""
    return settings.SerializeToString(deterministic=True)


def decider_with(count: int) -> Decider[Command, State]:
    """The rules for a workspace that has so many."""
    return Decider(
        category="transformation",
        collection="transformations",
        initial=State(),
        decide=partial(decide, count),
        evolve=evolve,
    )


DECIDER = decider_with(0)
"""The rules for who creates none."""
