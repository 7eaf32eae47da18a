"""The end of a load: one table of files, the numbers behind it, and what was refused."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.markup import escape

from deploy.demo.cargo import Refused
from deploy.demo.loading import Loaded
from deploy.demo.telling import Teller, number, pieces

REASONS_SHOWN_MAX: Final = 20
LINES_SHOWN_MAX: Final = 10
TEXT_WIDTH: Final = 90
CHECKSUM: Final = "checksum"
COLUMNS: Final = ("file", "rows", "sent", "as", "accepted", "already there", "refused", "check")
NUMBERS: Final = frozenset({1, 2, 4, 5, 6})


def report(teller: Teller, loads: Sequence[Loaded], *, refused_file: Path) -> None:
    """Prints what became of each file."""
    teller.heading("What became of it")
    teller.table([COLUMNS, *map(_row, loads)], right=NUMBERS)
    teller.heading("The numbers that were compared, those of the file with those of the platform")
    for loaded in loads:
        _explain(teller, loaded)
    refused = [row for loaded in loads for row in loaded.refused]
    if refused:
        _list_refused(teller, refused, refused_file)
    else:
        refused_file.unlink(missing_ok=True)
        teller.heading("No row was refused")


def problems_of(loads: Sequence[Loaded]) -> list[str]:
    """Returns a sentence for each number that the platform has otherwise than the file."""
    return [
        f"{loaded.file}: {one.what}: {number(one.in_file)} in the file, "
        f"{number(one.at_platform)} at the platform"
        for loaded in loads
        for one in loaded.comparisons
        if not one.agrees
    ]


def _row(loaded: Loaded) -> tuple[str, ...]:
    differing = sum(not comparison.agrees for comparison in loaded.comparisons)
    count = len(loaded.comparisons)
    return (
        loaded.file,
        number(loaded.rows),
        number(loaded.sent),
        loaded.noun,
        number(loaded.accepted),
        number(loaded.known),
        number(len(loaded.refused)),
        f"{count - differing} of {count} agree" + (", DIFFERS" if differing else ""),
    )


def _explain(teller: Teller, loaded: Loaded) -> None:
    pace = round(loaded.sent / loaded.send_s) if loaded.send_s else 0
    teller.line(
        f"  {escape(loaded.file)}: sent in {loaded.send_s:.1f} s, {number(pace)}/s; "
        f"in identity's views {loaded.identity_s:.1f} s after the check"
    )
    for one in loaded.comparisons:
        if not one.agrees:
            teller.problem(f"    {one.what}: {number(one.in_file)} / {number(one.at_platform)}")
    agreeing = [
        "every text, by checksum" if one.what == CHECKSUM else f"{one.what} {number(one.in_file)}"
        for one in loaded.comparisons
        if one.agrees
    ]
    for line in textwrap.wrap("; ".join(agreeing), TEXT_WIDTH):
        teller.line(f"    {escape(line)}")


def _list_refused(teller: Teller, refused: Sequence[Refused], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("file", "line", "reason", "row"))
        writer.writerows((row.file, row.line, row.reason, row.row) for row in refused)
    teller.heading(f"Refused: {pieces(len(refused), 'rows')}, all of them in {file}")
    lines: dict[tuple[str, str], list[str]] = {}
    for row in refused:
        lines.setdefault((row.file, row.reason), []).append(str(row.line))
    for (name, reason), found in list(lines.items())[:REASONS_SHOWN_MAX]:
        shown = ", ".join(found[:LINES_SHOWN_MAX])
        more = f" and {len(found) - LINES_SHOWN_MAX} more" if len(found) > LINES_SHOWN_MAX else ""
        teller.line(f"  {escape(name)}, line {shown}{more}\n    {escape(reason)}")
    if len(lines) > REASONS_SHOWN_MAX:
        teller.line(f"  ... and {pieces(len(lines) - REASONS_SHOWN_MAX, 'other reasons')}")
