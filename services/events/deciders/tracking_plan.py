"""The rules of a tracking plan: a draft is replaced as a whole, a version never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.events.v1.events_pb2 import (
    TrackingPlanArchived,
    TrackingPlanContent,
    TrackingPlanCreated,
    TrackingPlanDrafted,
    TrackingPlanPublished,
)
from rapport.events.v1.tracking_plans_pb2 import (
    ArchiveTrackingPlanRequest,
    CreateTrackingPlanRequest,
    DraftTrackingPlanRequest,
    PublishTrackingPlanRequest,
)
from services.events.display_names import readable
from services.events.plans import invalidities
from services.kernel.command.decider import Decider
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

Command = (
    CreateTrackingPlanRequest
    | DraftTrackingPlanRequest
    | PublishTrackingPlanRequest
    | ArchiveTrackingPlanRequest
)

TRACKING_PLANS_MAX = 200
"""Of a workspace; they are kept at hand where customer events come in."""


@dataclass(frozen=True, slots=True)
class State:
    """A tracking plan as its events leave it; before the first of them it does not exist.

    `draft` and `published` are serialised contents; there is none published while `published` is
    empty or `latest` is 0.
    """

    exists: bool = False
    display_name: str = ""
    draft: bytes = b""
    published: bytes = b""
    latest: int = 0
    is_archived: bool = False


def decide(count: int, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it; `count` are there already."""
    match command:
        case CreateTrackingPlanRequest():
            return create(count, command, state)
        case DraftTrackingPlanRequest():
            return draft(command, active(command.name, state))
        case PublishTrackingPlanRequest():
            return publish(command, active(command.name, state))
        case ArchiveTrackingPlanRequest():
            is_archived = existing(command.name, state).is_archived
            return [] if is_archived else [TrackingPlanArchived()]


def create(count: int, command: CreateTrackingPlanRequest, state: State) -> Sequence[Message]:
    """A new tracking plan needs a free id, a name, and a draft that could be published, or none."""
    if state.exists:
        raise AlreadyExists(f"trackingPlans/{command.tracking_plan_id}", "tracking_plan_id")
    if count >= TRACKING_PLANS_MAX:
        raise ResourceExhausted("TRACKING_PLANS_MAX", TRACKING_PLANS_MAX)
    name = readable(command.display_name, "a tracking plan")
    return [TrackingPlanCreated(display_name=name, content=checked(command.content))]


def draft(command: DraftTrackingPlanRequest, state: State) -> Sequence[Message]:
    """What the draft is already is no news."""
    if serialised(checked(command.content)) == state.draft:
        return []
    return [TrackingPlanDrafted(content=command.content)]


def publish(command: PublishTrackingPlanRequest, state: State) -> Sequence[Message]:
    """What is published already is no new version; what expects nothing is none at all."""
    if not state.draft:
        raise FailedPrecondition(
            f"{command.name} has an empty draft", resource=command.name, state="EMPTY"
        )
    if state.draft == state.published:
        return []
    content = TrackingPlanContent.FromString(state.draft)
    return [TrackingPlanPublished(version=state.latest + 1, content=content)]


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a tracking plan that nobody created."""
    if not state.exists:
        raise NotFound(name)
    return state


def active(name: str, state: State) -> State:
    """Refuses what is asked of one that was archived, too."""
    if existing(name, state).is_archived:
        raise FailedPrecondition(f"{name} is archived", resource=name, state="ARCHIVED")
    return state


def checked(content: TrackingPlanContent) -> TrackingPlanContent:
    """Refuses a content that could not be published, naming each field."""
    if found := invalidities(content):
        raise InvalidArgument(found)
    return content


def evolve(state: State, event: Message) -> State:
    """Returns the tracking plan after an event."""
    match event:
        case TrackingPlanCreated():
            content = serialised(event.content)
            return State(exists=True, display_name=event.display_name, draft=content)
        case TrackingPlanDrafted():
            return replace(state, draft=serialised(event.content))
        case TrackingPlanPublished():
            return replace(state, published=serialised(event.content), latest=event.version)
        case TrackingPlanArchived():
            return replace(state, is_archived=True)
    return state


def serialised(content: TrackingPlanContent) -> bytes:
    """The one form of contents that say the same."""
    return content.SerializeToString(deterministic=True)


def decider_with(count: int) -> Decider[Command, State]:
    """The rules for a workspace that has so many."""
    return Decider(
        category="trackingplan",
        collection="trackingPlans",
        initial=State(),
        decide=partial(decide, count),
        evolve=evolve,
    )


DECIDER = decider_with(0)
"""The rules for who creates none."""
