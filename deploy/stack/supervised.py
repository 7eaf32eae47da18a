"""Keeps one process running: watched until it serves, restarted when it dies, ended in order.

Like Kubernetes does it: the pause before a restart grows and jitters, and restarts are counted.
Unlike it, a process that does not get ready is given up after a few starts, because somebody is
waiting to read why. The end of a process is learnt from its pidfd, so this needs Linux.
"""

import asyncio
import enum
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.child import Child, log_tail
from deploy.stack.errors import StackError

FAILED_STARTS_MAX = 5
FIRST_PAUSE_S = 0.1
PAUSE_MAX_S = 3.0
# Who served this long before it died has earned a quick restart again.
STABLE_AFTER_S = 10.0


class State(enum.Enum):
    """What a process is doing."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process of the platform: how it is started, when it serves, how it is told to end."""

    name: str
    address: str
    log: Path
    # Runs in the main thread and returns at once.
    launch: Callable[[], Child]
    # Returns when the process serves; raises StackError when it does not.
    ready: Callable[[Child], Awaitable[None]]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float


class Supervised:
    """A part, kept running from `start` to `stop`; `report` hears of every change of state."""

    def __init__(self, part: Part, *, report: Callable[["Supervised"], None]) -> None:
        self.part = part
        self.state = State.STOPPED
        self.restarts = 0
        self.last_exit: int | None = None
        self.forced = False
        self._report = report
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._launches = 0
        self._between: Callable[[], None] | None = None

    @property
    def name(self) -> str:
        """The name of the part."""
        return self.part.name

    @property
    def pid(self) -> int | None:
        """The pid while a process runs."""
        return self._child.pid if self._child and self._child.runs else None

    def start(self) -> None:
        """Starts the process and its supervision."""
        self._task = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")
        self._task.add_done_callback(lambda _: self._changed.set())

    async def wait_ready(self) -> None:
        """Returns when the process serves; raises when it was given up."""
        await self._wait_ready_after(0)

    def kill(self) -> None:
        """Kills the process as a crash would; supervision restarts it."""
        if self._child is not None:
            self._child.kill()

    def abandon(self) -> None:
        """Kills the process and lets it stay dead; `stop` has little left to do."""
        if self._task is not None:
            self._task.cancel()
        self.kill()

    async def restart(self, between: Callable[[], None] = lambda: None) -> None:
        """Kills the process, does something while it is gone, and returns when it serves again."""
        launches = self._launches
        self._between = between
        self.kill()
        await self._wait_ready_after(launches)

    async def stop(self) -> None:
        """Ends supervision and the process: in order, and by force when its time is over."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        self._become(State.STOPPING)
        child = self._child
        if child is not None and child.runs:
            child.send(self.part.stop_signal)
            try:
                async with asyncio.timeout(self.part.stop_within_s):
                    await ended(child)
            except TimeoutError:
                self.forced = True
                child.kill()
        self._become(State.STOPPED)

    async def _supervise(self) -> None:
        failed_starts = 0
        pause_s = FIRST_PAUSE_S
        while True:
            child = self._launch()
            if await self._gets_ready(child):
                failed_starts = 0
                started = time.monotonic()
                await ended(child)
                if time.monotonic() - started > STABLE_AFTER_S:
                    pause_s = FIRST_PAUSE_S
            else:
                failed_starts += 1
            self.last_exit = child.exit_code
            if failed_starts == FAILED_STARTS_MAX:
                self._become(State.FAILED)
                return
            self._become(State.RESTARTING)
            if self._between is not None:
                self._between()
                self._between = None
            else:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
            self.restarts += 1

    def _launch(self) -> Child:
        self._launches += 1
        self._child = self.part.launch()
        self._become(State.STARTING)
        return self._child

    async def _gets_ready(self, child: Child) -> bool:
        """Whether the process serves in time; one that runs but does not is killed."""
        try:
            await self.part.ready(child)
        except StackError:
            child.kill()
            return False
        self._become(State.READY)
        return True

    async def _wait_ready_after(self, launches: int) -> None:
        while not (self.state is State.READY and self._launches > launches):
            if self.state is State.FAILED:
                raise StackError(self._obituary())
            if self._task is None or self._task.cancelled():
                raise StackError(f"{self.name} was stopped")
            if self._task.done():
                self._task.result()  # Supervision itself failed: say how.
            await self._changed.wait()

    def _obituary(self) -> str:
        fate = f"exit code {self.last_exit}"
        if self.last_exit is not None and self.last_exit < 0:
            fate = signal.Signals(-self.last_exit).name
        tail = log_tail(self.part.log)
        return f"{self.name} did not start ({fate}), see {self.part.log}:\n{tail}"

    def _become(self, state: State) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()
        self._report(self)


async def ended(child: Child) -> None:
    """Returns when the process has ended; the caller brings the deadline."""
    if not child.runs:
        return
    try:
        descriptor = os.pidfd_open(child.pid)
    except ProcessLookupError:  # Another thread has seen the end first.
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
        child.wait(within_s=1.0)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
