"""Reads a file of deals: CSV with one row per deal, or one row per change of a deal. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Final

from deploy.deal_files.columns import UNCHANGING, Layout, field_of, layout_of
from deploy.deal_files.stories import (
    BadCell,
    Reading,
    Telling,
    imported_deal,
    read_cell,
    tellings_of,
)
from deploy.deal_files.values import id_of, is_day, moment_of
from rapport.deals.v1.imports_pb2 import ImportedDeal
from services.deals.deal_cells import meant

ROWS_MAX: Final = 1_000_000
CELL_CHARS_MAX: Final = 4 * 1024 * 1024
"""More than any field of a deal can have; Python's own limit is less."""

DELIMITERS: Final = ",;\t"


@dataclass(frozen=True, slots=True)
class BadRow:
    """What is wrong with a deal, and where in the file."""

    line: int
    deal_id: str
    column: str
    reason: str
    detail: str


@dataclass(slots=True)
class Found:
    """What a file holds."""

    layout: Layout
    rows: int = 0
    deals: list[ImportedDeal] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)


def read(lines: Iterable[str], reading: Reading) -> Found:
    """Reads a file; what is wrong with a deal costs that deal only.

    Raises ValueError, which says what to do, when the file as a whole cannot be read.
    """
    opened = iter(lines)
    first = next(opened, "")
    if not first:
        raise ValueError("the file is empty")
    delimiter = max(DELIMITERS, key=first.count)
    csv.field_size_limit(CELL_CHARS_MAX)
    rows = csv.reader(chain([first], opened), delimiter=delimiter, strict=True)
    found = Found(layout_of([name.strip() for name in _next(rows) or []]))
    take = _Changes(found, reading) if found.layout.is_of_changes else _Deals(found, reading)
    while (cells := _next(rows)) is not None:
        if not any(cells):
            continue
        found.rows += 1
        if found.rows > ROWS_MAX:
            raise ValueError(f"a file has at most {ROWS_MAX} rows: split it, deal by deal")
        if len(cells) != len(found.layout.columns):
            detail = f"{len(cells)} cells under {len(found.layout.columns)} columns"
            found.bad.append(BadRow(rows.line_num, "", "", "ROW_INVALID", detail))
            continue
        take.row(rows.line_num, [meant(cell) for cell in cells])
    take.finish()
    found.bad.sort(key=lambda bad: bad.line)
    return found


def _next(rows: Iterator[list[str]]) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error  # type: ignore[attr-defined]


@dataclass(slots=True)
class _Deals:
    """Takes one row per deal."""

    found: Found
    reading: Reading
    names: dict[str, tuple[str, int]] = field(default_factory=dict)

    def row(self, line: int, cells: Sequence[str]) -> None:
        fields = {
            means: cell
            for (_, means), cell in zip(self.found.layout.columns, cells, strict=True)
            if cell
        }
        source = fields.get("deal_id", "").strip()
        deal_id = _named(self.found, self.names, line, source)
        if not deal_id:
            return
        try:
            moments = self._moments(line, fields)
            tellings = list(tellings_of(line, moments, fields, self.reading))
            self.found.deals.append(imported_deal(deal_id, tellings, self.reading))
        except BadCell as bad:
            self.found.bad.append(_bad(source, bad))

    def _moments(self, line: int, fields: dict[str, str]) -> dict[str, datetime]:
        """When it was opened and closed; a mere day of closing is no earlier than the opening."""
        moments = {}
        for name in ("open_time", "close_time"):
            text = fields.get(name, "")
            if name == "close_time":
                text = text or fields.get("close_date", "")
            if text:
                moments[name] = read_cell(line, name, moment_of, text, self.reading.date_format)
        if "open_time" not in moments:
            raise BadCell(line, "open_time", "says not when the deal was opened")
        closed, opened = moments.get("close_time"), moments["open_time"]
        text = fields.get("close_time") or fields.get("close_date", "")
        if closed and is_day(text) and closed.date() == opened.date():
            moments["close_time"] = max(closed, opened)
        return moments

    def finish(self) -> None:
        """Every row stood for itself."""


@dataclass(slots=True)
class _Changes:
    """Takes one row per change, in any order, and puts those of each deal in the order of time."""

    found: Found
    reading: Reading
    told: dict[str, dict[datetime, Telling]] = field(default_factory=dict)
    bad: dict[str, BadCell] = field(default_factory=dict)

    def row(self, line: int, cells: Sequence[str]) -> None:
        said = {
            means: cell
            for (_, means), cell in zip(self.found.layout.columns, cells, strict=True)
            if means
        }
        source = said["deal_id"].strip()
        moments = self.told.setdefault(source, {})
        try:
            moment = read_cell(line, "time", moment_of, said["time"], self.reading.date_format)
            name = read_cell(line, "field", _changing, said["field"])
            telling = moments.setdefault(moment, Telling(line, moment, {}))
            telling.fields[name] = said["value"]
        except BadCell as bad:
            self.bad.setdefault(source, bad)

    def finish(self) -> None:
        """Makes deals of all that was told."""
        names: dict[str, tuple[str, int]] = {}
        for source, moments in self.told.items():
            if source in self.bad:
                self.found.bad.append(_bad(source, self.bad[source]))
                continue
            tellings = sorted(moments.values(), key=lambda telling: telling.moment)
            deal_id = _named(self.found, names, tellings[0].line, source)
            if not deal_id:
                continue
            try:
                self.found.deals.append(imported_deal(deal_id, tellings, self.reading))
            except BadCell as bad:
                self.found.bad.append(_bad(source, bad))


def _changing(name: str) -> str:
    """What the field of a change means; raises ValueError for what follows from others."""
    field = field_of(name.strip())
    if field in UNCHANGING:
        raise ValueError(f"{field} is told by other fields: leave the row out")
    return field


def _named(found: Found, names: dict[str, tuple[str, int]], line: int, source: str) -> str:
    """The id of a deal that the file calls so; nothing, and a bad row, when it is taken."""
    if not source:
        found.bad.append(BadRow(line, "", "deal_id", "ROW_INVALID", "is empty"))
        return ""
    deal_id = id_of(source)
    other, first = names.setdefault(deal_id, (source, line))
    if (other, first) != (source, line):
        detail = f"{other!r} of line {first} has the id {deal_id}, too: give it another"
        found.bad.append(BadRow(line, source, "deal_id", "ROW_INVALID", detail))
        return ""
    return deal_id


def _bad(source: str, bad: BadCell) -> BadRow:
    return BadRow(bad.line, source, bad.column, "CELL_INVALID", str(bad))
