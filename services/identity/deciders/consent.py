"""The rules of what is recorded about consent, by hand: each word is a fact of its own.

Its stream is that of the identifier that was named, by its node, so that no name carries a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.identity.v1.consents_pb2 import (
    DenyConsentRequest,
    GrantConsentRequest,
    WithdrawConsentRequest,
)
from rapport.identity.v1.events_pb2 import (
    ConsentDenied,
    ConsentGranted,
    ConsentWithdrawn,
    IdentifierNode,
)
from services.identity.consents import FOR_EVER, Purpose, Status, expires
from services.kernel.command.decider import Decider
from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import timestamp_of, utc

Command = GrantConsentRequest | DenyConsentRequest | WithdrawConsentRequest


@dataclass(frozen=True, slots=True)
class State:
    """What was recorded last under an identifier."""

    purpose: str = ""
    status: int = Status.UNKNOWN


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command is about: the purpose, the identifiers, the named one first, and now."""

    purpose: Purpose
    identifiers: tuple[IdentifierNode, ...]
    now: datetime


def decide(asked: Asked, command: Command, _: State) -> Sequence[Message]:
    """Returns the fact; saying the same again is news, since it holds longer."""
    occurred = asked.now
    if command.HasField("occur_time"):
        occurred = _moment(command, "occur_time")
        if occurred > asked.now:
            raise InvalidArgument.of("occur_time", "is later than now")
    said: dict[str, Any] = {
        "purpose": command.purpose,
        "identifiers": asked.identifiers,
        "occur_time": timestamp_of(occurred),
        "source": command.source.replace("\0", ""),
    }
    match command:
        case GrantConsentRequest():
            ends = expires(occurred, asked.purpose)
            if command.HasField("expire_time"):
                ends = _moment(command, "expire_time")
                if ends <= occurred:
                    raise InvalidArgument.of("expire_time", "is not later than it was said")
            return [ConsentGranted(**said, expire_time=_told(ends))]
        case DenyConsentRequest():
            return [ConsentDenied(**said)]
        case WithdrawConsentRequest():
            return [ConsentWithdrawn(**said)]


def evolve(state: State, event: Message) -> State:
    """Returns what was recorded last, after an event."""
    match event:
        case ConsentGranted():
            return State(event.purpose, Status.GRANTED)
        case ConsentDenied():
            return State(event.purpose, Status.DENIED)
        case ConsentWithdrawn():
            return State(event.purpose, Status.WITHDRAWN)
    return state


def _told(ends: datetime) -> Timestamp | None:
    """Returns until when a grant holds, as it is told."""
    return None if ends == FOR_EVER else timestamp_of(ends)


def _moment(command: Command, field: str) -> datetime:
    try:
        return utc(getattr(command, field))
    except OverflowError as error:
        raise InvalidArgument.of(field, "lies outside the calendar") from error


DECIDER: Decider[Command, State] = Decider(
    category="consent",
    collection="consents",
    initial=State(),
    # What it is about is known when it is asked: see `decider_about`.
    decide=lambda _command, _state: [],
    evolve=evolve,
)


def decider_about(asked: Asked) -> Decider[Command, State]:
    """Returns the rules of what is recorded about one person and purpose."""
    return replace(DECIDER, decide=partial(decide, asked))
