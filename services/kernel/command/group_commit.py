"""Group commit: concurrent commands of one process share one transaction.

While one group commits, the next gathers. Inside the transaction the partition heads are locked
first and everything a decision reads is loaded after that, so a decision always sees the latest
facts and no optimistic retry exists; the decision itself is pure and takes microseconds. A refused
command leaves its neighbours alone. When the database refuses a whole group, it is halved until the
guilty one stands alone. After one that took too long, groups are half as large for a while.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg

from services.kernel.command import claims, requests
from services.kernel.command.stream_state import load_states, probe_streams, saved_states
from services.kernel.command.work import Change, Outcome, StreamState, Work
from services.kernel.errors import (
    Aborted,
    InvalidArgument,
    RapportError,
    ResourceExhausted,
    Unavailable,
)
from services.kernel.log.database import is_conflict, is_passing, transaction
from services.kernel.log.log import EPOCH, Landed, Log
from services.kernel.log.tokens import encode_write_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncpg import Pool
    from google.protobuf.message import Message

    from services.kernel.log.log import Head
    from services.kernel.log.sql import Tx
    from services.kernel.views.view import AnyView

IN_FLIGHT_MAX = 2_000
GROUP_SIZE_MAX = 256
# Large works share a group up to here, so that the next ones are made ready while it commits.
GROUP_STREAMS_MAX = 2_000
# By how much a group that was cut, because it took too long, grows again with each success.
GROUP_SIZE_STEP = 4
# How many waiting works are looked at for a group; those that must wait for another stay in line.
LOOK_AHEAD_MAX = 2 * GROUP_SIZE_MAX
COMMIT_TIMEOUT_S = 10.0
ATTEMPTS_MAX = 3
CONFLICT_PAUSE_MAX_S = 0.02


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
    """Runs works in shared transactions; one instance per process and log.

    `views` are read at once: their rows change in the transaction that appends the events.
    """

    pool: Pool
    log: Log
    views: Sequence[AnyView] = ()
    _queue: deque[_Pending] = field(default_factory=deque)
    _taken: Sequence[_Pending] = ()
    _filled: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: bool = False
    _group_size: int = GROUP_SIZE_MAX

    async def submit(self, work: Work) -> Message:
        """Run a work and return its response, or the first response to its request_id.

        Raises what the decision raised, AlreadyExists when a claim is taken, ResourceExhausted when
        IN_FLIGHT_MAX works wait, Unavailable when the database does not answer: then nobody knows
        whether the work was done, and the same request_id tells.
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
        """Commit groups until `close`, then finish what waits; leaves nobody without an answer."""
        try:
            while self._queue or not self._closing:
                await self._filled.wait()
                self._filled.clear()
                while self._queue:
                    self._taken = self._next_group()
                    await self._finish(self._taken)
        finally:
            self._closing = True
            _refuse([*self._taken, *self._queue], self.log.service)
            _answer([*self._taken, *self._queue])
            self._queue.clear()

    def close(self) -> None:
        """Take no more works; `run` returns when the waiting ones are done."""
        self._closing = True
        self._filled.set()

    def _next_group(self) -> list[_Pending]:
        """Take works of different streams and request ids from the queue, oldest first.

        A work that must wait for another stays in line, and so does whatever must wait for it.
        """
        group: list[_Pending] = []
        left: list[_Pending] = []
        touched: set[object] = set()
        size = 0
        while self._queue and len(group) < self._group_size and len(left) < LOOK_AHEAD_MAX:
            pending = self._queue.popleft()
            if pending.answer.done():  # its caller gave up
                continue
            keys = _keys(pending.work)
            fits = not group or size + len(keys) <= GROUP_STREAMS_MAX
            if fits and touched.isdisjoint(keys):
                group.append(pending)
                size += len(keys)
            else:
                left.append(pending)
            touched |= keys
        self._queue.extendleft(reversed(left))
        return group

    async def _finish(self, group: Sequence[_Pending], attempt: int = 1) -> None:
        """Commit a group and answer its works, in halves if they cannot be committed together."""
        if not group:
            return
        deadline = asyncio.timeout(COMMIT_TIMEOUT_S)
        try:
            async with deadline:
                await self._commit(group)
            self._group_size = min(self._group_size + GROUP_SIZE_STEP, GROUP_SIZE_MAX)
        except Exception as error:  # noqa: BLE001, whatever a view or a decider raises
            if deadline.expired():  # perhaps it was too much at once
                self._group_size = max(1, len(group) // 2)
            if is_passing(error):
                _refuse(group, self.log.service)
            elif len(group) > 1:
                middle = len(group) // 2
                await self._finish(_anew(group[:middle]))
                await self._finish(_anew(group[middle:]))
                return
            elif is_conflict(error) and attempt < ATTEMPTS_MAX:
                await asyncio.sleep(random.uniform(0, CONFLICT_PAUSE_MAX_S))
                await self._finish(_anew(group), attempt + 1)
                return
            else:
                group[0].refusal = _blame(error)
        _answer(group)

    async def _commit(self, group: Sequence[_Pending]) -> None:
        """One transaction: lock, load, decide, settle claims, append and remember, apply views."""
        age = self.log.recent.age
        async with transaction(self.pool) as tx:
            heads = await self.log.lock_heads(tx, self._partitions(group))
            _refuse_sealed(group, heads, self.log.service)
            await _replay(tx, _accepted(group))
            loaded = await _decide(tx, _accepted(group))
            await _settle(tx, _accepted(group))
            accepted = _accepted(group)
            changes = [change for pending in accepted for change in pending.changes]
            appends = [change.append for change in changes]
            versions = {stream: state.version for stream, state in loaded.items()}
            landed = self.log.record(appends, heads, versions)
            self._respond(accepted, landed)
            answered = [(p.work, p.response, p.changes) for p in accepted if p.response is not None]
            states = saved_states(changes, landed.events)
            responses = requests.saved_responses(answered, self.log.clock.now())
            size_bytes = await self.log.write(tx, landed, also=[*states, *responses])
            await claims.save_claims(tx, changes)
            if landed.events:
                for view in self.views:
                    await view.apply(tx, view.name, landed.events)
        self.log.recent.keep(landed.events, size_bytes, age)

    def _partitions(self, group: Sequence[_Pending]) -> set[int]:
        if self.log.partitions == 1:
            return {0}
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


async def _replay(tx: Tx, group: Sequence[_Pending]) -> None:
    """Give works whose request_id was answered before their first response."""
    answered = await requests.load_answered(tx, [pending.work for pending in group])
    for pending in group:
        try:
            pending.response = requests.first_response(pending.work, answered)
        except RapportError as refusal:
            pending.refusal = refusal


async def _decide(tx: Tx, group: Sequence[_Pending]) -> dict[tuple[str, str], StreamState]:
    """Load what the works ask for and let each decide; answers the streams loaded."""
    shapes = {
        (pending.work.origin.workspace, stream): shape
        for pending in group
        for stream, shape in pending.work.shapes.items()
    }
    probed = [(p.work.origin.workspace, stream) for p in group for stream in p.work.probed]
    loaded = {**await load_states(tx, shapes), **await probe_streams(tx, probed)}
    for pending in group:
        own: dict[str, StreamState] = {}
        if loaded:
            own = {key[1]: loaded[key] for key in pending.work.streams() if key in loaded}
        try:
            pending.changes = pending.work.decide(own)
        except Exception as refusal:  # noqa: BLE001, a refusal, or a bug of this decider alone
            pending.refusal = refusal
    return loaded


async def _settle(tx: Tx, group: Sequence[_Pending]) -> None:
    """Refuse works that want what another stream holds, in the order they came."""
    owners = await claims.load_owners(tx, [change for p in group for change in p.changes])
    for pending in group:
        try:
            claims.settle(pending.work, pending.changes, owners)
        except RapportError as refusal:
            pending.refusal = refusal


def _accepted(group: Sequence[_Pending]) -> list[_Pending]:
    return [pending for pending in group if pending.accepted]


def _refuse_sealed(group: Sequence[_Pending], heads: Mapping[int, Head], service: str) -> None:
    """Refuse what was received before an erasure began that has looked at the log since."""
    sealed_time = max((head.sealed_time for head in heads.values()), default=EPOCH)
    for pending in group:
        received = pending.work.receive_time
        if received is not None and received <= sealed_time:
            message = "somebody was erased while this was on its way; send it again"
            pending.refusal = Unavailable(service, message=message)


def _anew(group: Sequence[_Pending]) -> list[_Pending]:
    """The same works as if nothing had been tried."""
    return [_Pending(pending.work, pending.answer) for pending in group]


def _keys(work: Work) -> set[object]:
    """What no two works of one group may share."""
    keys: set[object] = {*work.streams()}
    if work.request is not None:
        keys.add((work.origin.workspace, "request", work.request.request_id))
    return keys


def _refuse(group: Iterable[_Pending], service: str) -> None:
    for pending in group:
        pending.refusal = Unavailable(service)


def _answer(group: Iterable[_Pending]) -> None:
    for pending in group:
        if pending.answer.done():
            continue
        if pending.refusal is not None:
            pending.answer.set_exception(pending.refusal)
        elif pending.response is not None:
            pending.answer.set_result(pending.response)


def _blame(error: Exception) -> Exception:
    """What a single work's failure means: input that cannot be stored is the caller's fault."""
    if is_conflict(error):
        return Aborted.conflict()
    if isinstance(
        error, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError
    ):
        return InvalidArgument(
            (), message="the request contains the character U+0000, which cannot be stored"
        )
    return error
