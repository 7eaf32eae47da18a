"""`make import-deals`: imports deals with their histories into the platform that `make up` runs.

    make import-deals FILE=deals.csv CHECK=1         only tells what would become of each deal
    make import-deals FILE=deals.csv CURRENCY=EUR    amounts are in EUR where no column says it
    make import-deals FILE=deals.csv DATES=%d.%m.%Y  times are written so

A file has one row per deal, or one per change of a deal (deal_id, time, field, value). Run it again
after mending what was wrong, or when it was stopped: deals that are there stay as they are. Exits 1
when something was wrong with a deal.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from deploy.deal_files.reading import BadRow, Found, read
from deploy.deal_files.sending import Ask, bad_rows_of, load_stages, outcome_of, send
from deploy.deal_files.stories import Reading
from deploy.demo.door import open_door, reason_of
from deploy.demo.telling import Teller, number, pieces
from deploy.stack.errors import StackError
from deploy.stack.platform import running_platform
from deploy.stack.settings import Settings
from rapport.deals.v1.imports_pb2 import ImportDealResult
from services.deals.deal_cells import safe
from services.kernel.errors import RapportError

ROWS_SHOWN: Final = 10
WITHIN_S: Final = 60.0
WRONG_FILE: Final = "import-deals-wrong.csv"

_SAID: Final = {
    "IMPORTED": "imported",
    "UNCHANGED": "there already",
    "CONFLICT": "there with another history",
    "REFUSED": "refused",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to have imported."""

    file: Path
    check_only: bool = False
    currency: str = ""
    dates: str = ""


@dataclass(slots=True)
class ImportingDeals:
    """One import, told as it goes. `ask` asks a method of a stub until it answers."""

    imports: Any
    pipelines: Any
    ask: Ask
    teller: Teller
    wrong_file: Path
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[BadRow] = field(default_factory=list)

    async def run(self, wish: Wish) -> bool:
        """Does what is wished for; tells whether nothing was wrong."""
        stages = await load_stages(self.pipelines, self.ask)
        found = read(lines_of(wish.file), Reading(stages, wish.currency, wish.dates))
        self._tell_layout(found)
        self.wrong += found.bad
        with self.teller.progress(wish.file.name, len(found.deals)) as more:

            def told(result: ImportDealResult) -> None:
                self.counts[outcome_of(result)] += 1
                self.wrong.extend(bad_rows_of(result))
                more(1)

            await send(self.imports, self.ask, found.deals, told, check_only=wish.check_only)
        self._tell_wrong(wish.file.name)
        would = "would be " if wish.check_only else ""
        counts = [f"{number(self.counts[key])} {said}" for key, said in _SAID.items()]
        counts.append(f"{number(len({(bad.line, bad.deal_id) for bad in found.bad}))} unreadable")
        self.teller.line(shown(f"{wish.file.name}: {would}{', '.join(counts)}"))
        return not self.wrong

    def _tell_layout(self, found: Found) -> None:
        kind = "one row per change" if found.layout.is_of_changes else "one row per deal"
        self.teller.line(f"{pieces(found.rows, 'rows')}, {kind}")
        for name, means in found.layout.columns:
            self.teller.line(shown(f"  {name:32} {means or 'nothing: it is left out'}"))

    def _tell_wrong(self, name: str) -> None:
        if not self.wrong:
            self.wrong_file.unlink(missing_ok=True)
            return
        for bad in self.wrong[:ROWS_SHOWN]:
            where = f"{bad.column}: " if bad.column else ""
            said = f"  line {bad.line:<8} {bad.deal_id:24} {bad.reason:16} {where}{bad.detail}"
            self.teller.line(shown(said))
        write_wrong(self.wrong_file, self.wrong)
        self.teller.line(
            shown(
                f"  {pieces(len(self.wrong), 'rows')} in {self.wrong_file}: mend {name}, "
                "and run this again"
            )
        )


def write_wrong(file: Path, wrong: Iterable[BadRow]) -> None:
    """Writes what is wrong as CSV."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("line", "deal_id", "column", "reason", "detail"))
        for bad in wrong:
            told = (bad.deal_id, bad.column, bad.reason, bad.detail)
            writer.writerow((bad.line, *map(safe, told)))


def shown(text: str) -> str:
    """A text as it can be shown: nothing that a file says styles it or commands the terminal."""
    return escape("".join("�" if unicodedata.category(each)[0] == "C" else each for each in text))


def lines_of(file: Path) -> Iterator[str]:
    """The lines of a file in UTF-8; raises ValueError when it is written otherwise, or damaged."""
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
            yield from lines
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not in UTF-8: save it as CSV in UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file.name} is damaged: {error}") from error


def _wish(words: Sequence[str]) -> Wish:
    parser = argparse.ArgumentParser(prog="make import-deals")
    parser.add_argument("--file", type=lambda text: Path(text).expanduser())
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--currency", default="")
    parser.add_argument("--dates", default="")
    said = parser.parse_args(words)
    if said.file is None:
        parser.error("say FILE=…")
    return Wish(**vars(said))


async def _run(settings: Settings, dev: dict[str, Any], wish: Wish) -> bool:
    async with open_door(dev) as door:

        async def ask(method: Any, request: Any) -> Any:
            return await door.ask(method, request, within_s=WITHIN_S)

        wrong_file = settings.data_dir / WRONG_FILE
        importing = ImportingDeals(door.deal_imports, door.pipelines, ask, Teller(), wrong_file)
        return await importing.run(wish)


def main() -> int:
    """Runs in the terminal; 1 when there is no platform, or something was wrong."""
    try:
        settings, wish = Settings.from_env(), _wish(sys.argv[1:])
        dev = running_platform(settings.data_dir)
        if dev is None:
            print("No platform runs here: start it with `make up`.")
            return 1
        return 0 if asyncio.run(_run(settings, dev, wish)) else 1
    except RapportError as error:
        print(f"{reason_of(error)}; run it again, what was imported stays")
    except KeyboardInterrupt:
        print("Stopped by hand; run it again, what was imported stays")
    except (StackError, OSError, ValueError) as error:
        print(error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
