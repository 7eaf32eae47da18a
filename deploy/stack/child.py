"""One child process: tied to our life, its output in a file, its end bounded."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TETHER = Path(__file__).with_name("tether.py")
LOG_TAIL_BYTES_MAX = 64 * 1024


class Child:
    """A running command; started on construction, which must happen in the main thread."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        directory: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        user: str | None = None,
    ) -> None:
        self.log = log
        tether = [sys.executable, "-I", "-S", str(TETHER)]
        tie = [str(int(death_signal)), str(os.getpid()), user or "-"]
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch(mode=0o600)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*tether, *tie, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                # A Ctrl-C in the terminal is for the parent, which drains its children in order.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The pid, also after the end."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code is None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, or does nothing when it has ended."""
        self._process.send_signal(number)

    def wait(self, within_s: float) -> bool:
        """Waits for the end; False when the time is over first."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, *signals: signal.Signals, within_s: float) -> bool:
        """Sends each signal and gives it time, then kills; True when the first was enough."""
        for attempt, number in enumerate(signals):
            self.send(number)
            if self.wait(within_s):
                return attempt == 0
        self.kill()
        return False

    def kill(self) -> None:
        """Ends it as a crash would (SIGKILL) and waits until it is gone."""
        self.send(signal.SIGKILL)
        self._process.wait()


def log_tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file, for an error message."""
    if not log.exists():
        return "(no output)"
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES_MAX))
        text = stream.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(no output)"
