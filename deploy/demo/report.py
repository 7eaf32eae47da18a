"""The end of a load: one table of files, the numbers behind it, and what was refused."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.demo.cargo import Refused
from deploy.demo.loading import Loaded
from deploy.demo.telling import Teller, number

REFUSED_SHOWN_MAX: Final = 20
ROW_SHOWN_MAX: Final = 60
COLUMNS: Final = ("file", "rows", "sent", "as", "accepted", "already there", "refused", "check")
NUMBERS: Final = frozenset({1, 2, 4, 5, 6})


def report(teller: Teller, loads: Sequence[Loaded], *, refused_file: Path) -> None:
    """Prints what became of each file."""
    teller.heading("What became of it")
    teller.table([COLUMNS, *map(_row, loads)], right=NUMBERS)
    teller.heading("Counted in the file / as the platform lists it")
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
    return (
        loaded.file,
        number(loaded.rows),
        number(loaded.sent),
        loaded.noun,
        number(loaded.accepted),
        number(loaded.known),
        number(len(loaded.refused)),
        f"{differing} DIFFER" if differing else f"{len(loaded.comparisons)} numbers agree",
    )


def _explain(teller: Teller, loaded: Loaded) -> None:
    numbers = "; ".join(
        f"{one.what} {number(one.in_file)}"
        if one.agrees
        else f"{one.what} {number(one.in_file)} / {number(one.at_platform)} DIFFERS"
        for one in loaded.comparisons
    )
    teller.step("", f"{loaded.file}: {numbers}")
    pace = round(loaded.sent / loaded.send_s) if loaded.send_s else 0
    teller.step(
        "",
        f"  sent in {loaded.send_s:.1f} s, {number(pace)} {loaded.noun}/s; "
        f"identity had caught up {loaded.identity_s:.1f} s after the check",
    )


def _list_refused(teller: Teller, refused: Sequence[Refused], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("file", "line", "reason", "row"))
        writer.writerows((row.file, row.line, row.reason, row.row) for row in refused)
    teller.heading(f"Refused: {len(refused)}, all of them in {os.path.relpath(file)}")
    for row in refused[:REFUSED_SHOWN_MAX]:
        teller.step("", f"{row.file}:{row.line}  {row.reason}")
        teller.step("", f"    {row.row[:ROW_SHOWN_MAX]}")
    if len(refused) > REFUSED_SHOWN_MAX:
        teller.step("", f"... and {len(refused) - REFUSED_SHOWN_MAX} more")
