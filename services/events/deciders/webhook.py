"""The rules of a webhook: for which source it sends, how it is signed, and what deliveries mean.

Secrets are none of its business: it is told the one that a command may make known, sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.events.v1.events_pb2 import (
    WebhookConfigured,
    WebhookCreated,
    WebhookDisabled,
    WebhookEnabled,
    WebhookMapping,
    WebhookSecretIssued,
    WebhookSecretRotated,
    WebhookSignature,
)
from rapport.events.v1.webhooks_pb2 import (
    ConfigureWebhookRequest,
    CreateWebhookRequest,
    DisableWebhookRequest,
    EnableWebhookRequest,
    RotateWebhookSecretRequest,
)
from services.events import webhook_signature
from services.events.display_names import readable
from services.events.webhook_mapping import CompiledMapping
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound

Command = (
    CreateWebhookRequest
    | ConfigureWebhookRequest
    | EnableWebhookRequest
    | DisableWebhookRequest
    | RotateWebhookSecretRequest
)

SOURCES = "sources/"


@dataclass(frozen=True, slots=True)
class Issued:
    """What a command may give out, should it be accepted: an address, and a secret.

    `sealed` is empty when the secret is ours.
    """

    address_id: str
    secret_id: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class State:
    """A webhook as its events leave it; before the first of them it does not exist.

    `signature` and `mapping` are serialised messages; `secret_id` is the newest secret's.
    """

    exists: bool = False
    display_name: str = ""
    source: str = ""
    signature: bytes = b""
    mapping: bytes = b""
    is_disabled: bool = False
    address_id: str = ""
    secret_id: str = ""
    is_secret_given: bool = False


def decide(issued: Issued, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    match command:
        case CreateWebhookRequest():
            return create(issued, command, state)
        case ConfigureWebhookRequest():
            return configure(command, existing(command.name, state))
        case EnableWebhookRequest():
            return [WebhookEnabled()] if existing(command.name, state).is_disabled else []
        case DisableWebhookRequest():
            return [] if existing(command.name, state).is_disabled else [WebhookDisabled()]
        case RotateWebhookSecretRequest():
            return rotate(issued, command, existing(command.name, state))


def create(issued: Issued, command: CreateWebhookRequest, state: State) -> Sequence[Message]:
    """A new webhook needs a free id, a name, a source, and expressions that are some."""
    if state.exists:
        raise AlreadyExists(f"webhooks/{command.webhook_id}", "webhook_id")
    source_id = command.source.removeprefix(SOURCES)
    if source_id in ("", command.source) or "/" in source_id or not source_id.isprintable():
        raise InvalidArgument.of("source", f"must look like {SOURCES}{{id}}")
    created = WebhookCreated(
        display_name=readable(command.display_name, "a webhook"),
        source=command.source,
        signature=webhook_signature.checked(command.signature),
        mapping=checked(command.mapping),
        address_id=issued.address_id,
        secret=WebhookSecretIssued(secret_id=issued.secret_id, sealed=issued.sealed),
    )
    return [created]


def configure(command: ConfigureWebhookRequest, state: State) -> Sequence[Message]:
    """What a webhook is already is no news."""
    configured = WebhookConfigured(
        display_name=readable(command.display_name, "a webhook"),
        signature=webhook_signature.checked(command.signature),
        mapping=checked(command.mapping),
    )
    return [] if evolve(state, configured) == state else [configured]


def rotate(issued: Issued, command: RotateWebhookSecretRequest, _: State) -> Sequence[Message]:
    """A new secret is always news; those before it are believed for the grace period."""
    secret = WebhookSecretIssued(secret_id=issued.secret_id, sealed=issued.sealed)
    return [WebhookSecretRotated(secret=secret, grace_s=command.grace_s)]


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a webhook that nobody created."""
    if not state.exists:
        raise NotFound(name)
    return state


def checked(mapping: WebhookMapping) -> WebhookMapping:
    """Refuses a mapping with an expression that is none, or that could do harm."""
    CompiledMapping(mapping)
    return mapping


def evolve(state: State, event: Message) -> State:
    """Returns the webhook after an event."""
    match event:
        case WebhookCreated():
            return State(
                exists=True,
                display_name=event.display_name,
                source=event.source,
                signature=serialised(event.signature),
                mapping=serialised(event.mapping),
                address_id=event.address_id,
                secret_id=event.secret.secret_id,
                is_secret_given=bool(event.secret.sealed),
            )
        case WebhookConfigured():
            return replace(
                state,
                display_name=event.display_name,
                signature=serialised(event.signature),
                mapping=serialised(event.mapping),
            )
        case WebhookDisabled():
            return replace(state, is_disabled=True)
        case WebhookEnabled():
            return replace(state, is_disabled=False)
        case WebhookSecretRotated():
            return replace(
                state,
                secret_id=event.secret.secret_id,
                is_secret_given=bool(event.secret.sealed),
            )
    return state


def serialised(said: WebhookSignature | WebhookMapping) -> bytes:
    """The one form of what says the same."""
    return said.SerializeToString(deterministic=True)


def decider_with(issued: Issued) -> Decider[Command, State]:
    """The rules, with what a command may give out."""
    return Decider(
        category="webhook",
        collection="webhooks",
        initial=State(),
        decide=partial(decide, issued),
        evolve=evolve,
    )


DECIDER = decider_with(Issued("", "", b""))
"""The rules for who gives out nothing."""
