"""What the demo says: aligned lines, a progress bar where there is a terminal to draw it on.

Nothing here is a table of rich, which cuts what a pipe or a narrow window cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# A pipe gets a line for each of these shares of the work.
PLAIN_LINES: Final = 4
LABEL_WIDTH: Final = 12


class Teller:
    """Talks to the person at the terminal, or to the file they put in its place."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def heading(self, text: str) -> None:
        """Begins a part."""
        self.line(f"\n[bold]{escape(text)}[/]")

    def step(self, label: str, text: str) -> None:
        """Says one thing, under its label; without one it goes on with the last."""
        self.line(f"  [cyan]{escape(label.ljust(LABEL_WIDTH))}[/]{escape(text)}".rstrip())

    def problem(self, text: str) -> None:
        """Says what is wrong."""
        self.line(f"[red]{escape(text)}[/]")

    def line(self, markup: str) -> None:
        """Prints a line of rich's markup."""
        self.console.print(markup, highlight=False, soft_wrap=True)

    def table(self, rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
        """Prints rows in columns, the first row as their names; `right` is for numbers."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for number, row in enumerate(rows):
            cells = [
                cell.rjust(width) if place in right else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            text = escape("  ".join(cells).rstrip())
            self.line(f"[bold]{text}[/]" if number == 0 else text)

    @contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        """Shows how far something got; yields what is called with how many more are done."""
        told = self._bar if self.console.is_terminal else self._lines
        with told(name, size) as more:
            yield more

    @contextmanager
    def _bar(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=size)
            yield lambda more: progress.advance(task, more)

    @contextmanager
    def _lines(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        done = 0
        shares = 0

        def more(count: int) -> None:
            nonlocal done, shares
            done += count
            if size and done * PLAIN_LINES // size > shares:
                shares = done * PLAIN_LINES // size
                self.line(escape(f"  {name}: {number(done)} of {number(size)}"))

        yield more


def number(value: int) -> str:
    """1234567 → `1 234 567`."""
    return f"{value:,}".replace(",", " ")


def pieces(count: int, noun: str) -> str:
    """`1 deal`, `2 deals`: for nouns in the plural that end in s."""
    return f"{number(count)} {noun.removesuffix('s') if count == 1 else noun}"
