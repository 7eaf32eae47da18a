"""Group commit: concurrent commands of one process share one transaction.

While one group commits, the next gathers. Inside the transaction the partition heads are locked first and everything
a decision reads is loaded after that, so a decision always sees the latest facts and no optimistic retry exists; the
decision itself is pure and takes microseconds. A refused command leaves its neighbours alone. When the database
refuses a whole group, its members are tried one by one, so that only the guilty one fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import asyncpg

from services.kernel import claims, requests
from services.kernel.errors import InvalidArgument, RapportError, ResourceExhausted, Unavailable
from services.kernel.log import EVENTS_PER_APPEND_MAX, Landed, Log
from services.kernel.stream_state import load_states, probe_streams, save_states
from services.kernel.tokens import encode_write_token
from services.kernel.work import Change, Outcome, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Connection, Pool
    from google.protobuf.message import Message

    from services.kernel.recorded import Recorded

IN_FLIGHT_MAX = 2_000
GROUP_SIZE_MAX = 256


class InlineView(Protocol):
    """A view that is read at once: its rows change in the transaction that appends the events."""

    async def apply(self, tx: Connection, events: Sequence[Recorded]) -> None:
        """Fold events into the view's tables."""


@dataclass(slots=True)
class _Pending:
    work: Work
    answer: asyncio.Future[Message]
    changes: Sequence[Change] = ()
    refusal: Exception | None = None
    response: Message | None = None

    @property
    def accepted(self) -> bool:
        """Whether there is still something to do for it."""
        return self.refusal is None and self.response is None


@dataclass(slots=True)
class GroupCommit:
    """Runs works in shared transactions; one instance per process and log. `views` are applied in their order."""

    pool: Pool
    log: Log
    views: Sequence[InlineView] = ()
    _queue: deque[_Pending] = field(default_factory=deque)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: bool = False

    async def submit(self, work: Work) -> Message:
        """Run a work and return its response, or the first response to its request_id.

        Raises what the decision raised, AlreadyExists when a claim is taken, ResourceExhausted when IN_FLIGHT_MAX
        works wait, Unavailable when the database does not answer.
        """
        if self._closing:
            raise Unavailable(self.log.service)
        if len(self._queue) >= IN_FLIGHT_MAX:
            raise ResourceExhausted(limit="IN_FLIGHT_MAX", maximum=IN_FLIGHT_MAX)
        pending = _Pending(work, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._filled.set()
        return await pending.answer

    async def run(self) -> None:
        """Commit groups until `close`, then finish what waits."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                await self._finish(self._next_group())
            if self._closing:
                return

    def close(self) -> None:
        """Take no more works; `run` returns when the waiting ones are done."""
        self._closing = True
        self._filled.set()

    def _next_group(self) -> list[_Pending]:
        """The longest head of the queue whose works touch different streams and carry different request ids."""
        group: list[_Pending] = []
        touched: set[object] = set()
        size = 0
        while self._queue and len(group) < GROUP_SIZE_MAX:
            work = self._queue[0].work
            keys: set[object] = {*work.streams()}
            size += len(keys)
            if work.request:
                keys.add((work.origin.workspace, work.request))
            if group and (size > EVENTS_PER_APPEND_MAX or not touched.isdisjoint(keys)):
                break
            touched |= keys
            pending = self._queue.popleft()
            if not pending.answer.done():  # its caller may have given up
                group.append(pending)
        return group

    async def _finish(self, group: list[_Pending]) -> None:
        """Commit a group and answer its works, one by one if they cannot be committed together."""
        try:
            await self._commit(group)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError, TimeoutError):
            for pending in group:
                pending.refusal = Unavailable(self.log.service)
        except Exception as error:
            if len(group) > 1:
                for pending in group:
                    await self._finish([_Pending(pending.work, pending.answer)])
                return
            group[0].refusal = _blame(error)
        for pending in group:
            if pending.answer.done():
                continue
            if pending.refusal is not None:
                pending.answer.set_exception(pending.refusal)
            elif pending.response is not None:
                pending.answer.set_result(pending.response)

    async def _commit(self, group: list[_Pending]) -> None:
        """One transaction: lock, load, decide, settle claims, append, apply views, remember the responses."""
        async with self.pool.acquire() as tx, tx.transaction():
            heads = await self.log.lock_heads(tx, self._partitions(group))
            await _replay(tx, group)
            versions = await _decide(tx, _accepted(group))
            await _settle(tx, _accepted(group))
            accepted = _accepted(group)
            changes = [change for pending in accepted for change in pending.changes]
            appends = [change.append for change in changes]
            landed = await self.log.append_under_lock(tx, appends, heads, versions)
            if landed.events:
                for view in self.views:
                    await view.apply(tx, landed.events)
            last = {(event.workspace, event.stream): event for event in landed.events}
            await save_states(tx, changes, last)
            await claims.save_claims(tx, changes)
            self._respond(accepted, landed)
            answered = [(p.work, p.response) for p in accepted if p.response is not None]
            await requests.save_responses(tx, answered, self.log.clock.now())

    def _partitions(self, group: list[_Pending]) -> set[int]:
        streams = {stream for pending in group for stream in pending.work.streams()}
        return {self.log.partition_of(*stream) for stream in streams}

    def _respond(self, accepted: list[_Pending], landed: Landed) -> None:
        """Let each work see its own events and say its response."""
        now = self.log.clock.now()
        events = iter(landed.events)
        for pending in accepted:
            count = sum(len(change.append.events) for change in pending.changes)
            own = [next(events) for _ in range(count)]
            reached = {event.partition: event.position for event in own}
            token = encode_write_token(self.log.service, reached)
            pending.response = pending.work.respond(
                Outcome(own, token, own[0].record_time if own else now)
            )


async def _replay(tx: Connection, group: list[_Pending]) -> None:
    """Give works whose request_id was answered before their first response."""
    answered = await requests.load_answered(tx, [pending.work for pending in group])
    for pending in group:
        try:
            pending.response = requests.first_response(pending.work, answered)
        except RapportError as refusal:
            pending.refusal = refusal


async def _decide(tx: Connection, group: list[_Pending]) -> dict[tuple[str, str], int]:
    """Load what the works ask for and let each decide; answers the versions of the streams loaded."""
    shapes = {
        (pending.work.origin.workspace, stream): shape
        for pending in group
        for stream, shape in pending.work.shapes.items()
    }
    probed = [(p.work.origin.workspace, stream) for p in group for stream in p.work.probed]
    loaded = {**await load_states(tx, shapes), **await probe_streams(tx, probed)}
    for pending in group:
        own = {stream: loaded[key] for key in pending.work.streams() if (stream := key[1]) and key in loaded}
        try:
            pending.changes = pending.work.decide(own)
        except Exception as refusal:  # a refusal, or a bug of this decider alone
            pending.refusal = refusal
    return {key: state.version for key, state in loaded.items()}


async def _settle(tx: Connection, group: list[_Pending]) -> None:
    """Refuse works that want what another stream holds, in the order they came."""
    owners = await claims.load_owners(tx, [change for p in group for change in p.changes])
    for pending in group:
        try:
            claims.settle(pending.work, pending.changes, owners)
        except RapportError as refusal:
            pending.refusal = refusal


def _accepted(group: list[_Pending]) -> list[_Pending]:
    return [pending for pending in group if pending.accepted]


def _blame(error: Exception) -> Exception:
    """What a single work's failure means: input that PostgreSQL cannot store is the caller's, the rest is ours."""
    if isinstance(error, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError):
        return InvalidArgument((), message="the request contains the character U+0000, which cannot be stored")
    return error
