"""A recorded event: the message a decider returned, with the metadata the log gave it.

Its raw form is the protobuf `Envelope`, which the log reads, the feed carries and `ReadLog`
answers; its decoded form is `Recorded`, which views and policies receive. `EventTypes` leads from
the first to the second, through upcasters, so that code meets only today's event shapes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from uuid import UUID

# A UUID like any other, made, hashed and written in a fraction of the time: each event has one.
from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811
from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.envelope_pb2 import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


class Recorded(NamedTuple):
    """One event as views and policies see it. Times are aware and in UTC."""

    partition: int
    position: int
    workspace: str
    stream: str
    version: int
    event_id: UUID
    type: str
    event: Message
    actor: str
    correlation_id: str
    causation_id: str
    occur_time: datetime
    record_time: datetime


# An event as the log gives it back, or as this process has just appended it.
Logged: TypeAlias = Envelope | Recorded


def is_erased(event: Logged) -> bool:
    """Whether an erasure took all the event said: it keeps its place, and nobody folds it."""
    return isinstance(event, Envelope) and event.erasure != "" and not event.data


def parts_behind(
    kind: type[Message], events: Iterable[Recorded]
) -> Iterator[tuple[list[Recorded], list[Recorded]]]:
    """Yields events in parts, each with those of one kind that come right before it."""
    heads: list[Recorded] = []
    part: list[Recorded] = []
    for event in events:
        if not isinstance(event.event, kind):
            part.append(event)
            continue
        if part:
            yield heads, part
            heads, part = [], []
        heads.append(event)
    yield heads, part


class UndecodableEventError(Exception):
    """When an envelope's type is unknown or its bytes do not parse: it will never be otherwise."""


class EventTypes:
    """The event messages of services, and the upcasters that lead old shapes to today's.

    An upcaster is a pure function from an old message to its successor, which may be old itself.
    """

    def __init__(
        self,
        *modules: ModuleType,
        upcasters: Mapping[str, Callable[[Message], Message]] | None = None,
    ) -> None:
        """Take the generated modules of events: each top-level message in them is one."""
        self._classes = {
            descriptor.full_name: message_factory.GetMessageClass(descriptor)
            for module in modules
            for descriptor in module.DESCRIPTOR.message_types_by_name.values()
        }
        self._upcasters = dict(upcasters or {})

    def decode(self, envelope: Logged) -> Recorded:
        """Decode an envelope into today's shape of its event, else raise UndecodableEventError.

        What was just appended is in that shape. What was erased says nothing: pass it by.
        """
        if isinstance(envelope, Recorded):
            return envelope
        if is_erased(envelope):
            raise UndecodableEventError(f"what it said was erased by {envelope.erasure}")
        event = self.message(envelope.type, envelope.data)
        try:
            event_id = DriverUUID(envelope.event_id)
        except ValueError as error:
            raise UndecodableEventError(f"{envelope.event_id!r} is no event id") from error
        # By place, in the order of its fields: thousands a second are made here.
        return Recorded(
            envelope.partition,
            envelope.position,
            envelope.workspace,
            envelope.stream,
            envelope.version,
            event_id,
            event.DESCRIPTOR.full_name,
            event,
            envelope.actor,
            envelope.correlation_id,
            envelope.causation_id,
            utc(envelope.occur_time),
            utc(envelope.record_time),
        )

    def decode_all(self, envelopes: Iterable[Logged]) -> list[Recorded]:
        """Decode what still says something, in order; what was erased is passed by."""
        return [self.decode(envelope) for envelope in envelopes if not is_erased(envelope)]

    def message(self, full_name: str, data: bytes) -> Message:
        """Parse an event and bring it to today's shape, else raise UndecodableEventError."""
        message_class = self._classes.get(full_name)
        if message_class is None:
            raise UndecodableEventError(f"no event type {full_name} is known here")
        try:
            event: Message = message_class.FromString(data)
        except DecodeError as error:
            raise UndecodableEventError(f"the bytes are no {full_name}: {error}") from error
        if full_name not in self._upcasters:
            return event
        return self._upcast(full_name, event)

    def _upcast(self, full_name: str, event: Message) -> Message:
        for _ in range(len(self._upcasters) + 1):
            upcast = self._upcasters.get(event.DESCRIPTOR.full_name)
            if upcast is None:
                return event
            try:
                event = upcast(event)
            except Exception as error:
                raise UndecodableEventError(f"upcasting {full_name} failed: {error}") from error
        raise UndecodableEventError(f"the upcasters of {full_name} lead in a circle")


def envelopes_of(events: Sequence[Recorded]) -> list[Envelope]:
    """The envelopes that the log gives back of events; what neighbours share is written once."""
    envelopes = []
    told: object = None
    common = Envelope()
    for event in events:
        shared = (
            event.partition,
            event.workspace,
            event.type,
            event.actor,
            event.correlation_id,
            event.causation_id,
            event.record_time,
        )
        if shared != told:
            told, common = shared, _common(event)
        envelope = Envelope()
        envelope.CopyFrom(common)
        envelope.position = event.position
        envelope.stream = event.stream
        envelope.version = event.version
        envelope.event_id = str(event.event_id)
        envelope.data = event.event.SerializeToString(deterministic=True)
        set_timestamp(envelope.occur_time, event.occur_time)
        envelopes.append(envelope)
    return envelopes


def _common(event: Recorded) -> Envelope:
    common = Envelope(
        partition=event.partition,
        workspace=event.workspace,
        type=event.type,
        actor=event.actor,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
    )
    set_timestamp(common.record_time, event.record_time)
    return common


def short_type(full_name: str) -> str:
    """`rapport.contacts.v1.ContactCreated` → `ContactCreated`."""
    return full_name.rpartition(".")[2]


def utc(timestamp: Timestamp) -> datetime:
    """A protobuf timestamp as an aware datetime, to the microsecond."""
    return _EPOCH + _MICROSECOND * microseconds(timestamp)


def microseconds(timestamp: Timestamp) -> int:
    """A protobuf timestamp as whole microseconds since 1970."""
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1000


def storable(timestamp: Timestamp) -> datetime:
    """What a caller says as a moment that every column keeps; OverflowError when none does.

    PostgreSQL's driver takes the first and the last moment of the calendar for its infinities.
    """
    moment = utc(timestamp)
    if moment in (_FIRST, _LAST):
        raise OverflowError("is taken for an infinity")
    return moment


def timestamp_of(moment: datetime) -> Timestamp:
    """An aware datetime as a protobuf timestamp."""
    timestamp = Timestamp()
    set_timestamp(timestamp, moment)
    return timestamp


def set_timestamp(timestamp: Timestamp, moment: datetime) -> None:
    """Write a datetime into a protobuf timestamp, many times faster than `FromDatetime`.

    It is aware, or one of the driver's infinities: then it is an end of the calendar.
    """
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    timestamp.seconds = since.days * 86_400 + since.seconds
    timestamp.nanos = since.microseconds * 1000
