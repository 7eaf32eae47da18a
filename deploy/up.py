"""`make up`: starts the platform here, says where everything is, and drains on Ctrl-C."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from deploy.stack.errors import StackError
from deploy.stack.platform import Command, Platform, module_command
from deploy.stack.settings import Settings
from deploy.stack.supervised import State, Supervised

COLUMNS = ("process", "pid", "address", "state", "restarts", "log")


class Progress:
    """Tells the person at the terminal what each process does, a line per event worth one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._since: dict[str, float] = {}

    def __call__(self, part: Supervised) -> None:
        """Hears of a change of state."""
        if part.state in {State.STARTING, State.STOPPING}:
            self._since[part.name] = time.monotonic()
        line = self._line(part)
        if line:
            _say(self._console, f"  {part.name:<10}{line}")

    def _line(self, part: Supervised) -> str | None:
        log = _path(part.part.log)
        took = f"{time.monotonic() - self._since.get(part.name, time.monotonic()):.1f} s"
        if part.state is State.READY:
            return f"[green]ready[/] after {took}"
        if part.state is State.RESTARTING:
            return f"[yellow]ended ({_fate(part.last_exit)}), restarting[/]; see {log}"
        if part.state is State.FAILED:
            return f"[red]gave up ({_fate(part.last_exit)})[/]; see {log}"
        if part.state is State.STOPPED:
            end = "[yellow]killed, it did not stop in time[/]" if part.forced else "stopped"
            return f"{end} after {took}"
        return None


def show(console: Console, platform: Platform) -> None:
    """Prints every process in one table, and how to go on."""
    dev = platform.dev
    _say(console, "\n" + "\n".join(_table(platform.parts)))
    _say(console, f"\ngRPC {dev['grpc']}   HTTP {dev['http']}")
    _say(console, f"Keys and addresses: {_path(platform.data_dir / 'dev.json')}")
    _say(console, "Ctrl-C or `make down` stops it.")


async def run(settings: Settings, console: Console, command: Command) -> None:
    """Runs the platform until a signal; a second signal does not wait for the drain."""
    platform = Platform(settings, command=command, report=Progress(console))
    _stop_on_signal(platform, console)
    _say(console, f"Starting Rapport in {settings.data_dir}")
    async with platform:
        show(console, platform)
        await asyncio.Event().wait()


def main(command: Command = module_command) -> int:
    """Exits 0 after a drain, 1 when the platform cannot run."""
    console = Console()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(run(Settings.from_env(), console, command))
    except StackError as error:
        _say(console, f"[red]Rapport is not running:[/] {escape(str(error))}")
        return 1
    _say(console, "Rapport stopped; its data stays.")
    return 0


def _stop_on_signal(platform: Platform, console: Console) -> None:
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    assert running is not None
    asked: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        asked.append(number)
        if len(asked) == 1:
            _say(console, "\nDraining (once more to kill everything at once)")
            running.cancel()
        else:
            platform.kill_all()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)


def _fate(exit_code: int | None) -> str:
    if exit_code is None:
        return "not ready in time"
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"


def _path(path: Path) -> str:
    """As short as the person at the terminal would write it."""
    return escape(os.path.relpath(path))


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)


def _table(parts: Sequence[Supervised]) -> list[str]:
    """Aligned lines; not a table of rich, which cuts what a pipe or a narrow window cannot hold."""
    rows = [COLUMNS, *map(_row, parts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [f"[bold]{lines[0]}[/]", *lines[1:]]


def _row(part: Supervised) -> tuple[str, ...]:
    address = part.part.address
    where = _path(Path(address)) if address.startswith("/") else address
    log = _path(part.part.log)
    return (part.name, str(part.pid or "-"), where, part.state.value, str(part.restarts), log)


if __name__ == "__main__":
    sys.exit(main())
