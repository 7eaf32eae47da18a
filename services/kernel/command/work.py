"""What a group commit works on: a command's loads, its pure decision, the response to remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.log.log import Append, Origin
    from services.kernel.log.recorded import Recorded


@dataclass(frozen=True, slots=True)
class Claim:
    """A value that only one stream of a workspace may hold; `scope` names the field: `email`."""

    scope: str
    key: str


@dataclass(frozen=True, slots=True)
class Request:
    """What makes a retry recognisable: the same id with another fingerprint is another request."""

    request_id: str
    method: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a decision knows of a stream: its version (0 = no such stream), its state if asked for.

    `state` is the serialised state, or None when it must be folded from `history`; the times are
    those of the first and last event's recording. For a probed stream `last_position` is where its
    last event is, and `last_type` that event's full name.
    """

    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
    state: bytes | None = None
    history: Sequence[Envelope] = ()
    last_position: int = 0
    last_type: str = ""


class Change(NamedTuple):
    """What one work does to one stream: events, their state, claims released and taken.

    `create_time` is when what the state says came to be; None for what begins with these events.
    """

    append: Append
    state: bytes | None = None
    shape: int = 0
    released: frozenset[Claim] = frozenset()
    taken: frozenset[Claim] = frozenset()
    create_time: datetime | None = None

    @property
    def stream(self) -> tuple[str, str]:
        """The (workspace, stream) the change belongs to."""
        return self.append.origin.workspace, self.append.stream


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a work's respond function may tell: its events as recorded, and where they landed."""

    events: Sequence[Recorded]
    write_token: str
    record_time: datetime


@dataclass(frozen=True, slots=True)
class Work:
    """One unit of a group.

    `shapes` names the streams whose states are loaded, with the shape number the decider
    understands; `probed` names streams of which only the ends are asked. `decide` is pure and
    raises a RapportError to refuse. `resource_name` turns a stream into the name that an error
    may show. `receive_time` is what its events say of when they were received: if an erasure has
    begun since, it is Unavailable, and received anew when it is sent again.
    """

    origin: Origin
    decide: Callable[[Mapping[str, StreamState]], Sequence[Change]]
    respond: Callable[[Outcome], Message]
    request: Request | None = None
    shapes: Mapping[str, int] = field(default_factory=dict)
    probed: Sequence[str] = ()
    resource_name: Callable[[str], str] = str
    receive_time: datetime | None = None

    def streams(self) -> set[tuple[str, str]]:
        """The streams that no other work of the same group may touch."""
        return {(self.origin.workspace, stream) for stream in (*self.shapes, *self.probed)}
