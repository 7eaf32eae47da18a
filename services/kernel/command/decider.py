"""Deciders: the pure rules of an aggregate, and the one way in which a command meets them.

`Commands.execute` reads the stream, decides, appends, remembers the response under the
request_id, all in one transaction of the group commit. The fold `evolve` is the definition of a
state; the stored state is its cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from services.kernel.command.work import Change, Claim, Outcome, Request, StreamState, Work
from services.kernel.errors import Aborted, InvalidArgument
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.recorded import utc
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from services.kernel.command.group_commit import GroupCommit
    from services.kernel.log.recorded import EventTypes

_OCCUR_TIME = "occur_time"

C = TypeVar("C", bound="Message")
S = TypeVar("S")
M = TypeVar("M", bound="Message")


def claims_nothing(_state: object) -> frozenset[Claim]:
    """For aggregates without unique values."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Decider(Generic[C, S]):
    """The rules of one kind of aggregate.

    `collection` is the plural of its resource names, `category` the first part of its stream
    names. `decide` takes the command and the state, and returns events or raises a RapportError;
    `evolve` takes a state and an event and returns the next state; `claims` tells which unique
    values a state holds. States are frozen dataclasses; whenever their fields change, `shape` is
    raised, so that stored ones are folded anew. After an event of the type `ended_by` there is
    nothing of the aggregate any more; what comes later is the beginning of another with its id.
    """

    category: str
    collection: str
    initial: S
    decide: Callable[[C, S], Sequence[Message]]
    evolve: Callable[[S, Message], S]
    claims: Callable[[S], frozenset[Claim]] = claims_nothing
    shape: int = 1
    ended_by: type[Message] | None = None

    def fold(self, events: Sequence[Message], state: S | None = None) -> S:
        """The state that events lead to."""
        state = self.initial if state is None else state
        for event in events:
            state = self.evolve(state, event)
        return state

    def stream(self, aggregate_id: str) -> str:
        """The stream of the aggregate with this id."""
        return f"{self.category}-{aggregate_id}"

    def name(self, aggregate_id: str) -> str:
        """The resource name of the aggregate with this id."""
        return f"{self.collection}/{aggregate_id}"

    def id_of(self, stream: str) -> str:
        """The id of the aggregate whose events a stream holds."""
        return stream.removeprefix(f"{self.category}-")

    def resource_name(self, stream: str) -> str:
        """The resource name that belongs to a stream."""
        return self.name(self.id_of(stream))

    def aggregate_id(self, name: str, field: str = "name") -> str:
        """The id inside a name such as `contacts/0192…`, else InvalidArgument on `field`."""
        collection, _, aggregate_id = name.partition("/")
        if collection != self.collection or not aggregate_id or "/" in aggregate_id:
            raise InvalidArgument.of(field, f"must look like {self.collection}/{{id}}")
        return aggregate_id


@dataclass(frozen=True, slots=True)
class Decided(Generic[S]):
    """What a command led to: `state` after `version` events of the stream.

    The response is made of it. A command that changed nothing has no events, the times the stream
    had, and a write token of no place.
    """

    state: S
    version: int
    events: Sequence[Message]
    create_time: datetime
    update_time: datetime
    write_token: str

    @property
    def etag(self) -> str:
        """The state's etag: the stream's version, quoted (AIP-154)."""
        return etag_of(self.version)


@dataclass(frozen=True, slots=True)
class Part:
    """An aggregate that takes part in a decision about several."""

    decider: Decider[Any, Any]
    aggregate_id: str


class Commands:
    """Executes commands of one service, each in a transaction shared with its contemporaries."""

    def __init__(self, group_commit: GroupCommit, event_types: EventTypes) -> None:
        """`event_types` reads histories back when a stored state is missing or of another shape."""
        self._group_commit = group_commit
        self._event_types = event_types

    async def execute(
        self,
        decider: Decider[C, S],
        aggregate_id: str,
        command: C,
        respond: Callable[[Decided[S]], M],
    ) -> M:
        """Execute a command on one aggregate and answer what `respond` makes of the result.

        A `request_id` on the command makes retries return the first response for ever; an `etag`
        makes the command fail with Aborted unless it is the current one. Raises whatever the
        decider raises, AlreadyExists when a unique value is taken. An event that says itself when
        it occurred, in a field `occur_time`, is recorded so; another occurs as it is recorded.
        """
        caller = current_caller()
        request_id = getattr(command, "request_id", "")
        origin = Origin(caller.workspace, caller.actor, caller.correlation_id, request_id)
        step = _Step(decider, aggregate_id, command, origin, self._event_types)
        work = Work(
            origin=origin,
            decide=step.decide,
            respond=lambda outcome: respond(step.decided(outcome)),
            request=request_of(command, request_id),
            shapes={step.stream: decider.shape},
            resource_name=decider.resource_name,
        )
        return cast("M", await self._group_commit.submit(work))

    async def execute_jointly(
        self,
        parts: Sequence[Part],
        command: Message,
        decide: Callable[[Sequence[Any]], Sequence[Sequence[Message]]],
        respond: Callable[[Sequence[Decided[Any]]], M],
    ) -> M:
        """Execute a command on several aggregates of any kinds, with one decision: all or nothing.

        `decide` is pure: it takes their states and returns the events of each, in the order of
        `parts`. An `etag` on the command is that of the first of them.
        """
        caller = current_caller()
        request_id = getattr(command, "request_id", "")
        origin = Origin(caller.workspace, caller.actor, caller.correlation_id, request_id)
        steps = [
            _Step(part.decider, part.aggregate_id, command, origin, self._event_types)
            for part in parts
        ]

        def decided_on(states: Mapping[str, StreamState]) -> list[Change]:
            before = [step.load(states) for step in steps]
            steps[0].check_etag()
            events = decide(before)
            return [
                change
                for step, state, own in zip(steps, before, events, strict=True)
                for change in step.changed(state, own)
            ]

        work = Work(
            origin=origin,
            decide=decided_on,
            respond=lambda outcome: respond([step.decided(outcome) for step in steps]),
            request=request_of(command, request_id),
            shapes={step.stream: step.decider.shape for step in steps},
            resource_name=parts[0].decider.resource_name,
        )
        return cast("M", await self._group_commit.submit(work))

    async def execute_all(
        self,
        decider: Decider[C, S],
        commands: Mapping[str, C],
        request: Message,
        respond: Callable[[Sequence[Decided[S]]], M],
    ) -> M:
        """Execute a command on each of several aggregates, by id: all of them or none.

        They came in one `request`, whose request_id makes retries return the first response. The
        results come in the order of the commands, each with the write token of all.
        """
        caller = current_caller()
        request_id = getattr(request, "request_id", "")
        origin = Origin(caller.workspace, caller.actor, caller.correlation_id, request_id)
        steps = [
            _Step(decider, aggregate_id, command, origin, self._event_types)
            for aggregate_id, command in commands.items()
        ]
        work = Work(
            origin=origin,
            decide=lambda states: [change for step in steps for change in step.decide(states)],
            respond=lambda outcome: respond([step.decided(outcome) for step in steps]),
            request=request_of(request, request_id),
            shapes={step.stream: decider.shape for step in steps},
            resource_name=decider.resource_name,
        )
        return cast("M", await self._group_commit.submit(work))


class _Step(Generic[C, S]):
    """One command on its way through a group commit: what it saw, and what it led to."""

    def __init__(
        self,
        decider: Decider[C, S],
        aggregate_id: str,
        command: C,
        origin: Origin,
        event_types: EventTypes,
    ) -> None:
        self.decider = decider
        self.stream = decider.stream(aggregate_id)
        self.command = command
        self.origin = origin
        self.event_types = event_types
        self.loaded = StreamState()
        self.state = decider.initial
        self.events: Sequence[Message] = ()

    def decide(self, states: Mapping[str, StreamState]) -> list[Change]:
        """Decide on the loaded state; no change when there is no event."""
        before = self.load(states)
        self.check_etag()
        return self.changed(before, self.decider.decide(self.command, before))

    def load(self, states: Mapping[str, StreamState]) -> S:
        """The state that the command meets."""
        self.loaded = states[self.stream]
        return self._state()

    def changed(self, before: S, events: Sequence[Message]) -> list[Change]:
        """What these events change; no change when there is no event."""
        self.events = tuple(events)
        self.state = self.decider.fold(self.events, before)
        if not self.events:
            return []
        held, holds = self.decider.claims(before), self.decider.claims(self.state)
        new = [NewEvent(event, _told_time(event)) for event in self.events]
        return [
            Change(
                Append(self.origin, self.stream, new),
                state=msgspec.msgpack.encode(self.state),
                shape=self.decider.shape,
                released=held - holds,
                taken=holds - held,
                create_time=self.loaded.create_time,
            )
        ]

    def decided(self, outcome: Outcome) -> Decided[S]:
        """The result as the response may tell it."""
        loaded, now = self.loaded, outcome.record_time
        return Decided(
            state=self.state,
            version=loaded.version + len(self.events),
            events=self.events,
            create_time=loaded.create_time or now,
            update_time=now if self.events else loaded.update_time or now,
            write_token=outcome.write_token,
        )

    def _state(self) -> S:
        if self.loaded.state is not None:
            return msgspec.msgpack.decode(self.loaded.state, type=type(self.decider.initial))
        history = self.event_types.decode_all(self.loaded.history)
        if self.decider.ended_by is not None:
            ends = [n for n, it in enumerate(history) if type(it.event) is self.decider.ended_by]
            if ends:
                history = history[ends[-1] + 1 :]
                begun = history[0].record_time if history else None
                self.loaded = replace(self.loaded, create_time=begun)
        return self.decider.fold([recorded.event for recorded in history])

    def check_etag(self) -> None:
        """Refuse an old etag; what does not exist has none, and its decider says so."""
        expected, current = getattr(self.command, "etag", ""), etag_of(self.loaded.version)
        if expected and self.loaded.version and expected != current:
            raise Aborted.etag(self.decider.resource_name(self.stream), current)


def _told_time(event: Message) -> datetime | None:
    """When an event says that it occurred, if it does."""
    is_told = _OCCUR_TIME in event.DESCRIPTOR.fields_by_name and event.HasField(_OCCUR_TIME)
    return utc(getattr(event, _OCCUR_TIME)) if is_told else None


def etag_of(version: int) -> str:
    """The etag of a resource whose stream has this version."""
    return f'"{version}"'


def request_of(command: Message, request_id: str) -> Request | None:
    """What makes a retry of this command recognisable, or None when it carries no request_id."""
    if not request_id:
        return None
    fingerprint = hashlib.sha256(command.SerializeToString(deterministic=True)).digest()
    return Request(request_id, command.DESCRIPTOR.full_name, fingerprint)
