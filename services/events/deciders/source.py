"""The rules of a source: how it may send, and by which write keys it is known.

A write key is never kept: its secret is derived anew when a repeated request must show it again,
and what is kept is the secret's hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    SourceConfigured,
    SourceCreated,
    SourceDisabled,
    SourceEnabled,
    SourceSettings,
    SourceWriteKeyRevoked,
    SourceWriteKeyRotated,
)
from rapport.events.v1.sources_pb2 import (
    ConfigureSourceRequest,
    CreateSourceRequest,
    DisableSourceRequest,
    EnableSourceRequest,
    RevokeWriteKeyRequest,
    RotateWriteKeyRequest,
)
from services.events.display_names import readable
from services.events.door import MILLION
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted

Command = (
    CreateSourceRequest
    | ConfigureSourceRequest
    | DisableSourceRequest
    | EnableSourceRequest
    | RotateWriteKeyRequest
    | RevokeWriteKeyRequest
)

WRITE_KEYS_MAX = 20
"""Write keys of a source that were not revoked; whoever wants another revokes one."""

TRACKING_PLANS = "trackingPlans/"
_TYPES = frozenset(CustomerEventType.values()) - {CustomerEventType.CUSTOMER_EVENT_TYPE_UNSPECIFIED}


@dataclass(frozen=True, slots=True)
class NewWriteKey:
    """The write key that a command may give out, should it be accepted."""

    key_id: str
    secret_hash: bytes


@dataclass(frozen=True, slots=True)
class State:
    """A source as its events leave it; before the first of them it does not exist.

    `settings` are a serialised SourceSettings, `key_ids` the write keys that were not revoked.
    """

    exists: bool = False
    display_name: str = ""
    settings: bytes = b""
    is_disabled: bool = False
    key_ids: tuple[str, ...] = ()


def decide(key: NewWriteKey, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    match command:
        case CreateSourceRequest():
            return create(key, command, state)
        case ConfigureSourceRequest():
            return configure(command, existing(command.name, state))
        case DisableSourceRequest():
            return [] if existing(command.name, state).is_disabled else [SourceDisabled()]
        case EnableSourceRequest():
            return [SourceEnabled()] if existing(command.name, state).is_disabled else []
        case RotateWriteKeyRequest():
            return rotate(key, command, existing(command.name, state))
        case RevokeWriteKeyRequest():
            return revoke(command, existing(command.name, state))


def create(key: NewWriteKey, command: CreateSourceRequest, state: State) -> Sequence[Message]:
    """A new source needs a free id, a name, and gets its first write key."""
    if state.exists:
        raise AlreadyExists(f"sources/{command.source_id}", "source_id")
    created = SourceCreated(
        display_name=readable(command.display_name, "a source"),
        settings=checked(command.settings),
        write_key_id=key.key_id,
        write_key_hash=key.secret_hash,
    )
    return [created]


def configure(command: ConfigureSourceRequest, state: State) -> Sequence[Message]:
    """What a source is already is no news."""
    name, settings = readable(command.display_name, "a source"), checked(command.settings)
    if (name, serialised(settings)) == (state.display_name, state.settings):
        return []
    return [SourceConfigured(display_name=name, settings=settings)]


def rotate(key: NewWriteKey, command: RotateWriteKeyRequest, state: State) -> Sequence[Message]:
    """A new key is always news; those before it are believed for the grace period."""
    if len(state.key_ids) >= WRITE_KEYS_MAX:
        raise ResourceExhausted("WRITE_KEYS_MAX", WRITE_KEYS_MAX)
    rotated = SourceWriteKeyRotated(
        write_key_id=key.key_id, write_key_hash=key.secret_hash, grace_s=command.grace_s
    )
    return [rotated]


def revoke(command: RevokeWriteKeyRequest, state: State) -> Sequence[Message]:
    """A key that was revoked before is as one that never was."""
    if command.key_id not in state.key_ids:
        raise NotFound(f"{command.name}/writeKeys/{command.key_id}")
    return [SourceWriteKeyRevoked(write_key_id=command.key_id)]


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a source that nobody created."""
    if not state.exists:
        raise NotFound(name)
    return state


def checked(settings: SourceSettings) -> SourceSettings:
    """Refuses settings that mean nothing."""
    if not _TYPES.issuperset(settings.allowed_types):
        raise InvalidArgument.of("settings.allowed_types", "holds what is no type")
    if settings.sampled_millionths > MILLION:
        raise InvalidArgument.of("settings.sampled_millionths", f"is more than {MILLION}")
    plan = settings.tracking_plan
    if plan and (not plan.startswith(TRACKING_PLANS) or "/" in plan[len(TRACKING_PLANS) :]):
        description = f"must look like {TRACKING_PLANS}{{id}}, or be empty"
        raise InvalidArgument.of("settings.tracking_plan", description)
    return SourceSettings(
        allowed_types=sorted(set(settings.allowed_types)),
        sampled_millionths=settings.sampled_millionths % MILLION,
        tracking_plan=plan,
    )


def evolve(state: State, event: Message) -> State:
    """Returns the source after an event."""
    match event:
        case SourceCreated():
            return State(
                exists=True,
                display_name=event.display_name,
                settings=serialised(event.settings),
                key_ids=(event.write_key_id,),
            )
        case SourceConfigured():
            settings = serialised(event.settings)
            return replace(state, display_name=event.display_name, settings=settings)
        case SourceDisabled():
            return replace(state, is_disabled=True)
        case SourceEnabled():
            return replace(state, is_disabled=False)
        case SourceWriteKeyRotated():
            return replace(state, key_ids=(event.write_key_id, *state.key_ids))
        case SourceWriteKeyRevoked():
            left = tuple(key_id for key_id in state.key_ids if key_id != event.write_key_id)
            return replace(state, key_ids=left)
    return state


def serialised(settings: SourceSettings) -> bytes:
    """The one form of settings that say the same."""
    return settings.SerializeToString(deterministic=True)


def decider_with(key: NewWriteKey) -> Decider[Command, State]:
    """The rules, with the write key that a command may give out."""
    return Decider(
        category="source",
        collection="sources",
        initial=State(),
        decide=partial(decide, key),
        evolve=evolve,
    )


DECIDER = decider_with(NewWriteKey("", b""))
"""The rules for who gives out no key."""
