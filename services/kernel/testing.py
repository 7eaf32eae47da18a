"""What tests of Rapport and of programs on it need: a grammar for deciders, and patience."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import msgspec

from services.kernel.command.decider import C, S
from services.kernel.errors import RapportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from services.kernel.command.decider import Decider

FIRST_PAUSE_S = 0.005
PAUSE_MAX_S = 0.1

T = TypeVar("T")
E = TypeVar("E", bound=RapportError)


async def eventually(
    assertion: Callable[[], T] | Callable[[], Awaitable[T]], *, within_s: float = 5.0
) -> T:
    """Repeats an assertion (sync or async) until it holds and returns its result.

    When the time is over the last AssertionError is raised; any other error is raised at once.
    """
    deadline = time.monotonic() + within_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            result = assertion()
            return await result if inspect.isawaitable(result) else result
        except AssertionError:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MAX_S)


class Spec(Generic[C, S]):
    """A decider's promise in one line: `Spec(DECIDER).given(*events).when(command).then(*events)`.

    The states on the way must survive being stored, so a state that would be read back as another
    fails here and not in production.
    """

    def __init__(self, decider: Decider[C, S]) -> None:
        self._decider = decider
        self._given: tuple[Message, ...] = ()
        self._command: C | None = None

    def given(self, *events: Message) -> Self:
        """Says what happened so far; without it nothing did."""
        self._given += events
        return self

    def when(self, command: C) -> Self:
        """Says what is asked."""
        self._command = command
        return self

    def then(self, *events: Message) -> S:
        """Asserts what is recorded, nothing being an answer too; returns the state that follows."""
        before, command = self._before()
        recorded = tuple(self._decider.decide(command, before))
        assert recorded == events, f"expected {_told(events)}\ninstead {_told(recorded)}"
        return self._stored(self._decider.fold(recorded, before))

    def then_refused(self, refusal: type[E], *, reason: str | None = None) -> E:
        """Asserts that the command is refused, and returns the error."""
        before, command = self._before()
        try:
            recorded = tuple(self._decider.decide(command, before))
        except refusal as error:
            refused = error
        else:
            raise AssertionError(f"expected {refusal.__name__}\ninstead {_told(recorded)}")
        assert reason in {None, refused.reason}, f"expected {reason}\ninstead {refused.reason}"
        return refused

    def _before(self) -> tuple[S, C]:
        assert self._command is not None, "say when(command) first"
        return self._stored(self._decider.fold(self._given)), self._command

    def _stored(self, state: S) -> S:
        read_back: S = msgspec.msgpack.decode(
            msgspec.msgpack.encode(state), type=type(self._decider.initial)
        )
        assert read_back == state, f"{state}\nis read back as {read_back}"
        return read_back


def _told(events: tuple[Message, ...]) -> str:
    return ", ".join(f"{event.DESCRIPTOR.name}({event})" for event in events) or "no event"
