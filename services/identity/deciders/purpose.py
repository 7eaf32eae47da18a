"""The rules of a purpose: what people's data may be used for, and whether it still is.

It is never changed: who consented, consented to what it was. What it should be instead is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from rapport.identity.v1.consents_pb2 import ArchivePurposeRequest, CreatePurposeRequest
from rapport.identity.v1.events_pb2 import PurposeArchived, PurposeCreated
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted

# What a profile's consent is gets asked of each of them.
PURPOSES_MAX = 100

Command = CreatePurposeRequest | ArchivePurposeRequest


@dataclass(frozen=True, slots=True)
class State:
    """A purpose as its events leave it; `expire_after_s` is 0 where grants hold for ever."""

    exists: bool = False
    display_name: str = ""
    description: str = ""
    lawful_basis: int = 0
    categories: tuple[str, ...] = ()
    expire_after_s: int = 0
    is_archived: bool = False


def decide(count: int, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it; `count` is how many there are.

    Archiving twice is archiving once.
    """
    match command:
        case CreatePurposeRequest():
            if state.exists:
                raise AlreadyExists(f"purposes/{command.purpose_id}", "purpose_id")
            if count >= PURPOSES_MAX:
                raise ResourceExhausted("PURPOSES_MAX", PURPOSES_MAX)
            return [_created(command)]
        case ArchivePurposeRequest():
            if not state.exists:
                raise NotFound(command.name)
            return [] if state.is_archived else [PurposeArchived()]


def evolve(state: State, event: Message) -> State:
    """Returns the purpose after an event."""
    match event:
        case PurposeCreated():
            return State(
                exists=True,
                display_name=event.display_name,
                description=event.description,
                lawful_basis=event.lawful_basis,
                categories=tuple(event.categories),
                expire_after_s=event.expire_after.seconds,
            )
        case PurposeArchived():
            return replace(state, is_archived=True)
    return state


def _created(command: CreatePurposeRequest) -> PurposeCreated:
    if any("\0" in each for each in command.categories):
        raise InvalidArgument.of("categories", "hold the character U+0000")
    created = PurposeCreated(
        display_name=command.display_name,
        description=command.description,
        lawful_basis=command.lawful_basis,
        categories=command.categories,
    )
    if command.HasField("expire_after"):
        created.expire_after.CopyFrom(Duration(seconds=command.expire_after.seconds))
    return created


DECIDER: Decider[Command, State] = Decider(
    category="purpose",
    collection="purposes",
    initial=State(),
    # How many there are is known when it is asked: see `decider_with`.
    decide=partial(decide, 0),
    evolve=evolve,
)


def decider_with(count: int) -> Decider[Command, State]:
    """Returns the rules of a purpose in a workspace that has so many."""
    return replace(DECIDER, decide=partial(decide, count))
